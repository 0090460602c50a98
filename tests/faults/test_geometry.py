"""One head stored in many ways, and heads of many grids: results lie where the scan lies."""

import json

import nibabel as nib
import numpy as np
import pytest

from harmony_app.bids.atomic import read_table

EXACT = ('int16', 'uint8', 'uint16', 'float32', 'float64', 'slope', 'plain', 'bigendian')
"""Other numbers and other files for the same voxels: results are the same bit for bit."""

TURNED = ('LAS', 'LPS', 'PIR', 'ASR', 'SLP', 'nifti2')
"""Other orders of the same voxels, or an affine of double precision: it is rounded otherwise."""

TOLERANCE = 1e-4
"""Largest difference of voxels, in units of the white-matter peak, where the order differs."""

GRIDS = ('oblique', 'anisotropic', 'odd', 'prime', 'wide', 'narrow', 'half', 'coarse', 'trailing')
"""Grids of other shapes; what is seen of the head differs."""

METHODS = [pytest.param('nyul'), pytest.param('transfer', marks=pytest.mark.faults)]
SCAN = 'sub-{0}/anat/sub-{0}_T1w'
FIELDS = (
    *('dim', 'pixdim', 'qform_code', 'sform_code', 'quatern_b', 'quatern_c', 'quatern_d'),
    *('qoffset_x', 'qoffset_y', 'qoffset_z', 'srow_x', 'srow_y', 'srow_z', 'xyzt_units'),
)
"""What says where a scan lies."""


def reoriented(image, axes):
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    )
    return image.as_reoriented(turn)


def stored(root, name, image, dtype=np.int16, ending='.nii.gz', codes=(1, 1)):
    """Write an image of whole numbers as a scan of a person."""
    path = root / (SCAN.format(name) + ending)
    path.parent.mkdir(parents=True)
    kind = type(image)
    other = kind(np.asarray(image.dataobj).astype(dtype), image.affine)
    other.header.set_xyzt_units('mm')
    other.set_qform(image.affine, codes[0])
    other.set_sform(image.affine, codes[1])
    nib.save(other, path)
    return path


def write_equivalents(root, data, affine, save):
    """The same head in every way that files have."""
    image = nib.Nifti1Image(data, affine)
    for name in ('int16', 'uint8', 'uint16', 'float32', 'float64'):
        stored(root, name, image, np.dtype(name).type)
    stored(root, 'plain', image, ending='.nii')
    save(root / (SCAN.format('slope') + '.nii.gz'), data, affine, np.int16, (0.5, 10.0))
    stored(root, 'nifti2', nib.Nifti2Image(data, affine))
    header = nib.Nifti1Header(endianness='>')
    header.set_data_dtype(np.int16)
    path = root / (SCAN.format('bigendian') + '.nii')
    path.parent.mkdir(parents=True)
    swapped = nib.Nifti1Image(data.astype('>i2'), affine, header)
    swapped.header.set_xyzt_units('mm')
    nib.save(swapped, path)
    for axes in TURNED[:-1]:
        stored(root, axes, reoriented(image, axes))


def write_grids(root, make_small_head):
    """Heads on grids that a scanner may give."""

    def put(name, shape, zooms, centre=(0, -18, 12), rotation=None):
        linear = np.diag(np.asarray(zooms, float))
        if rotation is not None:
            linear = rotation @ linear
        affine = np.eye(4)
        affine[:3, :3] = linear
        affine[:3, 3] = np.asarray(centre) - linear @ ((np.asarray(shape[:3]) - 1) / 2)
        data = make_small_head('T1w', affine, shape[:3]) / 2
        stored(root, name, nib.Nifti1Image(np.rint(data).reshape(shape), affine), codes=(1, 2))

    turn = nib.eulerangles.euler2mat(0.2, -0.15, 0.3)
    put('oblique', (40, 44, 38), (5, 5, 5), rotation=turn)
    put('anisotropic', (64, 70, 26), (3, 3, 7.5))
    put('odd', (41, 47, 39), (4.7, 4.6, 4.9))
    put('prime', (37, 53, 31), (5.3, 4.1, 6.1))
    put('wide', (90, 90, 90), (6, 6, 6))
    put('narrow', (40, 44, 12), (5, 5, 5))
    put('half', (20, 46, 38), (5, 5, 5), centre=(-45, -18, 12))
    put('coarse', (26, 30, 25), (8, 8, 8))
    put('trailing', (40, 44, 38, 1), (5, 5, 5))


NO_PICTURES = """
from harmony_app.reports import figure
from harmony_app.workflows import reporting
figure.scan_figure = lambda path, *_, **__: path.write_bytes(b'')
reporting.report_run = lambda *_: ([], 0)
"""
"""Figures and pages take most of the time of a small scan."""


@pytest.fixture(scope='module', params=METHODS)
def harmonized(request, new_study, make_small_head, save_scan, describe_dataset, tmp_path_factory):
    """A run of all of them."""
    folder = tmp_path_factory.mktemp('geometry')
    root = describe_dataset(folder / 'raw')
    affine = np.array([[5.0, 0, 0, -95.3], [0, 5, 0, -125.7], [0, 0, 5, -80.1], [0, 0, 0, 1]])
    data = np.rint(make_small_head('T1w', affine) / 2)
    assert data.max() < 255
    write_equivalents(root, data, affine, save_scan)
    write_grids(root, make_small_head)
    study = new_study(folder, root)
    done = study.run(
        '--super-resolution', 'off', method=request.param, seconds=400, fault={'patch': NO_PICTURES}
    )
    assert done.code == 0, done.told
    study.data = data
    return study


def results(study, name, desc='desc-harmonized_T1w'):
    anat = study.out / f'sub-{name}' / 'anat'
    return nib.load(anat / f'sub-{name}_{desc}.nii.gz')


def source(study, name):
    (path,) = (study.raw / f'sub-{name}' / 'anat').glob('*.nii*')
    return nib.load(path)


def in_ras(image):
    return np.asarray(nib.as_closest_canonical(image).dataobj)


@pytest.mark.parametrize('name', [*EXACT, *TURNED, *GRIDS])
def test_results_lie_where_the_scan_lies(harmonized, name):
    before = source(harmonized, name)
    for desc in ('desc-harmonized_T1w', 'desc-brain_mask'):
        after = results(harmonized, name, desc)
        assert after.shape == before.shape
        assert type(after) is type(before)
        np.testing.assert_array_equal(after.affine, before.affine)
        for field in FIELDS:
            expected = before.header[field]
            assert after.header[field].tobytes() == expected.tobytes(), field
    data = results(harmonized, name).get_fdata()
    assert np.isfinite(data).all()
    assert data.std() > 0


@pytest.mark.parametrize('name', EXACT)
def test_numbers_and_files_change_no_voxel(harmonized, name):
    expected, found = results(harmonized, 'int16'), results(harmonized, name)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    template = 'space-MNI152NLin2009aSym_res-1_desc-harmonized_T1w'
    np.testing.assert_array_equal(
        np.asarray(results(harmonized, name, template).dataobj),
        np.asarray(results(harmonized, 'int16', template).dataobj),
    )


@pytest.mark.parametrize('name', TURNED)
def test_the_order_of_voxels_changes_nothing_that_can_be_seen(harmonized, name):
    sidecar = harmonized.out / f'sub-{name}/anat/sub-{name}_desc-harmonized_T1w.json'
    told = json.loads(sidecar.read_text())
    assert told['SourceScan']['Orientation'] == (name if name != 'nifti2' else 'RAS')
    peak = told['WhiteMatterPeak']
    for desc in ('desc-harmonized_T1w', 'space-MNI152NLin2009aSym_res-1_desc-harmonized_T1w'):
        expected, found = (in_ras(results(harmonized, n, desc)) for n in ('int16', name))
        assert np.abs(found - expected).max() <= TOLERANCE * peak
    masks = [in_ras(results(harmonized, n, 'desc-brain_mask')) for n in ('int16', name)]
    assert np.mean(masks[0] != masks[1]) < 1e-4


def test_what_is_seen_of_a_head_is_brought_to_the_same_target(harmonized):
    """Whole heads on other grids: tissues end where those of the first grid do."""
    levels = {}
    for name in ('int16', 'oblique', 'anisotropic', 'odd', 'prime', 'wide', 'trailing'):
        (row,) = read_table(harmonized.out / f'sub-{name}/anat/sub-{name}_desc-harmonized_qc.tsv')
        levels[name] = np.array([float(row[f'{t}_median_after']) for t in ('gm', 'wm')])
    for name, found in levels.items():
        np.testing.assert_allclose(found, levels['int16'], atol=0.05, err_msg=name)
