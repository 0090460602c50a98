"""The scan without its noise, as a guide for intensity maps.

A map that separates two tissues further separates noisy voxels of one tissue as well: it turns
noise into speckle. Applied to a guide instead, with the rest of the scan (noise, and
structures fainter than it) added back as it was, it leaves noise what it was.
"""

import numpy as np

from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.volume import Volume

SPREAD = 2.0
"""Standard deviations of the noise at which the weight of a neighbour has fallen to exp(-1/2)."""

ROUNDS = 2
"""Times the neighbours are averaged; the second round tells edges from noise better."""

SURE = 0.95
"""Probability of white matter from which on noise is read there."""

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
    if noise <= 0:
        return volume
    data = np.ascontiguousarray(volume.data, np.float32)
    shown = data > 0
    for _ in range(ROUNDS):
        data = np.where(shown, _alike_mean(data, np.float32(SPREAD * noise)), 0)
    return volume.with_data(data)


def _alike_mean(data: np.ndarray, width: np.float32) -> np.ndarray:
    import torch

    image = torch.from_numpy(data)
    total, weights = image.clone(), torch.ones_like(image)
    padded = torch.nn.functional.pad(image[None, None], [1] * 6, mode='replicate')[0, 0]
    size = image.shape
    scale = -0.5 / float(width) ** 2
    for place in range(27):
        x, y, z = place // 9, place // 3 % 3, place % 3
        if (x, y, z) == (1, 1, 1):
            continue
        other = padded[x : x + size[0], y : y + size[1], z : z + size[2]]
        weight = (other - image).square_().mul_(scale).exp_()
        total += weight * other
        weights += weight
    return (total / weights).numpy()
