"""How much of every voxel is cerebrospinal fluid, read from all contrasts of a session.

At one site the CSF of a PDw scan is brighter than grey matter, at another darker. No map of
one intensity can bring such scans together where the two overlap; another contrast of the
session tells them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmony_app.imaging.grid import coarse_grid, halved
from harmony_app.imaging.profile import TISSUES, measure_profile_coarse
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume

CERTAIN = 204
"""Value of a registered GM or WM map (of 255) from which on a voxel shows what brain looks like."""

BRAIN = 0.35
"""Fluid above this share is no brain: the registered maps are not this person's."""

ROUNDS = 4
"""Times brain is described and fluid is told from it."""

FEWEST = 500
"""Fewest voxels that brain is described from."""

LEAST_SEPARATION = 6.0
"""Standard deviations of brain between brain and fluid below which fluid is not told."""

FLOOR = 0.05
"""Share of fluid below which none is seen: noise, and lesions that shine like a little of it."""


@dataclass(frozen=True)
class FluidReader:
    """Fisher's linear discriminant of brain and fluid, 0 at brain and 1 at fluid.

    Parameters
    ----------
    weights : ndarray, shape (C,)
        Of the contrasts.
    brain : ndarray, shape (C,)
        Mean of brain.
    separation : float
        Mahalanobis distance of fluid from brain.
    """

    weights: np.ndarray
    brain: np.ndarray
    separation: float

    def read(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Share of fluid in every voxel.

        Parameters
        ----------
        images : sequence of ndarray, shape (X, Y, Z)
            The contrasts in the order of the fit, on any grid, white-matter peak 1.

        Returns
        -------
        ndarray, shape (X, Y, Z), float32
            0 to 1; means something inside the brain only.
        """
        share = np.full(images[0].shape, -float(self.weights @ self.brain), np.float32)
        for weight, image in zip(self.weights, images, strict=True):
            share += np.float32(weight) * image
        return np.clip((share - FLOOR) / (1 - FLOOR), 0, 1)


def fit_fluid_reader(
    images: Sequence[np.ndarray],
    fluid: Sequence[float],
    brain: np.ndarray,
    tissues: np.ndarray,
) -> FluidReader:
    """Tell fluid from brain by all contrasts of a session.

    Brain is described by the mean and covariance of what lies under the registered maps of grey and
    white matter, so a direction in which brain itself varies (grey to white matter, lesions,
    noise, a thick slice) weighs little.

    Parameters
    ----------
    images : sequence of ndarray, shape (X, Y, Z)
        Contrasts of one session on the working grid, white-matter peak 1.
    fluid : sequence of float
        Level of CSF in each of them.
    brain : ndarray, shape (X, Y, Z), bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8
        Registered GM, WM and CSF maps, 255 is certainty.

    Raises
    ------
    ValueError
        Where brain cannot be described, or fluid does not differ from it enough.
    """
    sure = brain & ((tissues[0] >= CERTAIN) | (tissues[1] >= CERTAIN))
    for image in images:
        sure &= image > 0
    values = np.stack([image[sure] for image in images], axis=1).astype(np.float64)
    goal = np.asarray(fluid, np.float64)
    kept = np.ones(len(values), bool)
    for _ in range(ROUNDS):
        if np.count_nonzero(kept) < FEWEST:
            raise ValueError('too little brain is seen in all contrasts of the session')
        middle = values[kept].mean(axis=0)
        spread = np.atleast_2d(np.cov(values[kept], rowvar=False)) + 1e-4 * np.eye(len(goal))
        weights = np.linalg.solve(spread, goal - middle)
        square = float((goal - middle) @ weights)
        kept = (values - middle) @ weights < BRAIN * square
    if square < LEAST_SEPARATION**2:
        raise ValueError('the contrasts of the session do not tell fluid from brain')
    return FluidReader(weights / square, middle, square**0.5)


def session_fluid(
    scans: Sequence[Volume],
    transforms: Sequence[np.ndarray],
    brain: np.ndarray,
    tissues: np.ndarray,
) -> np.ndarray | None:
    """Share of fluid in every voxel of 2 mm, by all contrasts of a session.

    Parameters
    ----------
    scans : sequence of Volume
        One scan of each contrast, on any grid and in any unit.
    transforms : sequence of ndarray, shape (4, 4)
        Millimetres of each scan to those of the working grid.
    brain : ndarray, shape of the working grid, bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8
        Registered GM, WM and CSF maps, 255 is certainty.

    Returns
    -------
    ndarray, shape (X / 2, Y / 2, Z / 2), uint8, or None
        255 is all fluid; 0 outside the brain. None where there is one contrast only, or fluid is
        not told.
    """
    if len(scans) < 2:
        return None
    shape, affine = coarse_grid(2)
    inside = halved(brain) > 0.99
    maps = np.stack([halved(tissue) for tissue in tissues])
    white = inside & (maps[TISSUES.index('WM')] >= CERTAIN)
    if np.count_nonzero(white) < FEWEST:
        return None
    images, levels = [], []
    try:
        for scan, transform in zip(scans, transforms, strict=True):
            image = resample(scan, shape, affine, transform, order=1).data
            image = image / max(float(np.median(image[white])), 1e-30)
            profile = measure_profile_coarse(image, inside, maps / np.float32(255))
            images.append(image)
            levels.append(profile.levels[TISSUES.index('CSF')])
        reader = fit_fluid_reader(images, levels, inside, maps)
    except ValueError:
        return None
    share = np.where(inside, reader.read(images), 0)
    return (255 * share).round().astype(np.uint8)
