"""Bring a volume onto another grid, once, by cubic B-splines."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from harmony_app.imaging.volume import Volume

FWHM = 2.3548200450309493
"""Full width at half maximum of a Gaussian in standard deviations."""


def resample(
    volume: Volume,
    shape: Sequence[int],
    affine: np.ndarray,
    transform: np.ndarray | None = None,
    order: int = 3,
) -> Volume:
    """Interpolate a volume on a target grid.

    Parameters
    ----------
    volume : Volume
        Source.
    shape : sequence of 3 int
        Target shape.
    affine : ndarray, shape (4, 4)
        Target voxel indices to target mm.
    transform : ndarray, shape (4, 4), optional
        Source RAS mm to target mm; the identity by default.
    order : int, optional
        3 for images (cubic B-spline), 1 linear, 0 nearest for labels and masks.

    Returns
    -------
    Volume
        Data float32 (the source's type for order 0) on the target grid, zero outside
        the source's field of view, within the source's range. Where the target is
        coarser than the source, the source is smoothed first to the target's
        resolution (order 0 excepted).
    """
    shape = tuple(int(n) for n in shape)
    affine = np.asarray(affine, dtype=float)
    transform = np.eye(4) if transform is None else np.asarray(transform, dtype=float)
    to_source = np.linalg.inv(volume.affine) @ np.linalg.inv(transform) @ affine
    boolean = volume.data.dtype == bool
    source = volume.data.astype(np.uint8) if boolean and order == 0 else volume.data
    if order > 0:
        source = _smooth_for(source.astype(np.float32, copy=False), to_source)
    out = np.zeros(shape, source.dtype)

    box, inside = _field_of_view(volume.shape, shape, to_source)
    if inside is not None:
        offset = to_source[:3, :3] @ [b.start for b in box] + to_source[:3, 3]
        values = ndimage.affine_transform(
            source,
            to_source[:3, :3],
            offset,
            output_shape=inside.shape,
            output=source.dtype,
            order=order,
            mode='mirror' if order > 1 else 'nearest',
        )
        if order > 1:
            # The spline overshoots at edges; no voxel may leave the range of the source.
            np.clip(values, source.min(), source.max(), out=values)
        out[box] = np.where(inside, values, 0)
    return Volume(out.astype(bool) if boolean and order == 0 else out, affine)


def isotropic_grid(volume: Volume, spacing: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a grid along the axes of a volume, over the same field of view."""
    zooms = np.array(volume.zooms)
    counts = np.maximum(1, np.rint(np.array(volume.shape) * zooms / spacing)).astype(int)
    ratio = spacing / zooms
    step = np.diag([*ratio, 1.0])
    step[:3, 3] = (np.array(volume.shape) - 1) / 2 - ratio * (counts - 1) / 2
    return tuple(int(n) for n in counts), volume.affine @ step


def _smooth_for(source: np.ndarray, to_source: np.ndarray) -> np.ndarray:
    """Gaussian that brings the source's resolution down to that of a coarser target."""
    # Extent of a target voxel along each source axis, in source voxels.
    extent = np.sqrt((to_source[:3, :3] ** 2).sum(axis=1))
    sigma = np.sqrt(np.maximum(extent**2 - 1, 0)) / FWHM
    sigma[extent < 1.1] = 0
    if not sigma.any():
        return source
    return ndimage.gaussian_filter(source, sigma, mode='nearest', truncate=3.0)


def _field_of_view(
    source_shape: tuple[int, ...], shape: tuple[int, ...], to_source: np.ndarray
) -> tuple[tuple[slice, ...], np.ndarray | None]:
    """Box of target voxels that may see the source, and which of them do."""
    corners = np.stack(
        np.meshgrid(*[(-0.5, n - 0.5) for n in source_shape], indexing='ij'), -1
    ).reshape(-1, 3)
    back = np.linalg.inv(to_source)
    corners = corners @ back[:3, :3].T + back[:3, 3]
    low = np.clip(np.floor(corners.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    if (high <= low).any():
        return box, None
    axes = np.ogrid[box]
    inside = np.ones(tuple(high - low), bool)
    for row, count in zip(to_source[:3], source_shape, strict=True):
        position = sum((a * factor for a, factor in zip(axes, row[:3], strict=True)), start=row[3])
        # A voxel reaches half its edge beyond its centre; the rest is rounding.
        inside &= (position > -0.5 - 1e-6) & (position < count - 0.5 + 1e-6)
    return box, inside
