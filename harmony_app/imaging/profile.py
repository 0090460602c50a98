"""The measured style of a scan: where its tissues lie once white matter is at 1.

Every scan lies on the template, so the medians and spreads of its tissues under the
registered maps are known, and they are measured by this one code in the phantom and in
real heads.

A median under a registered map holds the anatomy too: where the cortex is thin or the map lies
a little beside it, more of its voxels are partly CSF. The level of a tissue leaves these out:
that of grey matter is the mode of its surest voxels, those of white matter and CSF are read where
the scan is most homogeneous, and of CSF only what is not brain is counted. On T1w phantoms the
standard deviation between people of one site falls from 0.055 to 0.011 for grey matter and from
0.053 to 0.003 for CSF by this.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harmony_app.imaging.grid import halved

PERCENTILES = np.linspace(0.5, 99.5, 100)
"""Percentiles of the brain and head intensities that a profile keeps."""

TISSUES = ('GM', 'WM', 'CSF')
"""Order of the registered tissue maps."""

CERTAIN = 0.8
"""Probability above which a voxel counts for a tissue, unless few voxels reach it."""

MINIMUM_VOXELS = 50
"""Fewest voxels (of 2 mm) that a median is taken of."""

HOMOGENEOUS = 25
"""Percent of a tissue's voxels, those of the smallest gradient, that its level is read from."""

SUREST = 12
"""Percent of grey matter's voxels, the surest of the map, that its level is the mode of."""

MODE_BANDWIDTH = 0.08
"""Kernel, in units of the median, of the mode of grey matter; half of it finds thin cortex's CSF."""

ALIKE = 0.3
"""Relative distance of CSF from grey matter below which a mode does not tell them apart."""

DRY = 0.1
"""Share of fluid below which a voxel may count as grey matter where the session tells fluid."""

MOST_PERSONAL = 0.15
"""Relative distance of a person's tissue from the average of its site that may be the person's own."""

GRADIENT_BLUR = 0.7
"""Standard deviation in voxels of 2 mm of the blur before the gradient is taken."""


@dataclass(frozen=True)
class TissueProfile:
    """Medians, spreads and quantiles of a scan, in units of its white-matter peak.

    Parameters
    ----------
    medians : tuple of 3 float
        Median intensity of GM, WM and CSF under the registered maps.
    spreads : tuple of 3 float
        Interquartile range of the same voxels over 1.349 (a standard deviation, for a normal tissue).
    brain : tuple of 100 float
        Intensities at :data:`PERCENTILES` of the brain.
    head : tuple of 100 float
        The same outside the brain, of the voxels that show something; empty for a
        skull-stripped scan.
    levels : tuple of 3 float
        Mode of the surest GM, and medians of WM and CSF in their most homogeneous voxels (of CSF without
        what is brain beside the map); the medians where they are not given.

    Examples
    --------
    >>> profile = TissueProfile((0.7, 1.0, 0.2), (0.1, 0.1, 0.1), (0.5,) * 100, ())
    >>> profile.distance(profile)
    0.0
    """

    medians: tuple[float, float, float]
    spreads: tuple[float, float, float]
    brain: tuple[float, ...]
    head: tuple[float, ...]
    levels: tuple[float, ...] = ()

    def __post_init__(self):
        if not self.levels:
            object.__setattr__(self, 'levels', self.medians)

    def distance(self, other: 'TissueProfile', measure: str = 'medians') -> float:
        """Euclidean distance of the GM, WM and CSF ``medians`` or ``levels`` of two scans."""
        return float(np.linalg.norm(np.subtract(getattr(self, measure), getattr(other, measure))))

    def to_dict(self) -> dict:
        """Plain types for JSON."""
        names = ('medians', 'spreads', 'brain', 'head', 'levels')
        return {name: list(getattr(self, name)) for name in names}

    @classmethod
    def from_dict(cls, fields: dict) -> 'TissueProfile':
        """Inverse of :meth:`to_dict`; TypeError or ValueError where a field is absent or odd."""
        rows = dict(fields)
        profile = cls(**{name: tuple(float(v) for v in values) for name, values in rows.items()})
        if len(profile.medians) != 3 or len(profile.spreads) != 3 or len(profile.brain) != 100:
            raise ValueError('a tissue profile has 3 medians, 3 spreads and 100 brain quantiles')
        if len(profile.levels) != 3:
            raise ValueError('a tissue profile has 3 levels, or none')
        if len(profile.head) not in (0, 100):
            raise ValueError('the head of a tissue profile has 100 quantiles or none')
        return profile

    @classmethod
    def average(cls, profiles: Sequence['TissueProfile']) -> 'TissueProfile':
        """Average of profiles; the head over those that show one.

        Of tissues the median where there are three or more: one scan that lies badly on the
        template does not spoil the style of a site. Of quantiles the mean, which is the
        standard scale of Nyul 2000: people differ in their shares of tissue, and the median
        would be that of one of them.
        """
        heads = [p.head for p in profiles if p.head]

        def average(rows):
            middle = np.median if len(rows) > 2 else np.mean
            return tuple(middle(rows, axis=0).tolist())

        def mean(rows):
            return tuple(np.mean(rows, axis=0).tolist())

        return cls(
            medians=average([p.medians for p in profiles]),
            spreads=average([p.spreads for p in profiles]),
            brain=mean([p.brain for p in profiles]),
            head=mean(heads) if heads else (),
            levels=average([p.levels for p in profiles]),
        )


def blend_profiles(target: TissueProfile, other: TissueProfile, weight: float) -> TissueProfile:
    """Profile between two, quantile by quantile.

    Parameters
    ----------
    target, other : TissueProfile
    weight : float
        Of ``other``, 0 to 1. The head is the target's where one of them shows none.
    """

    def blended(a, b):
        return tuple(((1 - weight) * np.array(a) + weight * np.array(b)).tolist())

    return TissueProfile(
        medians=blended(target.medians, other.medians),
        spreads=blended(target.spreads, other.spreads),
        brain=blended(target.brain, other.brain),
        head=blended(target.head, other.head) if target.head and other.head else target.head,
        levels=blended(target.levels, other.levels),
    )


def personal_profile(
    own: TissueProfile, here: TissueProfile, there: TissueProfile
) -> TissueProfile:
    """Style that a person is expected to have at another site.

    People of one site differ, and what they differ in goes with them: the tissues of a person lie
    as far from the average there, in per cent, as they do here.

    Parameters
    ----------
    own : TissueProfile
        Of the person's scan.
    here, there : TissueProfile
        Averages of several people at the site of the scan, and at the other one.

    Returns
    -------
    TissueProfile
        ``there`` with medians and levels of its own. A tissue counts as different by
        :data:`MOST_PERSONAL` at most: what lies farther is no difference of people.

    Examples
    --------
    >>> def profile(*levels):
    ...     return TissueProfile(levels, (0.1,) * 3, (0.5,) * 100, ())
    >>> goal = personal_profile(
    ...     profile(0.77, 1.0, 0.2), profile(0.7, 1.0, 0.1), profile(0.6, 1.0, 0.2)
    ... )
    >>> [round(level, 3) for level in goal.levels]
    [0.66, 1.0, 0.23]
    """

    def moved(measure):
        # black fluid has no ratio
        ratio = np.divide(getattr(own, measure), np.maximum(getattr(here, measure), 1e-6))
        bounded = np.clip(ratio, 1 - MOST_PERSONAL, 1 + MOST_PERSONAL)
        return tuple((bounded * getattr(there, measure)).tolist())

    return replace(there, medians=moved('medians'), levels=moved('levels'))


def measure_profile(
    data: np.ndarray, brain: np.ndarray, tissues: np.ndarray, fluid: np.ndarray | None = None
) -> TissueProfile:
    """Measure the style of a scan on the working grid.

    The scan is averaged to 2 mm first: so noise and resolution weigh less, and the
    measurement is cheap enough to be taken in training too.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z), float32
        Scan with its white-matter peak at 1, zero outside its field of view; even axes.
    brain : ndarray, shape (X, Y, Z), bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8 or float
        Registered GM, WM and CSF maps; uint8 maps are certain at 255, float maps at 1.
    fluid : ndarray, shape (X / 2, Y / 2, Z / 2), uint8, optional
        Share of fluid as the contrasts of the session tell it together, 255 is all. Grey matter is
        measured beside it where its own contrast does not tell them apart (PDw).

    Raises
    ------
    ValueError
        Where a tissue is not seen at all.
    """
    certain = 255.0 if np.issubdtype(tissues.dtype, np.integer) else 1.0
    return measure_profile_coarse(
        halved(data),
        halved(brain) > 0.99,
        np.stack([halved(tissue) / certain for tissue in tissues]),
        None if fluid is None else fluid / np.float32(255),
    )


def measure_profile_coarse(
    data: np.ndarray, brain: np.ndarray, tissues: np.ndarray, fluid: np.ndarray | None = None
) -> TissueProfile:
    """Measure the style of a scan that is on the 2 mm grid already.

    Parameters
    ----------
    data, brain : ndarray, shape (X, Y, Z)
        Scan and brain mask (bool).
    tissues : ndarray, shape (3, X, Y, Z), float32
        Registered GM, WM and CSF maps, 0 to 1.
    fluid : ndarray, shape (X, Y, Z), float32, optional
        Share of fluid, 0 to 1; see :func:`measure_profile`.
    """
    # here: styles are read where nothing is measured
    from scipy import ndimage

    from harmony_app.imaging.intensity import histogram_mode
    from harmony_app.imaging.mixture import level_among

    seen = data > 0.01
    smooth = ndimage.gaussian_filter(np.asarray(data, np.float32), GRADIENT_BLUR, truncate=3)
    medians, spreads, flat = [], [], []
    for name, tissue in zip(TISSUES, tissues, strict=True):
        # A thin tissue under smooth maps may never be certain: take its surest voxels then.
        inside = tissue[brain & seen]
        if inside.size < MINIMUM_VOXELS or not inside.any():
            raise ValueError(f'no {name} is seen in this scan')
        threshold = min(CERTAIN, np.partition(inside, -MINIMUM_VOXELS)[-MINIMUM_VOXELS])
        where = (tissue >= max(threshold, 1e-3)) & brain & seen
        values = data[where]
        low, median, high = np.percentile(values, (25, 50, 75))
        medians.append(float(median))
        spreads.append(float((high - low) / 1.349))
        steep = _gradient(smooth, np.nonzero(where))
        flat.append(values[steep <= np.percentile(steep, HOMOGENEOUS)])
        if name == 'GM':
            certainty = tissue[where]
            surest = certainty >= np.percentile(certainty, 100 - SUREST)
            grey = histogram_mode(values[surest], MODE_BANDWIDTH)
            dry = None if fluid is None else values[surest & (fluid[where] < DRY)]
    _, white, still = flat
    levels = grey, float(np.median(white)), level_among(still, np.concatenate(flat[:2]))
    if dry is not None and len(dry) >= MINIMUM_VOXELS and abs(levels[2] / grey - 1) < ALIKE:
        levels = histogram_mode(dry, MODE_BANDWIDTH), *levels[1:]
    outside = data[~brain & (data > 0.05)]
    head = outside.size > 0.1 * brain.sum()
    return TissueProfile(
        medians=tuple(medians),
        spreads=tuple(spreads),
        brain=tuple(np.percentile(data[brain & seen], PERCENTILES).tolist()),
        head=tuple(np.percentile(outside, PERCENTILES).tolist()) if head else (),
        levels=levels,
    )


def _gradient(data: np.ndarray, index: tuple[np.ndarray, ...]) -> np.ndarray:
    """Squared magnitude of the gradient at some voxels, by central differences."""
    total = np.zeros(len(index[0]), np.float32)
    for axis, size in enumerate(data.shape):
        before, after = list(index), list(index)
        before[axis] = np.maximum(index[axis] - 1, 0)
        after[axis] = np.minimum(index[axis] + 1, size - 1)
        total += (data[tuple(after)] - data[tuple(before)]) ** 2
    return total
