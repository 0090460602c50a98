"""Reading and writing: what goes in comes out, and what is wrong is told."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from harmony_app.errors import OutputError, ScanError
from harmony_app.imaging.io import is_thick, read_scan, write_like, write_volume
from harmony_app.imaging.volume import Volume

SHAPE = (12, 14, 10)
ROTATION = nib.eulerangles.euler2mat(0.1, 0.2, -0.15)


def some_data(shape=SHAPE, dtype=np.int16):
    return np.random.default_rng(1).integers(1, 200, shape).astype(dtype)


def oriented(axes, zooms=(1.0, 1.2, 2.0), rotation=None):
    """Affine whose axes run to the given directions, with an offset that is not round."""
    ornt = nib.orientations.axcodes2ornt(axes)
    linear = np.zeros((3, 3))
    for axis, (ras, sign) in enumerate(ornt):
        linear[int(ras), axis] = sign * zooms[axis]
    affine = np.eye(4)
    affine[:3, :3] = linear if rotation is None else rotation @ linear
    affine[:3, 3] = (-31.37, 12.91, -7.03)
    return affine


def save(path, data, affine, q_code=1, s_code=1, **fields):
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, q_code)
    image.set_sform(affine, s_code)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


GRIDS = {
    'RAS': oriented('RAS'),
    'LAS': oriented('LAS'),
    'LPS': oriented('LPS'),
    'PIR': oriented('PIR'),
    'PSR': oriented('PSR', (2.0, 2.0, 2.0)),
    'oblique': oriented('LPS', rotation=ROTATION),
    'anisotropic': oriented('RAS', (0.47, 0.47, 6.0)),
}


@pytest.mark.parametrize('grid', GRIDS)
def test_native_round_trip_is_bit_for_bit(tmp_path, grid):
    affine = GRIDS[grid]
    path = save(tmp_path / 'in.nii.gz', some_data(), affine, q_code=1, s_code=2)
    scan = read_scan(path)
    assert nib.aff2axcodes(scan.volume.affine) == ('R', 'A', 'S')
    assert scan.volume.data.dtype == np.float32
    write_like(tmp_path / 'out.nii.gz', scan.volume.data, scan.geometry)

    before, after = nib.load(path), nib.load(tmp_path / 'out.nii.gz')
    assert after.get_data_dtype() == np.float32
    np.testing.assert_array_equal(after.get_fdata(), before.get_fdata())
    fields = (
        'pixdim',
        'qform_code',
        'sform_code',
        'quatern_b',
        'quatern_c',
        'quatern_d',
        'qoffset_x',
        'qoffset_y',
        'qoffset_z',
        'srow_x',
        'srow_y',
        'srow_z',
        'dim',
        'xyzt_units',
    )
    for field in fields:
        assert before.header[field].tobytes() == after.header[field].tobytes(), field


@pytest.mark.parametrize('grid', GRIDS)
def test_reorientation_keeps_every_voxel_where_it_is(tmp_path, grid):
    data = some_data()
    scan = read_scan(save(tmp_path / 'in.nii', data, GRIDS[grid]))
    voxel = np.array([3, 9, 2])
    place = nib.affines.apply_affine(nib.load(tmp_path / 'in.nii').affine, voxel)
    there = nib.affines.apply_affine(np.linalg.inv(scan.volume.affine), place)
    np.testing.assert_allclose(there, np.rint(there), atol=1e-3)
    assert scan.volume.data[tuple(np.rint(there).astype(int))] == data[tuple(voxel)]


@pytest.mark.parametrize('dtype', [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_number_type_and_scale_is_read(tmp_path, dtype):
    image = nib.Nifti1Image(some_data(dtype=dtype), GRIDS['RAS'])
    image.header.set_slope_inter(0.5, 3.0)
    path = tmp_path / 'in.nii.gz'
    # nibabel would choose the scale itself: write the array as it is.
    path.write_bytes(gzip.compress(raw_bytes(image, 0.5, 3.0)))
    np.testing.assert_allclose(
        read_scan(path).volume.data, some_data().astype(np.float32) * 0.5 + 3.0
    )


def raw_bytes(image, slope, intercept):
    header = image.header.copy()
    header['scl_slope'], header['scl_inter'] = slope, intercept
    header['vox_offset'] = 352
    return header.binaryblock + b'\0' * 4 + np.asarray(image.dataobj).tobytes(order='F')


def test_big_endian_files_keep_their_header(tmp_path):
    header = nib.Nifti1Header(endianness='>')
    header.set_data_dtype(np.int16)
    image = nib.Nifti1Image(some_data(), GRIDS['LPS'], header)
    nib.save(image, tmp_path / 'in.nii')
    scan = read_scan(tmp_path / 'in.nii')
    write_like(tmp_path / 'out.nii', scan.volume.data, scan.geometry)
    np.testing.assert_array_equal(nib.load(tmp_path / 'out.nii').get_fdata(), some_data())


def test_a_trailing_axis_of_one_comes_back(tmp_path):
    scan = read_scan(save(tmp_path / 'in.nii.gz', some_data((*SHAPE, 1)), GRIDS['PIR']))
    write_like(tmp_path / 'out.nii.gz', scan.volume.data, scan.geometry)
    assert nib.load(tmp_path / 'out.nii.gz').shape == (*SHAPE, 1)


def test_written_bytes_tell_neither_time_nor_name(tmp_path):
    scan = read_scan(save(tmp_path / 'in.nii.gz', some_data(), GRIDS['LPS']))
    for name in ('a.nii.gz', 'b.nii.gz'):
        write_like(tmp_path / name, scan.volume.data, scan.geometry)
    first = (tmp_path / 'a.nii.gz').read_bytes()
    assert first == (tmp_path / 'b.nii.gz').read_bytes()
    assert first[3] == 0, 'no file name in the gzip header'
    assert struct.unpack('<I', first[4:8]) == (0,), 'no time in the gzip header'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.nii.gz', 'b.nii.gz', 'in.nii.gz']


def test_template_space_has_its_code_and_type(tmp_path):
    volume = Volume(some_data().astype(np.float32) + 0.6, GRIDS['RAS'])
    write_volume(tmp_path / 'out.nii.gz', volume, np.uint8)
    image = nib.load(tmp_path / 'out.nii.gz')
    assert int(image.header['qform_code']) == int(image.header['sform_code']) == 4
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.get_fdata(), some_data() + 1)


def test_an_unwritable_place_is_an_output_error(tmp_path):
    volume = Volume(some_data().astype(np.float32), GRIDS['RAS'])
    with pytest.raises(OutputError, match='absent'):
        write_volume(tmp_path / 'absent' / 'out.nii.gz', volume)


def refuse(path, *words):
    """The scan is refused in one line that names the file and says why."""
    with pytest.raises(ScanError) as caught:
        read_scan(path)
    message = str(caught.value)
    assert path.name in message
    assert '\n' not in message
    for word in words:
        assert word in message, message


def test_files_that_cannot_be_read(tmp_path):
    refuse(tmp_path / 'nothing.nii.gz', 'no such file')
    text = tmp_path / 'text.nii.gz'
    text.write_text('not an image')
    refuse(text, 'corrupt')
    whole = save(tmp_path / 'whole.nii.gz', some_data((40, 40, 40)), GRIDS['RAS'])
    for share in (0.001, 0.1, 0.9):
        cut = tmp_path / f'cut{share}.nii.gz'
        content = whole.read_bytes()
        cut.write_bytes(content[: int(len(content) * share)])
        refuse(cut, 'truncated')
    flat = save(tmp_path / 'flat.nii', some_data(), GRIDS['RAS'])
    flat.write_bytes(flat.read_bytes()[:-100])
    refuse(flat, 'truncated')
    analyze = tmp_path / 'analyze.img'
    nib.save(nib.Spm99AnalyzeImage(some_data(), GRIDS['LAS']), analyze)
    refuse(analyze, 'not NIfTI')


def test_shapes_that_are_no_volume(tmp_path):
    refuse(save(tmp_path / 'f.nii.gz', some_data((*SHAPE, 3)), GRIDS['RAS']), 'four dimensions')
    refuse(save(tmp_path / 's.nii.gz', some_data((40, 40, 1)), GRIDS['RAS']), 'two-dimensional')
    refuse(save(tmp_path / 't.nii.gz', some_data((40, 40, 5)), GRIDS['RAS']), 'two-dimensional')


def test_contents_that_are_no_scan(tmp_path):
    refuse(save(tmp_path / 'z.nii.gz', np.zeros(SHAPE, np.int16), GRIDS['RAS']), 'zero')
    refuse(save(tmp_path / 'c.nii.gz', np.full(SHAPE, 7, np.int16), GRIDS['RAS']), 'same value')
    data = some_data(dtype=np.float32)
    data[:2] = np.nan
    refuse(save(tmp_path / 'n.nii.gz', data, GRIDS['RAS']), 'NaN')
    colour = np.zeros(SHAPE, np.dtype([('R', 'u1'), ('G', 'u1'), ('B', 'u1')]))
    refuse(save(tmp_path / 'rgb.nii.gz', colour, GRIDS['RAS']), 'colours')
    refuse(save(tmp_path / 'i.nii.gz', some_data(dtype=np.complex64), GRIDS['RAS']), 'complex')


def test_a_few_odd_voxels_are_noted_and_set_to_zero(tmp_path):
    data = some_data(dtype=np.float32)
    data[0, 0, 0], data[1, 1, 1] = np.nan, np.inf
    scan = read_scan(save(tmp_path / 'n.nii.gz', data, GRIDS['RAS']))
    assert scan.volume.data[0, 0, 0] == scan.volume.data[1, 1, 1] == 0
    assert any(note.startswith('2 NaN') for note in scan.notes)


@pytest.mark.parametrize('zoom', [0.1, 10.0])
def test_voxels_that_no_scan_has(tmp_path, zoom):
    affine = np.diag([1, 1, zoom, 1.0])
    refuse(save(tmp_path / 'v.nii.gz', some_data(), affine), f'1 x 1 x {zoom:g} mm')


def two_forms(path, qform, sform):
    image = nib.Nifti1Image(some_data(), sform)
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    nib.save(image, path)
    return path


def test_affines_that_place_nothing(tmp_path):
    image = nib.Nifti1Image(some_data(), np.eye(4))
    image.set_qform(None, 0)
    image.header['sform_code'] = 1
    image.header['srow_x'], image.header['srow_y'] = (1, 0, 0, 0), (1, 0, 0, 0)
    image.header['srow_z'] = (0, 0, 1, 0)
    content = raw_bytes(image, 1.0, 0.0)
    (tmp_path / 's.nii').write_bytes(content)
    refuse(tmp_path / 's.nii', 'singular')
    image.header['srow_x'] = (np.nan, 0, 0, 0)
    (tmp_path / 'n.nii').write_bytes(raw_bytes(image, 1.0, 0.0))
    refuse(tmp_path / 'n.nii', 'not finite')


def test_forms_at_odds(tmp_path):
    affine = GRIDS['LPS']
    moved, flipped, turned = affine.copy(), affine @ np.diag([-1, 1, 1, 1.0]), affine.copy()
    moved[0, 3] += 5
    turned[:3, :3] = nib.eulerangles.euler2mat(0.05) @ affine[:3, :3]
    for name, other in (('moved', moved), ('flipped', flipped), ('turned', turned)):
        refuse(two_forms(tmp_path / f'{name}.nii.gz', other, affine), 'at odds')


def test_forms_that_differ_a_little_are_noted(tmp_path):
    affine = GRIDS['LPS']
    moved = affine.copy()
    moved[0, 3] += 0.3
    scan = read_scan(two_forms(tmp_path / 'm.nii.gz', moved, affine))
    assert any('differ a little' in note for note in scan.notes)
    np.testing.assert_allclose(scan.geometry.affine, affine, atol=1e-5)


def test_no_affine_at_all_is_noted(tmp_path):
    scan = read_scan(save(tmp_path / 'in.nii.gz', some_data(), np.eye(4), q_code=0, s_code=0))
    assert any('no affine' in note for note in scan.notes)
    assert scan.geometry.axes == 'LAS'


def test_skull_stripped_brains_are_told_from_heads(tmp_path, make_head):
    from harmony_app.imaging.grid import WORKING_AFFINE
    from harmony_app.imaging.template import load_template

    step = (slice(None, None, 2),) * 3
    affine = WORKING_AFFINE @ np.diag([2, 2, 2, 1.0])
    brain = (load_template().t1[step] * 1000).astype(np.int16)
    scan = read_scan(save(tmp_path / 'brain.nii.gz', brain, affine))
    assert any('skull-stripped' in note for note in scan.notes)
    head, _ = make_head('T1w', 4.0)
    scan = read_scan(save(tmp_path / 'head.nii.gz', head.data, head.affine))
    assert not any('skull-stripped' in note for note in scan.notes)


@pytest.mark.parametrize(
    'zooms, thick',
    [
        ((1, 1, 1), False),
        ((2, 2, 2), False),
        ((0.9, 0.9, 5.5), True),
        ((0.5, 0.5, 1.0), True),
        ((3, 3, 3), True),
        ((0.67, 0.67, 0.7), False),
    ],
)
def test_thick_slices(zooms, thick):
    assert is_thick(zooms) is thick
