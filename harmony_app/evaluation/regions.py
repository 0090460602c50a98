"""The voxels of a region, checked: what every measure of a tissue or a lesion starts with."""

import numpy as np


def intensities(image: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """Intensities of an image inside a mask.

    Parameters
    ----------
    image : ndarray
        Image of any shape, in any unit.
    mask : ndarray, bool
        Region, of the shape of the image.
    name : str
        What the region is, for messages.

    Returns
    -------
    ndarray, shape (voxels,), float64
        One value for every voxel of the mask, one at least.

    Raises
    ------
    ValueError
        For unequal shapes, an empty mask, or an intensity that is not finite.

    Examples
    --------
    >>> intensities(np.array([1, 2, 3]), np.array([True, False, True]), 'WM')
    array([1., 3.])
    """
    image, mask = np.asarray(image), np.asarray(mask, dtype=bool)
    if image.shape != mask.shape:
        raise ValueError(f'unequal shapes: image {image.shape}, {name} mask {mask.shape}')
    values = image[mask].astype(np.float64)
    if not values.size:
        raise ValueError(f'the {name} mask is empty: give one that holds voxels of the image')
    if not np.isfinite(values).all():
        raise ValueError(
            f'{name} holds intensities that are not finite: leave them out of its mask'
        )
    return values


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """Box around a mask that is not empty, with a margin where the image has one.

    Examples
    --------
    >>> bounding_box(np.array([False, False, True, True, False]), margin=1)
    (slice(1, 5, None),)
    """
    box = []
    for axis, length in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        seen = np.flatnonzero(mask.any(axis=others))
        start, stop = int(seen[0]) - margin, int(seen[-1]) + margin + 1
        box.append(slice(max(start, 0), min(stop, length)))
    return tuple(box)


def check_disjoint(first: np.ndarray, second: np.ndarray, names: tuple[str, str]) -> None:
    """Raise ValueError where two masks share a voxel, or have unequal shapes.

    Examples
    --------
    >>> check_disjoint(np.array([True, False]), np.array([False, True]), ('GM', 'WM'))
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f'unequal shapes: {names[0]} {first.shape}, {names[1]} {second.shape}')
    shared = np.count_nonzero(first & second)
    if shared:
        raise ValueError(
            f'the masks of {names[0]} and {names[1]} share {shared} voxels: give each to one'
        )
