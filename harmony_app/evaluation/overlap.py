"""How two segmentations of the same anatomy agree: overlap and volume of every tissue."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LABELS = {'GM': 1, 'WM': 2, 'CSF': 3}
"""Labels of the tissues in a BIDS ``dseg`` image without a table of its own."""


@dataclass(frozen=True)
class Overlap:
    """Agreement of one tissue in a segmentation and its reference.

    Parameters
    ----------
    dice, jaccard : float
        Overlap, 0 to 1.
    volume_difference : float
        Signed difference of the volumes, percent of the reference; at least -100.
    """

    dice: float
    jaccard: float
    volume_difference: float

    @property
    def absolute_volume_difference(self) -> float:
        """The difference of the volumes without its sign, percent."""
        return abs(self.volume_difference)


def dice(mask: np.ndarray, reference: np.ndarray) -> float:
    """Dice coefficient of two masks: twice the shared voxels over the voxels of both.

    Parameters
    ----------
    mask, reference : ndarray, bool
        Masks of one shape.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        For unequal shapes, or where both masks are empty: their overlap is not defined.

    References
    ----------
    CALAMITI, section 3.4; MISPEL, section 2.5 (DSC); HACA3, section 3.2; DLEST, task 3.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([False, True, True]))
    0.5
    """
    shared, first, second = _counts(mask, reference)
    return 2 * shared / (first + second)


def jaccard(mask: np.ndarray, reference: np.ndarray) -> float:
    """Jaccard index of two masks: the shared voxels over those in either.

    Parameters
    ----------
    mask, reference : ndarray, bool
        Masks of one shape.

    Returns
    -------
    float
        0 to 1; with a Dice coefficient D it is D / (2 - D).

    Raises
    ------
    ValueError
        For unequal shapes, or where both masks are empty.

    References
    ----------
    DLEST, task 3 (figure 4).

    Examples
    --------
    >>> round(jaccard(np.array([True, True, False]), np.array([False, True, True])), 6)
    0.333333
    """
    shared, first, second = _counts(mask, reference)
    return shared / (first + second - shared)


def volume_difference(mask: np.ndarray, reference: np.ndarray) -> float:
    """Volume of a mask less that of the reference, in percent of the reference.

    Parameters
    ----------
    mask, reference : ndarray, bool
        Masks on one grid, so that the volume of a voxel cancels.

    Returns
    -------
    float
        -100 or more; 0 for equal volumes, wherever they lie.

    Raises
    ------
    ValueError
        For unequal shapes, or an empty reference.

    References
    ----------
    CALAMITI, section 3.4 (percentage volume difference).

    Examples
    --------
    >>> volume_difference(np.array([True, True, True]), np.array([True, True, False]))
    50.0
    """
    _, first, second = _counts(mask, reference)
    if not second:
        raise ValueError('the reference is empty: a difference in percent of it is not defined')
    return 100 * (first - second) / second


def tissue_overlap(
    labels: np.ndarray, reference: np.ndarray, tissues: Mapping[str, int] | None = None
) -> dict[str, Overlap]:
    """Overlap and difference of volume of every tissue of two segmentations.

    Parameters
    ----------
    labels, reference : ndarray, shape (X, Y, Z)
        Segmentations on one grid, one whole number for every tissue.
    tissues : mapping of str to int, optional
        Label of every tissue, :data:`LABELS` where it is not given.

    Returns
    -------
    dict of str to Overlap
        By tissue, in the order of ``tissues``.

    Raises
    ------
    ValueError
        For unequal shapes, labels that are not whole numbers, or a tissue that the reference
        does not hold.

    Examples
    --------
    >>> result = tissue_overlap(np.array([1, 2, 2, 3]), np.array([1, 1, 2, 3]))
    >>> result['WM']
    Overlap(dice=0.6666666666666666, jaccard=0.5, volume_difference=100.0)
    """
    labels, reference = _checked_labels(labels), _checked_labels(reference)
    results = {}
    for name, label in (LABELS if tissues is None else tissues).items():
        mask, truth = labels == label, reference == label
        if not truth.any():
            raise ValueError(f'the reference holds no {name} (label {label}): name its labels')
        results[name] = Overlap(
            dice(mask, truth), jaccard(mask, truth), volume_difference(mask, truth)
        )
    return results


def _counts(mask: np.ndarray, reference: np.ndarray) -> tuple[int, int, int]:
    mask, reference = np.asarray(mask, dtype=bool), np.asarray(reference, dtype=bool)
    if mask.shape != reference.shape:
        raise ValueError(f'unequal shapes: {mask.shape} and {reference.shape}')
    counts = [int(np.count_nonzero(m)) for m in (mask & reference, mask, reference)]
    if not any(counts):
        raise ValueError('both masks are empty: their overlap is not defined')
    return tuple(counts)


def _checked_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    # labels between two whole numbers come of an interpolation, and are no tissue
    if labels.dtype.kind not in 'iub' and not np.array_equal(labels, np.round(labels)):
        raise ValueError('labels are whole numbers: resample them by nearest neighbour')
    return labels
