"""What the length of eta says of a scan, in a number and in a word."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import hypot, inf
from statistics import median

WORDS = ('good', 'doubtful', 'poor')
"""Of the artifacts of a scan, from few to many."""


@dataclass(frozen=True)
class ArtifactScale:
    """Levels of artifacts on one scale for all contrasts.

    Parameters
    ----------
    unspoiled : mapping of str to float
        Median length of eta of scans without an artifact, by contrast.
    doubtful, poor : float
        Levels above which a scan is called so; rising.
    """

    unspoiled: Mapping[str, float]
    doubtful: float
    poor: float

    def __post_init__(self):
        if not 0 <= self.doubtful <= self.poor < inf:
            raise ValueError(
                f'levels of artifacts rise from 0: not {self.doubtful} and then {self.poor}'
            )

    def level(self, eta: Sequence[float], contrast: str) -> float:
        """How much longer eta is than that of an unspoiled scan of the contrast; 0 at least.

        Raises
        ------
        ValueError
            For an empty eta or a contrast that the scale does not have.

        Examples
        --------
        >>> scale = ArtifactScale({'T2w': 0.25}, 0.125, 0.5)
        >>> scale.level((0.3, 0.4), 'T2w')
        0.25
        >>> scale.judge((0.3, 0.4), 'T2w')
        (0.25, 'doubtful')
        """
        if not len(eta):
            raise ValueError('a scan without eta has no level of artifacts')
        if contrast not in self.unspoiled:
            raise ValueError(
                f'the scale of artifacts has no {contrast}: calibrate the model for it'
            )
        return max(0.0, hypot(*eta) - self.unspoiled[contrast])

    def judge(self, eta: Sequence[float], contrast: str) -> tuple[float, str]:
        """Level, and one of :data:`WORDS`; ValueError as :meth:`level`."""
        level = self.level(eta, contrast)
        return level, WORDS[(level > self.doubtful) + (level > self.poor)]

    def to_dict(self) -> dict:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping) -> 'ArtifactScale':
        """Inverse of :meth:`to_dict`; other fields, as those that say what it is, are left out."""
        known = {str(name): float(length) for name, length in fields['unspoiled'].items()}
        return cls(known, float(fields['doubtful']), float(fields['poor']))

    @classmethod
    def measured(
        cls, lengths: Mapping[str, Sequence[float]], half: Sequence[tuple[str, float]]
    ) -> 'ArtifactScale':
        """Scale from scans of known severity.

        A scan is doubtful above what 95 of 100 unspoiled ones have, and poor above the median
        of scans with an artifact of severity about one half.

        Parameters
        ----------
        lengths : mapping of str to sequence of float
            Of eta of unspoiled scans, by contrast.
        half : sequence of (str, float)
            Contrast and length of eta of scans with such an artifact.

        Raises
        ------
        ValueError
            Where there are no scans of one of both kinds.
        """
        if not half or not lengths or not all(len(own) for own in lengths.values()):
            raise ValueError('a scale needs unspoiled scans of every contrast, and spoiled ones')
        start = {contrast: float(median(own)) for contrast, own in lengths.items()}
        above = sorted(
            max(0.0, n - start[contrast]) for contrast, own in lengths.items() for n in own
        )
        # the smallest level that 95 of 100 do not pass
        doubtful = above[min(len(above) - 1, -(-95 * len(above) // 100) - 1)]
        poor = median(max(0.0, length - start[contrast]) for contrast, length in half)
        return cls(start, doubtful, max(poor, doubtful))
