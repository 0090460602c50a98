"""Read a scan safely, write it back on its own grid bit for bit.

Nothing that is read is trusted: each way a file can be wrong ends in a
:class:`~harmony_app.errors.ScanError` of one line that names the file.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError

from harmony_app.errors import OutputError, ScanError, one_line
from harmony_app.imaging.headers import READ_ERRORS, open_image
from harmony_app.imaging.masks import is_skull_stripped
from harmony_app.imaging.volume import Volume

SMALLEST_AXIS = 8
"""An axis of fewer voxels makes a scan two-dimensional."""

VOXEL_LIMITS = (0.2, 8.0)
"""Voxel edges in mm that a brain scan can have."""

NON_FINITE_LIMIT = 0.01
"""Share of NaN and infinite voxels above which a scan is refused."""

TRANSLATION_LIMIT, ANGLE_LIMIT, ZOOM_LIMIT = 1.0, 1.0, 0.02
"""Largest differences of qform and sform: mm, degrees, share of a voxel edge."""

MNI_CODE = 4
"""NIfTI xform code of MNI space."""

FREE_TEXT = ('data_type', 'db_name', 'descrip', 'aux_file', 'intent_name')
"""Fields of a header that say what their writer liked; results do not pass them on."""

GZIP_LEVEL = 3
"""Of ISA-L: float volumes are within 1 % of the size of level 4 of zlib, in a sixth of its time."""


@dataclass(frozen=True)
class Geometry:
    """Where a scan lay before it was brought to RAS.

    Parameters
    ----------
    header : nibabel.Nifti1Header
        Header of the file as it was read (dtype, codes, qform and sform, pixdim, units).
    affine : ndarray, shape (4, 4)
        Voxel indices of the file to RAS mm.
    shape : tuple of int
        Shape of the file's array, trailing axes of one element included.
    orientation : ndarray, shape (3, 2)
        Nibabel orientation that brings the file's axes to RAS.
    """

    header: nib.Nifti1Header
    affine: np.ndarray
    shape: tuple[int, ...]
    orientation: np.ndarray

    @property
    def zooms(self) -> tuple[float, ...]:
        """Voxel edges in mm, axes of the file."""
        return tuple(float(z) for z in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def axes(self) -> str:
        """Directions of the file's axes, for example ``LPS``."""
        return ''.join(nib.aff2axcodes(self.affine))

    @property
    def dtype(self) -> np.dtype:
        """Data type on disk."""
        return self.header.get_data_dtype()

    @property
    def codes(self) -> tuple[int, int]:
        """The xform codes: qform, sform."""
        return int(self.header['qform_code']), int(self.header['sform_code'])


@dataclass(frozen=True)
class NativeScan:
    """A scan in RAS with the way back to its own grid.

    Parameters
    ----------
    volume : Volume
        Data in RAS, float32, no NaN.
    geometry : Geometry
        Grid of the file.
    notes : tuple of str
        What was found and tolerated, one sentence each.
    """

    volume: Volume
    geometry: Geometry
    notes: tuple[str, ...]


def read_scan(path: str | os.PathLike) -> NativeScan:
    """Read one three-dimensional NIfTI scan and check it.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz`` file.

    Raises
    ------
    ScanError
        For a file that cannot be read or cannot be a scan of a head; the message is one
        line and names the file.
    """
    path = Path(path)
    image = open_image(path)
    header = image.header.copy()
    shape = _check_shape(path, image.shape)
    affine, notes = _check_affine(path, header, shape)
    data = _read_data(path, image).reshape(shape)
    notes += _check_content(path, data)

    orientation = io_orientation(affine)
    volume = Volume(
        np.ascontiguousarray(apply_orientation(data, orientation)),
        affine @ inv_ornt_aff(orientation, shape),
    )
    if is_skull_stripped(volume):
        notes.append('skull-stripped: the background is exactly zero up to the brain')
    geometry = Geometry(header, affine, tuple(image.shape), orientation)
    return NativeScan(volume, geometry, tuple(notes))


def write_like(
    path: str | os.PathLike, data_ras: np.ndarray, geometry: Geometry, dtype: type = np.float32
) -> None:
    """Write RAS data on the grid of the file it came from.

    Shape, affine, pixdim, qform, sform and their codes are those of the input, bit for
    bit; two calls with the same data give the same bytes.

    Parameters
    ----------
    path : path
        Output, ``.nii`` or ``.nii.gz``; replaced in one step.
    data_ras : ndarray, shape (X, Y, Z)
        Data on the grid of ``NativeScan.volume``.
    geometry : Geometry
        From :func:`read_scan`.
    dtype : dtype, optional
        Data type on disk; float32 for images, uint8 for masks.

    Raises
    ------
    OutputError
        Where the file cannot be written.
    ValueError
        Where the data are not on that grid.
    """
    # Axes of the file in the order in which RAS has them, to be put in place again.
    restore = np.empty_like(geometry.orientation)
    for axis, (ras_axis, flip) in enumerate(geometry.orientation):
        restore[int(ras_axis)] = axis, flip
    data = apply_orientation(np.asarray(data_ras), restore)
    if data.shape != geometry.shape[:3]:
        raise ValueError(f'data of shape {data.shape} do not fit the grid {geometry.shape}')
    data = data.astype(dtype).reshape(geometry.shape)
    header = geometry.header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1.0, 0.0)
    # A display window of the old intensities would hide the new ones.
    header['cal_min'] = header['cal_max'] = 0
    # Converters write names and times into free text; it is no geometry.
    for field in FREE_TEXT:
        if field in header:
            header[field] = b''
    header.extensions.clear()
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # Without an affine nibabel leaves the matrices and codes of the header alone.
    _write(Path(path), kind(data, None, header))


def write_volume(path: str | os.PathLike, volume: Volume, dtype: type = np.float32) -> None:
    """Write a volume of template space (xform codes 4), with the same bytes each time.

    Parameters
    ----------
    path : path
        Output, ``.nii`` or ``.nii.gz``; replaced in one step.
    volume : Volume
        What to write.
    dtype : dtype, optional
        Data type on disk; values are rounded for integer types.

    Raises
    ------
    OutputError
        Where the file cannot be written.
    """
    data = volume.data
    if np.issubdtype(dtype, np.integer) and not np.issubdtype(data.dtype, np.integer):
        limits = np.iinfo(dtype)
        data = np.clip(np.rint(data), limits.min, limits.max)
    image = nib.Nifti1Image(np.asarray(data, dtype=dtype), volume.affine)
    image.header.set_data_dtype(dtype)
    image.set_qform(volume.affine, MNI_CODE)
    image.set_sform(volume.affine, MNI_CODE)
    image.header.set_xyzt_units('mm')
    _write(Path(path), image)


def is_thick(zooms: tuple[float, ...]) -> bool:
    """Whether a scan was acquired in slices too thick to be taken for three-dimensional.

    Examples
    --------
    >>> is_thick((1.0, 1.0, 1.2)), is_thick((0.9, 0.9, 5.5)), is_thick((2.0, 2.0, 2.0))
    (False, True, False)
    """
    return max(zooms) >= 2 * min(zooms) or max(zooms) > 2.5


def _check_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The three spatial axes."""
    text = ' x '.join(map(str, shape))
    if len(shape) > 3 and any(n != 1 for n in shape[3:]):
        raise ScanError(f'{path}: has four dimensions ({text}); give one volume per file')
    if len(shape) < 3 or min(shape[:3]) < SMALLEST_AXIS:
        raise ScanError(
            f'{path}: is two-dimensional ({text} voxels; each axis needs at least {SMALLEST_AXIS})'
        )
    return tuple(shape[:3])


def _check_affine(
    path: Path, header: nib.Nifti1Header, shape: tuple[int, int, int]
) -> tuple[np.ndarray, list[str]]:
    """The affine to trust, and what was found about it."""
    notes = []
    q_code, s_code = int(header['qform_code']), int(header['sform_code'])
    try:
        qform = header.get_qform()
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):
        qform = np.full((4, 4), np.nan)
    if s_code > 0:
        affine = header.get_sform()
    elif q_code > 0:
        affine = qform
    else:
        affine = header.get_base_affine()
        notes.append('no affine: both xform codes are 0, left and right are assumed as LAS')
    affine = np.asarray(affine, dtype=float)
    if not np.isfinite(affine).all():
        raise ScanError(f'{path}: the affine is not finite; repair the header')
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    if min(zooms) < 1e-6 or abs(np.linalg.det(affine[:3, :3] / zooms)) < 0.1:
        raise ScanError(f'{path}: the affine is singular; repair the header')
    text = ' x '.join(f'{z:.4g}' for z in zooms)
    low, high = VOXEL_LIMITS
    if min(zooms) < low - 1e-3 or max(zooms) > high + 1e-3:
        raise ScanError(
            f'{path}: voxels of {text} mm are outside {low} to {high} mm; '
            'check the voxel size and its unit in the header'
        )
    if q_code > 0 and s_code > 0:
        notes += _compare_forms(path, qform, affine, shape)
    elif np.abs(np.abs(header['pixdim'][1:4]) / zooms - 1).max() > ZOOM_LIMIT:
        notes.append(f'pixdim differs from the voxel size of the affine ({text} mm)')
    return affine, notes


def _compare_forms(
    path: Path, qform: np.ndarray, sform: np.ndarray, shape: tuple[int, int, int]
) -> list[str]:
    """Refuse a qform and sform that put the head in two places."""
    if not np.isfinite(qform).all():
        raise ScanError(f'{path}: the qform is not valid; set its code to 0 or repair the header')
    centre = np.append((np.array(shape) - 1) / 2, 1)
    shift = float(np.linalg.norm(((qform - sform) @ centre)[:3]))
    q_zooms, s_zooms = (np.linalg.norm(m[:3, :3], axis=0) for m in (qform, sform))
    cosines = np.sum((qform[:3, :3] / q_zooms) * (sform[:3, :3] / s_zooms), axis=0)
    angle = float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))
    scale = float(np.abs(q_zooms / s_zooms - 1).max())
    text = f'{shift:.2g} mm and {angle:.2g} degrees apart, voxel sizes {100 * scale:.2g} % apart'
    if shift > TRANSLATION_LIMIT or angle > ANGLE_LIMIT or scale > ZOOM_LIMIT:
        raise ScanError(
            f'{path}: qform and sform are at odds ({text}); '
            'set the code of the wrong one to 0 or repair it'
        )
    if shift > 0.01 or angle > 0.05 or scale > 1e-3:
        return [f'qform and sform differ a little ({text}); the sform is used']
    return []


def _read_data(path: Path, image: nib.Nifti1Image) -> np.ndarray:
    """Scaled voxels as float32; a truncated file shows only here."""
    try:
        with np.errstate(over='ignore', invalid='ignore'):
            return np.asarray(image.get_fdata(dtype=np.float32, caching='unchanged'))
    except READ_ERRORS as error:
        raise ScanError(f'{path}: the data are corrupt or truncated ({one_line(error)})') from error
    except MemoryError as error:
        raise ScanError(f'{path}: {image.shape} voxels do not fit into memory') from error


def _check_content(path: Path, data: np.ndarray) -> list[str]:
    """Refuse empty scans; set a few non-finite voxels to 0 in place."""
    notes = []
    finite = np.isfinite(data)
    bad = int(data.size - np.count_nonzero(finite))
    if bad > NON_FINITE_LIMIT * data.size:
        raise ScanError(f'{path}: {100 * bad / data.size:.1f} % of the voxels are NaN or infinite')
    if bad:
        data[~finite] = 0
        notes.append(f'{bad} NaN or infinite voxels were set to 0')
    low, high = float(data.min()), float(data.max())
    if low == high == 0:
        raise ScanError(f'{path}: all voxels are zero')
    if low == high:
        raise ScanError(f'{path}: all voxels have the same value ({low:g})')
    return notes


def _write(path: Path, image: nib.Nifti1Image) -> None:
    """Serialize, compress without time or name, put in place in one step."""
    content = image.to_bytes()
    if path.name.endswith('.gz'):
        content = igzip.compress(content, GZIP_LEVEL, mtime=0)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
        with os.fdopen(handle, 'wb') as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(f'{path}: cannot be written ({one_line(error)})') from error
