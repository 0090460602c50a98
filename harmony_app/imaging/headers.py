"""Open an image and believe nothing that its header promises before it is seen to be possible."""

import os
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from harmony_app.errors import ScanError, one_line

READ_ERRORS = (
    ImageFileError,
    HeaderDataError,
    HeaderTypeError,
    OSError,
    EOFError,
    zlib.error,
    struct.error,
    ValueError,
    OverflowError,
    TypeError,
    np.linalg.LinAlgError,
)
"""What nibabel raises for files that are not what they say."""

MEMORY_LIMIT = 2**32
"""Bytes that reading an image may take."""

DEFLATE_RATIO = 1032
"""Most that deflate can compress: a header that promises more is of a truncated file."""

LARGEST_OFFSET = 2**26
"""Bytes in front of the voxels, which hold a header and its extensions."""

SINGLE_FILES = (nib.Nifti1Image, nib.Nifti2Image)


def open_image(path: str | os.PathLike) -> nib.Nifti1Pair:
    """Open a NIfTI file; the voxels stay on disk.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz`` file, or a pair.

    Raises
    ------
    ScanError
        For what is no NIfTI, cannot be whole, or would need more than :data:`MEMORY_LIMIT` to
        read; the message is one line and names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ScanError(f'{path}: no such file')
    try:
        _check_offset(path)
        image = nib.load(path)
    except READ_ERRORS as error:
        raise ScanError(
            f'{path}: cannot be read as NIfTI, corrupt or truncated ({one_line(error)})'
        ) from error
    if not isinstance(image, nib.Nifti1Pair):
        raise ScanError(f'{path}: is {type(image).__name__}, not NIfTI; convert it to .nii.gz')
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in 'iuf':
        raise ScanError(f'{path}: holds colours or complex numbers ({dtype}), not intensities')
    _check_size(path, image)
    return image


def _check_offset(path: Path) -> None:
    """Refuse a header behind which nibabel would look for extensions without end."""
    with ImageOpener(path) as stream:
        start = stream.read(540)
        for kind in SINGLE_FILES:
            header_class = kind.header_class
            if header_class.may_contain_header(start):
                size = header_class.sizeof_hdr
                header = header_class(start[:size], check=False)
                offset = float(header['vox_offset'])
                if not 0 <= offset <= LARGEST_OFFSET:
                    raise ValueError(f'the voxels begin at byte {offset:g}')
                stream.seek(size)
                _check_extensions(stream, size, int(offset), header.endianness)
                return


def _check_extensions(stream, size: int, offset: int, endianness: str) -> None:
    """Refuse an extension that is longer than the space before the voxels."""
    told = stream.read(4)
    place = size + 4
    if len(told) < 4 or told[0] == 0:
        return
    while place + 16 <= offset:
        start = stream.read(8)
        if len(start) < 8:
            raise EOFError('the file ends in an extension of its header')
        length, _ = struct.unpack(f'{endianness}2i', start)
        if length < 16 or place + length > offset:
            raise ValueError(f'an extension of the header has {length} bytes')
        stream.read(length - 8)
        place += length


def _check_size(path: Path, image: nib.Nifti1Pair) -> None:
    """Refuse more voxels than the file can hold, or than can be read."""
    voxels = int(np.prod([int(n) for n in image.shape], dtype=object)) if image.shape else 0
    text = ' x '.join(map(str, image.shape))
    if voxels < 1 or min(image.shape) < 1:
        raise ScanError(f'{path}: has no voxels ({text}); the header is corrupt')
    size = image.get_data_dtype().itemsize
    held = path.stat().st_size
    if not path.name.endswith('.nii'):
        held *= DEFLATE_RATIO
    if voxels * size > held:
        raise ScanError(
            f'{path}: the header promises {text} voxels, more than the file can hold: it is '
            'corrupt or truncated'
        )
    # What is on disk, its scaled copy, and the one in RAS order with what is checked on the way.
    if voxels * (size + 12 if size > 2 else 9) > MEMORY_LIMIT:
        raise ScanError(
            f'{path}: {text} voxels need more than {MEMORY_LIMIT / 2**30:g} GB to read; '
            'resample the scan to larger voxels'
        )
