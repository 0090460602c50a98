"""Whether a harmonized image shows the structure of its scan: without a reference.

Harmonization may change intensities, not anatomy. A border of anatomy is an edge in both
images, whatever the contrast across it; an edge in one of them only has appeared or vanished.
A monotone map of the intensities (gamma of 0.5 to 2, a sigmoid window) leaves less than 0.4 % of
the strong edges of two real scans without a counterpart.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from harmony_app.evaluation.regions import bounding_box
from harmony_app.imaging.edges import correlate_edges

SIGMA = 1.0
"""Scale of the edges, voxels."""

WINDOW = 4.0
"""Standard deviation of the window of the local contrast, voxels."""

FLOOR = 0.1
"""Least local contrast, in units of the 5th to 95th percentile of the image: noise is no edge."""

STRONG = 1.5
"""Strength of an edge that needs a counterpart; an ideal step amid its window has 2."""

WEAK = 0.25
"""Strength that a counterpart has at least: a map of intensities may weaken an edge so far."""

PARALLEL = 0.7
"""Least cosine of the angle between an edge and its counterpart, about 45 degrees.

In a folded cortex some edge is always near; one that runs the same way is not. Of 30 blobs of
3.5 voxels drawn into a FLAIR scan, brighter by 0.3 of its 99th percentile, 73 % are found with it
and 3 % without (10 voxels of their surface or more); in a T1w scan of 2 mm 43 % and 23 %.
"""


@dataclass(frozen=True)
class Fidelity:
    """How a harmonized image keeps the structure of its scan.

    Parameters
    ----------
    edge_agreement : float
        Correlation of the gradient magnitudes, -1 to 1.
    appeared : float
        Share of the strong edges of the result without a counterpart in the scan, 0 to 1.
    vanished : float
        Share of the strong edges of the scan without a counterpart in the result, 0 to 1.
    """

    edge_agreement: float
    appeared: float
    vanished: float


def fidelity(scan: np.ndarray, result: np.ndarray, mask: np.ndarray) -> Fidelity:
    """Agreement of the edges of a scan and of its harmonized image.

    Parameters
    ----------
    scan, result : ndarray, shape (X, Y, Z)
        The scan and its harmonized image, on one grid, each in a unit of its own.
    mask : ndarray, shape (X, Y, Z), bool
        Where edges are compared. Edges and contrasts near its border see what lies beside it:
        where one image is zero outside the brain and the other is not, leave out 8 voxels.

    Returns
    -------
    Fidelity

    Raises
    ------
    ValueError
        For unequal shapes, images that are not three-dimensional or not finite, an empty mask,
        or an image without a strong edge.

    See Also
    --------
    unmatched_edges : where the edges are that have no counterpart.
    Structure : the same for many results of one scan.
    """
    return Structure(scan, mask).kept_in(result)


class Structure:
    """The edges of a scan, found once for all images that are compared with it.

    Parameters
    ----------
    scan : ndarray, shape (X, Y, Z)
        Scan, in any unit.
    mask : ndarray, shape (X, Y, Z), bool
        Where edges are compared, see :func:`fidelity`.

    Raises
    ------
    ValueError
        As :func:`fidelity`.
    """

    def __init__(self, scan: np.ndarray, mask: np.ndarray):
        self.scan, _, self.mask = _checked(scan, scan, mask)
        self._box = _box(self.mask)
        self._edges = _edges(self.scan, self._box, self.mask)

    def kept_in(self, result: np.ndarray) -> Fidelity:
        """Agreement of the edges of the scan with those of a result, as :func:`fidelity`."""
        _, result, mask = _checked(self.scan, result, self.mask)
        before, after = self._edges, _edges(result, self._box, mask)
        shares = []
        for edges, other, name in ((after, before, 'result'), (before, after, 'scan')):
            strong, unmatched = _compare(edges, other, mask[self._box])
            if not strong:
                raise ValueError(
                    f'the {name} shows no strong edge in the mask: is it constant there?'
                )
            shares.append(len(unmatched) / strong)
        inside = mask[self._box]
        agreement = correlate_edges(before.magnitude[inside], after.magnitude[inside])
        return Fidelity(agreement, *shares)


def unmatched_edges(image: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Strong edges of one image without a counterpart within one voxel in another.

    The strength of an edge is the gradient magnitude at a scale of :data:`SIGMA`, made the
    height of the step that it would be, over the local standard deviation of the intensities,
    which has a :data:`FLOOR`. Only voxels count where the gradient is largest across the edge.
    An edge of :data:`STRONG` strength needs an edge of :data:`WEAK` strength in the other
    image, in the same voxel or one of the 26 around it, whose gradient is :data:`PARALLEL`
    to its own or opposite.

    Parameters
    ----------
    image, other : ndarray, shape (X, Y, Z)
        Images on one grid, each in a unit of its own.
    mask : ndarray, shape (X, Y, Z), bool
        Where edges are compared.

    Returns
    -------
    ndarray, shape (X, Y, Z), bool
        True at the edges of ``image`` that ``other`` does not show. With the result as
        ``image`` these have appeared, with the scan they have vanished.

    Raises
    ------
    ValueError
        For unequal shapes, images that are not three-dimensional or not finite, or an empty
        mask.
    """
    image, other, mask = _checked(image, other, mask)
    box = _box(mask)
    edges, others = (_edges(one, box, mask) for one in (image, other))
    _, index = _compare(edges, others, mask[box])
    unmatched = np.zeros(mask.shape, dtype=bool)
    unmatched[box][tuple(index.T)] = True
    return unmatched


@dataclass(frozen=True)
class _Edges:
    """Gradient magnitude, strength of the edges (0 where there is none), and unit gradients."""

    magnitude: np.ndarray
    strength: np.ndarray
    direction: np.ndarray


def _edges(image: np.ndarray, box: tuple[slice, ...], mask: np.ndarray) -> _Edges:
    """Edges of an image within a box."""
    image = image[box].astype(np.float32)
    low, high = np.percentile(image[mask[box]], (5, 95))
    # about its middle, so that the difference of squares below keeps its digits
    image -= np.float32((low + high) / 2)
    smooth = ndimage.gaussian_filter(image, SIGMA)
    mean = ndimage.gaussian_filter(smooth, WINDOW, truncate=3)
    square = ndimage.gaussian_filter(smooth**2, WINDOW, truncate=3)
    contrast = np.sqrt(np.maximum(square - mean**2, 0) + (FLOOR * (high - low)) ** 2)
    orders = np.eye(3, dtype=int)
    gradient = np.stack([ndimage.gaussian_filter(image, SIGMA, order=order) for order in orders])
    magnitude = np.sqrt((gradient**2).sum(axis=0))
    np.divide(gradient, magnitude, out=gradient, where=magnitude > 0)
    strength = np.zeros_like(magnitude)
    # a step of height h has a gradient of h / (sqrt(2 pi) sigma) at this scale
    np.divide(np.sqrt(2 * np.pi) * SIGMA * magnitude, contrast, out=strength, where=contrast > 0)
    ridge = _ridge(magnitude, gradient, strength >= WEAK)
    return _Edges(magnitude, np.where(ridge, strength, 0), gradient)


def _compare(edges: _Edges, other: _Edges, inside: np.ndarray) -> tuple[int, np.ndarray]:
    """Number of strong edges inside a mask, and the index of those without a counterpart."""
    index = np.argwhere((edges.strength >= STRONG) & inside)
    direction = edges.direction[:, *index.T]
    matched = np.zeros(len(index), dtype=bool)
    last = np.array(inside.shape) - 1
    for step in product((-1, 0, 1), repeat=3):
        beside = tuple(np.clip(index + step, 0, last).T)
        cosine = np.abs((other.direction[:, *beside] * direction).sum(axis=0))
        matched |= (other.strength[beside] >= WEAK) & (cosine >= PARALLEL)
    return len(index), index[~matched]


def _ridge(magnitude: np.ndarray, direction: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Candidates whose gradient is no smaller than one voxel before and after, along it."""
    index = np.array(np.nonzero(candidates))
    here = magnitude[candidates]
    direction = direction[:, candidates]
    largest = np.ones(here.size, dtype=bool)
    for step in (direction, -direction):
        beside = ndimage.map_coordinates(magnitude, index + step, order=1, mode='nearest')
        largest &= here >= beside
    ridge = np.zeros_like(candidates)
    ridge[tuple(index[:, largest])] = True
    return ridge


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Box of the mask with all that its edges and local contrasts depend on."""
    return bounding_box(mask, int(np.ceil(3 * WINDOW + 4 * SIGMA)) + 2)


def _checked(
    image: np.ndarray, other: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, other = np.asarray(image), np.asarray(other)
    mask = np.asarray(mask, dtype=bool)
    if not image.shape == other.shape == mask.shape or mask.ndim != 3:
        raise ValueError(
            f'images and mask are of one shape (X, Y, Z), not {image.shape}, {other.shape}, '
            f'mask {mask.shape}'
        )
    if not mask.any():
        raise ValueError('the mask is empty: give one that holds voxels of the images')
    if not (np.isfinite(image).all() and np.isfinite(other).all()):
        raise ValueError('an image holds intensities that are not finite: replace them first')
    return image, other, mask
