"""The scan without its noise, as a guide for intensity maps.

A map that separates two tissues further separates noisy voxels of one tissue as well: it turns
noise into speckle. Applied to a guide instead, with the rest of the scan (noise, and
structures fainter than it) added back as it was, it leaves noise what it was.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.volume import Volume

SPREAD = 2.0
"""Standard deviations of the noise at which the weight of a neighbour has fallen to exp(-1/2)."""

ROUNDS = 2
"""Times the neighbours are averaged; the second round tells edges from noise better."""

SURE = 0.95
"""Probability of white matter from which on noise is read there."""

SLAB = 4
"""Planes that are averaged at once, for they stay in the cache of the processor."""

_LAPLACIAN = 20.0**0.5
"""Standard deviation of ``4 I - (sum of four neighbours)`` over that of the noise."""


def noise_level(volume: Volume, mask: np.ndarray) -> float:
    """Standard deviation of the noise, from the differences of neighbours.

    Along the two axes of the finest voxels; the median tells the many small differences of
    noise from the few large ones of anatomy (Immerkaer 1996, CVIU 64:300, with the median
    absolute deviation).

    Parameters
    ----------
    volume : Volume
        Scan.
    mask : ndarray, shape (X, Y, Z), bool
        One tissue, where the anatomy changes least.

    Returns
    -------
    float
        In units of the scan; 0 where nothing can be told.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(1, 0.05, (30, 30, 30)).astype(np.float32)
    >>> round(noise_level(Volume(noise, np.eye(4)), np.ones(noise.shape, bool)), 2)
    0.05
    """
    order = np.argsort(volume.zooms, kind='stable')
    data, inside = (np.moveaxis(a, order, (0, 1, 2)) for a in (volume.data, mask))
    if min(data.shape[:2]) < 3:
        return 0.0
    around = data[:-2, 1:-1] + data[2:, 1:-1] + data[1:-1, :-2] + data[1:-1, 2:]
    rest = (4 * data[1:-1, 1:-1] - around)[inside[1:-1, 1:-1]]
    if not rest.size:
        return 0.0
    return float(np.median(np.abs(rest - np.median(rest))) * 1.4826 / _LAPLACIAN)


def white_matter_noise(volume: Volume, tissues: np.ndarray) -> float:
    """:func:`noise_level` in the sure white matter of a scan on the working grid.

    Parameters
    ----------
    volume : Volume
        On the working grid.
    tissues : ndarray, shape (3, X, Y, Z), uint8
        Registered GM, WM and CSF maps, 255 is certainty.
    """
    return noise_level(volume, tissues[TISSUES.index('WM')] > 255 * SURE)


def edge_preserving_mean(volume: Volume, noise: float) -> Volume:
    """Average each voxel with those of its 26 neighbours that look alike (Lee 1983, CGIP 24:255).

    Parameters
    ----------
    volume : Volume
        Scan.
    noise : float
        Standard deviation of its noise; at 0 the scan is given back.

    Returns
    -------
    Volume
        On the same grid; what is zero stays zero.
    """
    from scipy import ndimage

    if noise <= 0:
        return volume
    data = np.ascontiguousarray(volume.data, np.float32)
    shown = data > 0
    if not shown.any():
        return volume
    # what lies around the scan is zero and stays so
    found = ndimage.find_objects(shown.astype(np.uint8))[0]
    box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in found)
    part = np.ascontiguousarray(data[box])
    for _ in range(ROUNDS):
        part = np.where(shown[box], _alike_mean(part, np.float32(SPREAD * noise)), np.float32(0))
    result = np.zeros_like(data)
    result[box] = part
    return volume.with_data(result)


def _alike_mean(data: np.ndarray, width: np.float32) -> np.ndarray:
    """One round of the mean; what lies beyond the border of the array does not count."""
    import torch

    image = torch.from_numpy(data)
    total, weights = image.clone(), torch.ones_like(image)
    scale = -0.5 / float(width) ** 2
    for first in range(0, len(data), SLAB):
        for offset in _HALF:
            # two neighbours weigh each other alike: each pair is looked at once
            here, there = _pairs(image.shape, offset, first)
            near, far = image[here], image[there]
            weight = (far - near).square_().mul_(scale).exp_()
            weights[here] += weight
            weights[there] += weight
            total[here].addcmul_(weight, far)
            total[there].addcmul_(weight, near)
    return (total / weights).numpy()


_HALF = [place for place in itertools.product((-1, 0, 1), repeat=3) if place > (0, 0, 0)]
"""One of the two directions to each of the 26 neighbours; none goes back along the first axis."""


def _pairs(shape: Sequence[int], offset: tuple[int, ...], first: int) -> tuple[tuple, tuple]:
    """Voxels of a slab that have a neighbour at an offset, and these neighbours, as slices."""
    here, there = [], []
    for axis, (count, step) in enumerate(zip(shape, offset, strict=True)):
        low, high = max(0, -step), count - max(0, step)
        if axis == 0:
            low, high = first, min(first + SLAB, high)
        here.append(slice(low, max(low, high)))
        there.append(slice(low + step, max(low, high) + step))
    return tuple(here), tuple(there)
