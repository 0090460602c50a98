"""NIfTI files whose bytes depend on nothing but the image."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from harmony_app.bids.atomic import atomic_path
from harmony_app.phantom.geometry import Grid


def as_stored(grid: Grid) -> Grid:
    """The grid as the quaternion of a NIfTI header can say it.

    Its fourth number is lost to rounding near half a turn; scanning on the rounded grid keeps
    qform and sform the same.
    """
    header = nib.Nifti1Header()
    header.set_qform(grid.affine, code=1)
    return Grid(grid.shape, header.get_qform())


def write_image(
    path: Path, data: np.ndarray, affine: np.ndarray, dtype: type, slope: float = 1.0
) -> None:
    """Write a NIfTI of integers times ``slope`` whose bytes depend on nothing but the image."""
    limits = np.iinfo(dtype)
    stored = np.clip(np.rint(data / slope), limits.min, limits.max).astype(dtype)
    header = nib.Nifti1Header()
    header.set_data_shape(stored.shape)
    header.set_data_dtype(dtype)
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header.set_xyzt_units('mm')
    header.set_slope_inter(slope, 0)
    header['vox_offset'] = 352
    # four bytes of no extensions, then the voxels; nibabel would scale anew
    content = header.binaryblock + bytes(4) + stored.tobytes(order='F')
    # level 1: noise does not compress, and the time goes into it; no clock in the header
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(content, compresslevel=1, mtime=0))
