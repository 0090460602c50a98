"""Head masks from intensities alone, and what they tell about a scan."""

import numpy as np
from scipy import ndimage

from harmony_app.imaging.volume import Volume

BRAIN_LITRES = (0.6, 2.3)
"""Volumes that a skull-stripped brain, ventricles filled, can have."""


def otsu_threshold(data: np.ndarray, bins: int = 256) -> float:
    """Threshold between background and head by Otsu's method, on clipped intensities.

    Parameters
    ----------
    data : ndarray
        Intensities; the brightest 1 % is clipped, so that fat and vessels weigh little.

    References
    ----------
    Otsu 1979, IEEE Trans. Systems, Man and Cybernetics 9: 62-66.
    """
    low, high = float(data.min()), float(np.percentile(data, 99))
    if high <= low:
        high = float(data.max())
    if high <= low:
        return low
    counts, edges = np.histogram(np.clip(data, low, high), bins=bins, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide='ignore', invalid='ignore'):
        separation = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nanargmax(separation[:-1])])


def head_mask(volume: Volume, step: float = 4.0) -> np.ndarray:
    """Mask of the head: thresholded, closed, largest component, holes filled.

    Worked out on a grid of about ``step`` mm, where noise is averaged away and the
    closing radius (12 mm) costs little.

    Parameters
    ----------
    volume : Volume
        Any contrast, whole head or brain.
    step : float, optional
        Working voxel edge in mm.

    Returns
    -------
    ndarray, shape of the volume, bool
    """
    factors = [max(1, int(round(step / z))) for z in volume.zooms]
    coarse = _block_mean(np.maximum(volume.data, 0), factors)
    zooms = np.array(volume.zooms) * factors
    # Half of Otsu's threshold: bone marrow and CSF are darker than the rest of the head.
    positive = coarse[coarse > 0]
    if not positive.size:
        return np.zeros(volume.shape, bool)
    mask = coarse > 0.5 * otsu_threshold(coarse)
    mask = largest_component(mask)
    pad = [int(np.ceil(12 / z)) for z in zooms]
    padded = np.pad(mask, [(p, p) for p in pad], mode='edge')
    padded = ndimage.binary_closing(padded, ball(12.0, zooms))
    inner = tuple(slice(p, p + n) for p, n in zip(pad, mask.shape, strict=True))
    mask = ndimage.binary_fill_holes(padded[inner] | mask)
    mask = largest_component(mask)
    for axis, factor in enumerate(factors):
        mask = np.repeat(mask, factor, axis=axis)
    trimmed = mask[tuple(slice(0, n) for n in volume.shape)]
    return np.pad(
        trimmed,
        [(0, n - m) for n, m in zip(volume.shape, trimmed.shape, strict=True)],
        mode='edge',
    )


def is_skull_stripped(volume: Volume) -> bool:
    """Whether a scan shows a brain only: zero up to its border, and of a brain's volume.

    A whole head whose background was zeroed holds three litres and more, so the volume
    tells; a slab that is cut by its field of view on many sides is taken for a head.

    Parameters
    ----------
    volume : Volume
        Scan in any contrast.
    """
    shown = volume.data != 0
    share = float(shown.mean())
    if share > 0.7 or share == 0:
        return False
    factors = [max(1, int(round(3.0 / z))) for z in volume.zooms]
    coarse = largest_component(_block_mean(shown.astype(np.float32), factors) > 0.5)
    filled = ndimage.binary_fill_holes(coarse)
    litres = filled.sum() * np.prod(np.array(volume.zooms) * factors) / 1e6
    faces = [coarse.take(index, axis).mean() for axis in range(3) for index in (0, -1)]
    # Noise outside the largest component is a background that nobody has set to zero.
    stray = share - coarse.mean()
    touching = sum(face > 0.15 for face in faces)
    return BRAIN_LITRES[0] < litres < BRAIN_LITRES[1] and touching <= 1 and stray < 0.05


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest six-connected component of a mask; an empty mask stays empty."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return labels > 0
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def ball(radius: float, zooms: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """Structuring element of a radius in mm on a grid of any voxel size."""
    half = [int(radius / z) for z in zooms]
    axes = np.meshgrid(
        *[np.arange(-h, h + 1) * z for h, z in zip(half, zooms, strict=True)], indexing='ij'
    )
    return sum(a**2 for a in axes) <= radius**2 + 1e-6


def _block_mean(data: np.ndarray, factors: list[int]) -> np.ndarray:
    """Mean over blocks; what does not fill a block at the end is left out."""
    counts = [max(1, n // f) for n, f in zip(data.shape, factors, strict=True)]
    factors = [min(f, n) for f, n in zip(factors, data.shape, strict=True)]
    trimmed = data[tuple(slice(0, c * f) for c, f in zip(counts, factors, strict=True))]
    shape = [part for c, f in zip(counts, factors, strict=True) for part in (c, f)]
    return trimmed.reshape(shape).mean(axis=(1, 3, 5))
