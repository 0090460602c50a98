"""The interface of every harmonization method, and what travels through it.

A method never sees a file name: it gets preprocessed scans and gives volumes and tables.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from harmony_app.imaging.denoise import white_matter_noise
from harmony_app.imaging.profile import TissueProfile, measure_profile
from harmony_app.imaging.volume import Volume

logger = logging.getLogger('harmony_app')

CONTRASTS = ('T1w', 'T2w', 'PDw', 'FLAIR')
"""BIDS suffixes of the contrasts, in the order of the sources of HACA3."""


@dataclass(frozen=True)
class Scan:
    """One preprocessed scan, on the working grid and on its own.

    Parameters
    ----------
    name : str
        What tells this scan from the others of its session (its BIDS entities), for messages and tables.
    contrast : str
        One of :data:`CONTRASTS`.
    working : Volume
        Bias-corrected scan on the working grid, white-matter peak 1, zero outside the field of view.
    native : Volume
        The same on the scan's own grid (reoriented to RAS, not resampled).
    native_to_working : ndarray, shape (4, 4)
        Rigid transform of RAS millimetres of the native scan to millimetres of the working grid.
    brain : ndarray, shape of the working grid, bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8
        Registered GM, WM and CSF maps, 255 is certainty.
    profile : TissueProfile
        The measured style of the scan.
    site : str or None
        Scanner and protocol, where known.
    doubtful : bool
        Whether its session may be laid wrongly on the template.
    fluid : ndarray, uint8, or None
        Share of fluid on the working grid at 2 mm, as the contrasts of the session tell it
        (:func:`~harmony_app.imaging.fluid.session_fluid`).
    site_average : TissueProfile or None
        Average style of several people's scans of this contrast at its site, where it is known.
    """

    name: str
    contrast: str
    working: Volume
    native: Volume
    native_to_working: np.ndarray
    brain: np.ndarray
    tissues: np.ndarray
    profile: TissueProfile
    site: str | None = None
    doubtful: bool = False
    fluid: np.ndarray | None = None
    site_average: TissueProfile | None = None

    @classmethod
    def of_working(
        cls,
        name: str,
        contrast: str,
        working: Volume,
        brain: np.ndarray,
        tissues: np.ndarray,
        site: str | None = None,
    ) -> 'Scan':
        """A scan whose own grid is the working grid, its profile measured.

        Raises
        ------
        ValueError
            Where a tissue is not seen.
        """
        return cls(
            name=name,
            contrast=contrast,
            working=working,
            native=working,
            native_to_working=np.eye(4),
            brain=brain,
            tissues=tissues,
            profile=measure_profile(working.data, brain, tissues),
            site=site,
        )


@dataclass(frozen=True)
class Style:
    """What a target looks like: a contrast as it is at one site.

    Every method reads what it needs: the measured profile serves the transfer and the
    classical methods, theta and eta the networks.

    Parameters
    ----------
    name : str
        Name for files, tables and reports.
    contrast : str
        One of :data:`CONTRASTS`.
    profile : TissueProfile
        Measured style (medians, quantiles), white-matter peak 1.
    theta, eta : tuple of float
        Contrast and artifact representation of a network; empty where none was computed.
    wm_peak : float
        White-matter peak of the target in its own units; harmonized images are written
        with it. 1000 for a style that has no unit of its own.
    scans : int
        Scans that the style is averaged over; 0 where it is not known.
    spectrum : tuple of float
        Lowest frequencies of the brain, see :mod:`harmony_app.methods.classical.ssimh`; empty where
        none was computed.
    noise : float or None
        Standard deviation of the noise in white matter on the working grid, white-matter peak 1;
        None where it is not known.
    """

    name: str
    contrast: str
    profile: TissueProfile
    theta: tuple[float, ...] = ()
    eta: tuple[float, ...] = ()
    wm_peak: float = 1000.0
    scans: int = 0
    spectrum: tuple[float, ...] = ()
    noise: float | None = None

    def to_dict(self) -> dict:
        """Plain types for JSON."""
        return asdict(self) | {'profile': self.profile.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict) -> 'Style':
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        KeyError, TypeError, ValueError
            Where a field is absent, unknown, or holds what no style has.
        """
        fields = dict(fields)
        fields['profile'] = TissueProfile.from_dict(fields['profile'])
        for key in ('theta', 'eta', 'spectrum'):
            fields[key] = tuple(float(v) for v in fields.get(key, ()))
        style = cls(**fields)
        if not (isinstance(style.name, str) and isinstance(style.contrast, str)):
            raise ValueError('name and contrast of a style are words')
        numbers = [*style.theta, *style.eta, *style.spectrum, float(style.scans)]
        numbers += [float(style.wm_peak), float(style.noise or 0)]
        numbers += [v for values in style.profile.to_dict().values() for v in values]
        if not all(map(math.isfinite, numbers)):
            raise ValueError('a number of a style is not finite')
        if style.wm_peak <= 0 or style.scans < 0 or (style.noise or 0) < 0:
            raise ValueError(
                'the white-matter peak of a style lies above 0, scans and noise not below'
            )
        return style


@dataclass(frozen=True)
class Harmonized:
    """What a method gives for one scan (or one contrast that was not acquired).

    Parameters
    ----------
    source : str or None
        ``Scan.name`` of the scan that was harmonized; None for an imputed contrast.
    contrast : str
        Contrast of the result.
    working : Volume
        Result on the working grid, white-matter peak of the target style at 1.
    native : Volume or None
        Result on the grid of ``Scan.native``; None for an imputed contrast.
    decoder : Volume or None
        Plain decoder image on the working grid, where the method has a decoder.
    theta, eta : dict of str to tuple of float
        Representation by ``Scan.name``; key ``target`` for the target's. Empty without a network.
    artifacts : dict of str to (float, str)
        Level of artifacts of each scan, and what it means, by ``Scan.name``: see
        :class:`harmony_app.methods.artifact_scale.ArtifactScale`. Empty without such a scale.
    attention : dict of str to float
        Weight of each source scan in the fused anatomy, by ``Scan.name``; sums to 1.
    settings : dict
        Settings used, for the sidecar.
    """

    source: str | None
    contrast: str
    working: Volume
    native: Volume | None
    decoder: Volume | None = None
    theta: dict[str, tuple[float, ...]] = field(default_factory=dict)
    eta: dict[str, tuple[float, ...]] = field(default_factory=dict)
    artifacts: dict[str, tuple[float, str]] = field(default_factory=dict)
    attention: dict[str, float] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)


class Labelled(Protocol):
    """What is known of a scan before its voxels are; see :class:`Scan`."""

    name: str
    contrast: str
    site: str | None


class Method(ABC):
    """A harmonization method.

    Attributes
    ----------
    name : str
        Name in the registry and on the command line.
    needs_training : bool
        Whether it is loaded from a model folder.
    can_impute : bool
        Whether it can make a contrast that was not acquired.
    uses_site_average : bool
        Whether it reads ``Scan.site_average``.
    takes_target : bool
        Whether a target can be chosen. The styles of a method without are those of its model.
    measures_targets : bool
        Whether any scan can be the target; a method without reaches the styles of its model.
    """

    name: str
    needs_training: bool = False
    can_impute: bool = False
    uses_site_average: bool = False
    takes_target: bool = True
    measures_targets: bool = True

    @abstractmethod
    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Bring every scan of the target's contrast in a session to the target.

        Parameters
        ----------
        session : sequence of Scan
            All scans of one session, any contrasts.
        target : Style
            The style to reach. Where no scan of the session has its contrast and the
            method can impute, one imputed result is given.

        Returns
        -------
        list of Harmonized
            One for each scan of the target's contrast, in the order of the session.
        """

    def check_target(self, target: Style) -> None:
        """Refuse a style that lacks what the method needs, before anything is computed.

        Raises
        ------
        OptionError
            Where the style does not serve; the message says which target does.
        """

    def check_scan(self, scan: Labelled) -> None:
        """Refuse a scan that the method cannot harmonize, by its name, contrast and site.

        Raises
        ------
        ScanError
            The other scans of its session are harmonized all the same.
        """

    def reaches(self, name: str, contrast: str) -> bool:
        """Whether a style of this name and contrast can be a target: any, unless it says otherwise."""
        return True

    def encode_target(self, scans: Sequence[Scan], name: str) -> Style:
        """Average style of scans of one contrast (one image, a session, a site).

        A scan that may be laid wrongly on the template is left out where another is sure:
        what is measured under its maps is not its tissue.

        Parameters
        ----------
        scans : sequence of Scan
            At least one scan, all of one contrast.
        name : str
            Name of the style.
        """
        contrasts = {scan.contrast for scan in scans}
        if len(contrasts) != 1:
            raise ValueError(f'a style has one contrast, not {sorted(contrasts)}')
        sure = [scan for scan in scans if not scan.doubtful]
        for scan in scans:
            if scan.doubtful:
                fate = 'left out' if sure else 'all there is'
                logger.warning(
                    'target %s: the registration of %s is doubtful: it is %s', name, scan.name, fate
                )
        return self._encode_target(sure or scans, name)

    def _encode_target(self, scans: Sequence[Scan], name: str) -> Style:
        """Average style of the scans that count."""
        profile = TissueProfile.average([scan.profile for scan in scans])
        noise = float(np.median([white_matter_noise(s.working, s.tissues) for s in scans]))
        return Style(name, scans[0].contrast, profile, scans=len(scans), noise=noise)

    def fit(self, scans: Sequence[Scan]) -> None:
        """Learn from preprocessed scans; methods without training have nothing to learn."""

    def save(self, folder: Path) -> None:
        """Write the model folder (``model.json``, ``weights.safetensors``)."""
        raise NotImplementedError(f'method {self.name} has no model to save')

    @classmethod
    def load(cls, folder: Path | None, device: str = 'cpu') -> 'Method':
        """Make the method from a model folder (None for methods without training)."""
        return cls()
