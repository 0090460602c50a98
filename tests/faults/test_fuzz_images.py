"""Images that are not what they say: a clear error or a valid scan, never anything else."""

import gzip
import os
import resource
import signal
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harmony_app.bids.discovery import _volumes
from harmony_app.errors import ScanError
from harmony_app.imaging.io import read_scan, write_like
from harmony_app.workflows.steps import load_native

SHAPE = (12, 14, 10)
CASES = [pytest.param(150), pytest.param(5000, marks=pytest.mark.faults)]
"""Examples of the quick suite, and of the long one: 10,000 of the two tests together."""

SECONDS, BYTES = 60, 2**32
"""What one file may take: time, and memory above what the process has."""

HEADERS = {'n1': nib.Nifti1Header, 'n2': nib.Nifti2Header}
FIELDS = [
    (kind, name)
    for kind, header in HEADERS.items()
    for name in header.template_dtype.names
    if name != 'sizeof_hdr'
]
ODD = (0, 1, -1, 2, 3, 4, 7, 255, -32768, 32767, 2**31 - 1, -(2**31), 2**62, 1e-30, 1e30)
ODD += (float('nan'), float('inf'), float('-inf'), 0.5, -0.0)


def fuzz(count):
    return settings(settings.get_profile('faults'), max_examples=count)


class LateError(BaseException):
    """No error of a file, so that nothing takes it for one."""


@contextmanager
def bounded():
    """Fail where a file takes a minute or four gigabytes."""

    def late(number, frame):
        raise LateError(f'no answer within {SECONDS} s')

    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def base(kind='n1'):
    """Header and voxels of a valid scan."""
    data = np.random.default_rng(1).integers(1, 200, SHAPE).astype(np.int16)
    image = (nib.Nifti1Image if kind == 'n1' else nib.Nifti2Image)(data, np.diag([1, 1, 1.2, 1]))
    image.header.set_xyzt_units('mm')
    image.set_qform(image.affine, 1)
    content = image.to_bytes()
    size = HEADERS[kind].sizeof_hdr
    return content[:size], content[size:]


def judge(path):
    """Read a file in each way that the program reads files."""
    with bounded():
        try:
            scan = read_scan(path)
        except ScanError as error:
            scan, message = None, str(error)
            assert str(path) in message
            assert '\n' not in message
            assert 'do not fit into memory' not in message
        assert _volumes(path) is None or isinstance(_volumes(path), int)
        for volume in (0, 1):
            with suppress(ScanError):
                load_native(path, volume, path.parent)
        if scan is None:
            return message
        assert np.isfinite(scan.volume.data).all()
        assert scan.volume.data.dtype == np.float32
        out = path.with_name('out.nii.gz')
        write_like(out, scan.volume.data, scan.geometry)
        before, after = nib.load(path), nib.load(out)
        assert after.shape == before.shape
        np.testing.assert_array_equal(after.affine, before.affine)
        return None


@st.composite
def changed_headers(draw):
    """A scan whose header has some odd values."""
    kind = draw(st.sampled_from(list(HEADERS)))
    start, rest = base(kind)
    header = HEADERS[kind](start, check=False)
    changes = draw(
        st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(0, 7)), min_size=1, max_size=4)
    )
    for (of, name), place in changes:
        if of != kind:
            continue
        field = header[name]
        if field.dtype.kind == 'S':
            header[name] = draw(st.binary(max_size=8))
        else:
            value = draw(st.sampled_from(ODD) | st.integers(-40_000, 40_000))
            with np.errstate(all='ignore'):
                if field.dtype.kind in 'iu':
                    info = np.iinfo(field.dtype)
                    whole = int(value) if np.isfinite(value) else 0
                    value = min(max(whole, info.min), info.max)
                array = np.array(field)
                array.flat[place % array.size] = value
                header[name] = array
    content = header.binaryblock + rest
    return content[: draw(st.sampled_from([None, 352, 400, 1000]) | st.integers(0, len(content)))]


@st.composite
def changed_bytes(draw):
    """A scan with some bytes changed, wherever they are; perhaps compressed first."""
    content = b''.join(base(draw(st.sampled_from(list(HEADERS)))))
    compressed = draw(st.booleans())
    if compressed:
        content = gzip.compress(content, 1, mtime=0)
    content = bytearray(content)
    for place, value in draw(
        st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        content[place % len(content)] = value
    content += draw(st.binary(max_size=20))
    return bytes(content), compressed


@pytest.mark.parametrize('count', CASES)
def test_headers(tmp_path, count):
    seen = set()

    @fuzz(count)
    @given(changed_headers(), st.booleans())
    def test(content, compressed):
        path = tmp_path / ('in.nii.gz' if compressed else 'in.nii')
        path.write_bytes(gzip.compress(content, 1) if compressed else content)
        seen.add(judge(path) is None)

    test()
    # Both ends are reached, so neither is empty talk.
    assert seen == {True, False}


@pytest.mark.parametrize('count', CASES)
def test_bytes_of_files_and_gzip_streams(tmp_path, count):
    seen = set()

    @fuzz(count)
    @given(changed_bytes())
    def test(case):
        content, compressed = case
        path = tmp_path / ('in.nii.gz' if compressed else 'in.nii')
        path.write_bytes(content)
        seen.add(judge(path) is None)

    test()
    assert seen == {True, False}


@pytest.mark.parametrize('count', [pytest.param(100), pytest.param(2000, marks=pytest.mark.faults)])
def test_anything(tmp_path, count):
    """Random bytes under each name that an image can have."""

    @fuzz(count)
    @given(st.binary(max_size=1200), st.sampled_from(['.nii', '.nii.gz']))
    @example(b'', '.nii.gz')
    @example(b'\x1f\x8b', '.nii.gz')
    @example(gzip.compress(b''), '.nii.gz')
    @example(b'/annex/objects/MD5E-s1--0.nii.gz', '.nii.gz')
    def test(content, ending):
        path = tmp_path / f'in{ending}'
        path.write_bytes(content)
        assert judge(path) is not None

    test()


def promise(shape, code=4, bits=16, offset=352.0):
    """A NIfTI header of a shape, whatever comes after it."""
    header = bytearray(b''.join(base())[:352])
    struct.pack_into('<8h', header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into('<2h', header, 70, code, bits)
    struct.pack_into('<f', header, 108, offset)
    return bytes(header)


def bomb(path, start, gigabytes):
    """Write a stream that is small on disk: its zeros are one member, again and again."""
    member = gzip.compress(bytes(2**24), 9)
    path.write_bytes(gzip.compress(start) + member * (gigabytes * 64))
    assert path.stat().st_size < 2**23
    return path


def test_a_header_that_promises_more_than_there_is(tmp_path):
    for name, content in (
        ('in.nii', promise((30_000,) * 3)),
        ('in.nii.gz', gzip.compress(promise((30_000,) * 3) + bytes(5000))),
        ('in4.nii.gz', gzip.compress(promise((300, 300, 300, 30_000)) + bytes(5000))),
    ):
        (tmp_path / name).write_bytes(content)
        message = judge(tmp_path / name)
        assert 'more than the file can hold' in message or 'four dimensions' in message


def test_a_bomb_that_keeps_its_promise(tmp_path):
    assert 'need more than 4 GB' in judge(bomb(tmp_path / 'a.nii.gz', promise((1200,) * 3), 4))


def test_a_bomb_behind_a_whole_scan_is_never_unpacked(tmp_path):
    assert judge(bomb(tmp_path / 'a.nii.gz', b''.join(base()), 4)) is None


def test_a_bomb_before_the_voxels(tmp_path):
    far = bomb(tmp_path / 'a.nii.gz', promise(SHAPE, offset=3e9), 4)
    assert 'the voxels begin at byte 3e+09' in judge(far)
    # An extension of 2 GB, in a header that leaves 64 MB for it.
    start = (
        promise(SHAPE, offset=float(2**26))[:348] + b'\1\0\0\0' + struct.pack('<2i', 2**31 - 16, 6)
    )
    assert 'an extension of the header has 2147483632 bytes' in judge(
        bomb(tmp_path / 'b.nii.gz', start, 4)
    )


@pytest.mark.faults
def test_the_largest_that_is_read_at_all(tmp_path):
    """Just below the limit, of nothing but zeros: refused, within time and memory."""
    path = bomb(tmp_path / 'a.nii.gz', promise((780,) * 3, code=2, bits=8), 1)
    assert 'all voxels' in judge(path)


@pytest.mark.parametrize(
    'error', [zlib.error('x'), struct.error('x'), OverflowError('x'), MemoryError()]
)
def test_what_the_reader_may_raise_is_told(tmp_path, monkeypatch, error):
    path = tmp_path / 'in.nii'
    path.write_bytes(b''.join(base()))

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(nib.Nifti1Image, 'get_fdata', fail)
    with pytest.raises(ScanError, match=r'in\.nii'):
        read_scan(path)


def test_free_text_of_a_header_goes_no_further(tmp_path):
    """Converters write names, dates and times there."""
    start, rest = base()
    header = nib.Nifti1Header(start)
    words = {'descrip': b'Doe^Jane 19700101', 'db_name': b'Doe^Jane', 'aux_file': b'doe.txt'}
    words |= {'intent_name': b'Doe', 'data_type': b'Doe'}
    for name, value in words.items():
        header[name] = value
    path, out = tmp_path / 'in.nii', tmp_path / 'out.nii'
    path.write_bytes(header.binaryblock + rest)
    scan = read_scan(path)
    write_like(out, scan.volume.data, scan.geometry)
    assert b'oe' not in out.read_bytes()[:352]
    assert os.path.getsize(out) == 352 + 4 * np.prod(SHAPE)


@pytest.mark.faults
def test_bytes_that_are_led_by_what_they_reach(tmp_path):
    """atheris, for as many cases again."""
    pytest.importorskip('atheris', reason='atheris is not installed: pip install harmony-app[fuzz]')
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / 'atheris_images.py'), str(tmp_path), '-runs=10000', '-seed=1'],
        env=os.environ | {'PYTHONPATH': str(here.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert 'Done 10000 runs' in done.stderr
