"""What thick slices see of what lies between them, and how splines fill the gaps, as matrices.

A slice of thickness T is divided into ``factor`` thin ones, T / factor apart, that fill it. All
functions work along the last axis: a scan of N slices, and N * factor thin ones in the same place.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from harmony_app.imaging.resample import FWHM

SPACING = 1.0
"""Distance of thin slices that is aimed at, mm: that of the working grid."""

THICKEST_KEPT = 2.5
"""Slices up to this are left as they are unless asked for, mm."""

FINEST_RATIO = 1.5
"""Slices less than this many times as thick as the voxels of their plane have nothing to learn."""

MOST_FACTOR = 8
"""Most thin slices in a thick one."""

EDGE = 0.5
"""Width of each slope of a slice profile, in slices: signal comes from 1.5 slices in all."""

FINE = 10
"""Points that a profile is averaged over within a thin slice."""


def thin_factor(zooms: Sequence[float], choice: str = 'auto') -> int | None:
    """Thin slices that each thick one is divided into.

    Parameters
    ----------
    zooms : sequence of 3 float
        Voxel edges in mm; the longest is the thickness of the slices.
    choice : str
        ``auto`` is for slices above 2.5 mm, ``on`` for all that are half
        as thick again as the voxels of their plane, or more, ``off`` for none.

    Returns
    -------
    int or None
        2 to 8; None where the slices stay as they are.

    Examples
    --------
    >>> thin_factor((0.9, 0.9, 5.0)), thin_factor((4.0, 1, 1)), thin_factor((3, 3, 3))
    (5, 4, None)
    >>> thin_factor((1, 1, 2.0)), thin_factor((1, 1, 2.0), 'on'), thin_factor((1, 1, 5.0), 'off')
    (None, 2, None)
    """
    low, middle, high = sorted(zooms)
    least = {'auto': THICKEST_KEPT, 'on': 0.0, 'off': np.inf}[choice]
    factor = min(round(high / max(SPACING, low)), MOST_FACTOR)
    if high <= least or high < FINEST_RATIO * middle or factor < 2:
        return None
    return factor


def slice_profile(factor: int, width: float = 1.0) -> np.ndarray:
    """Weights of the thin slices within a thick one and its two neighbours.

    A flat top with raised cosine edges: between the box that is prescribed and the Gaussian that
    is often assumed, as the slices of two-dimensional sequences are.

    Parameters
    ----------
    factor : int
        Thin slices in a thick one.
    width : float
        Full width at half maximum in thick slices; below 1 there is a gap between slices.

    Returns
    -------
    ndarray, shape (3 * factor,), float32
        They add up to 1.

    Examples
    --------
    >>> [round(float(w), 2) for w in slice_profile(2)]
    [0.0, 0.05, 0.45, 0.45, 0.05, 0.0]
    """
    at = ((np.arange(3 * factor * FINE) + 0.5) / (factor * FINE) - 1.5) / width
    weights = 0.5 * (1 + np.cos(np.pi * np.clip((np.abs(at) - (1 - EDGE) / 2) / EDGE, 0, 1)))
    weights = weights.reshape(-1, FINE).sum(axis=1)
    return (weights / weights.sum()).astype(np.float32)


def thickening_matrix(slices: int, factor: int) -> np.ndarray:
    """Thin slices to thick ones: each the mean under its profile.

    Parameters
    ----------
    slices : int
        Thick slices.
    factor : int
        Thin slices in a thick one.

    Returns
    -------
    ndarray, shape (slices, slices * factor), float32
        Rows add up to 1; beyond the ends the scan is thought mirrored.
    """
    profile, count = slice_profile(factor), slices * factor
    matrix = np.zeros((slices, count), np.float32)
    for row in range(slices):
        at = np.arange((row - 1) * factor, (row + 2) * factor)
        at = np.where(at < 0, -1 - at, np.where(at >= count, 2 * count - 1 - at, at))
        np.add.at(matrix[row], at, profile)
    return matrix


def spline_matrix(slices: int, factor: int) -> np.ndarray:
    """Thick slices to thin ones by cubic B-splines, as :func:`harmony_app.imaging.resample.resample`.

    Parameters
    ----------
    slices : int
        Thick slices.
    factor : int
        Thin slices in a thick one.

    Returns
    -------
    ndarray, shape (slices * factor, slices), float32
    """
    return _interpolation(slices, (np.arange(slices * factor) + 0.5) / factor - 0.5)


def respacing_matrix(length: int, ratio: float, count: int) -> np.ndarray:
    """Values along an axis to others ``ratio`` times as far apart, around the same centre.

    Where they lie further apart they are smoothed first, so that each stands for its own extent.

    Parameters
    ----------
    length : int
        Values there are.
    ratio : float
        New distance over the old one.
    count : int
        Values to make.

    Returns
    -------
    ndarray, shape (count, length), float32
    """
    at = (np.arange(count) - (count - 1) / 2) * ratio + (length - 1) / 2
    matrix = _interpolation(length, at)
    if ratio < 1.1:
        return matrix
    sigma = np.sqrt(ratio**2 - 1) / FWHM
    blur = ndimage.gaussian_filter1d(np.eye(length), sigma, axis=0, mode='nearest', truncate=3.0)
    return (matrix @ blur).astype(np.float32)


def _interpolation(length: int, at: np.ndarray) -> np.ndarray:
    """Matrix of cubic B-spline interpolation at places in voxels, shape (len(at), length)."""
    columns = [
        ndimage.map_coordinates(unit, [at], order=3, mode='mirror') for unit in np.eye(length)
    ]
    return np.stack(columns, axis=1).astype(np.float32)
