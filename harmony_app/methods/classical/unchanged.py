"""No harmonization: what every method is compared with."""

from collections.abc import Sequence

from harmony_app.methods.base import Harmonized, Method, Scan, Style


class Unchanged(Method):
    """Give every scan as preprocessing left it: bias-corrected, white-matter peak at 1."""

    name = 'none'

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Give the scans of the target's contrast as they are, see :meth:`Method.harmonize`."""
        return [
            Harmonized(
                source=scan.name,
                contrast=scan.contrast,
                working=scan.working,
                native=scan.native,
                settings={'method': self.name},
            )
            for scan in session
            if scan.contrast == target.contrast
        ]
