"""A person as a lab hands one in: a 2D FLAIR, a T1w in two runs, one of them defaced."""

import json

import nibabel as nib
import numpy as np
import pytest

from harmony_app import app
from harmony_app.bids.atomic import read_table
from harmony_app.bids.transforms import read_itk_affine
from harmony_app.cli import main
from harmony_app.imaging import registration
from harmony_app.imaging.face import FACE
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.volume import Volume

SCANS = {'run-1_T1w': 'T1w', 'run-2_T1w': 'T1w', 'acq-2d_FLAIR': 'FLAIR'}


def save(path, volume):
    image = nib.Nifti1Image(np.rint(volume.data).astype(np.int16), volume.affine)
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units('mm')
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def deface(volume, to_working):
    """Zero everything below and in front of the frontal lobes, as defacing tools do."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing='ij'), axis=-1)
    matrix = to_working @ volume.affine
    place = index @ matrix[:3, :3].T + matrix[:3, 3]
    (_, _), (front, _), (_, top) = FACE
    face = (place[..., 1] > front - 10) & (place[..., 2] < top + 2)
    return volume.with_data(np.where(face, 0, volume.data)), face


def thicken(volume):
    """Two slices become one of twice the thickness: a 2D acquisition."""
    count = volume.shape[2] // 2
    data = volume.data[..., : 2 * count].reshape(*volume.shape[:2], count, 2).mean(axis=-1)
    larger = np.diag([1.0, 1.0, 2.0, 1.0])
    larger[2, 3] = 0.5
    return Volume(data, volume.affine @ larger)


@pytest.fixture(scope='module')
def person(tmp_path_factory, make_head, make_style, known_template):
    folder = tmp_path_factory.mktemp('person')
    anat = folder / 'raw/sub-01/anat'
    truth = {}
    first, truth['run-1_T1w'] = make_head('T1w', 3.0, (4.0, -3.0, 5.0))
    second, truth['run-2_T1w'] = make_head('T1w', 3.0, (-3.0, 2.0, 8.0))
    second, face = deface(second, truth['run-2_T1w'])
    flair, truth['acq-2d_FLAIR'] = make_head('FLAIR', 3.0, (0.0, -5.0, 2.0))
    flair = thicken(flair)
    for name, volume in zip(SCANS, (first, second, flair), strict=True):
        save(anat / f'sub-01_{name}.nii.gz', volume)
    description = {'Name': 'a person', 'BIDSVersion': '1.10.0'}
    (folder / 'raw/dataset_description.json').write_text(json.dumps(description))
    style = folder / 'style.json'
    style.write_text(json.dumps([make_style(c).to_dict() for c in ('T1w', 'FLAIR')]))
    arguments = [folder / 'raw', folder / 'out', 'participant', '--method', 'nyul']
    arguments += ['--target', style, '-w', folder / 'work', '--nprocs', 1]
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, '_say', told.append)
        # The reference is laid where it lies; what is aligned to it is aligned for real.
        patch.setattr(registration, 'register_template', known_template(truth['run-1_T1w']))
        assert main([str(argument) for argument in arguments]) == 0, told
    return {'folder': folder, 'truth': truth, 'face': face, 'told': '\n'.join(told)}


@pytest.mark.slow
def test_every_scan_gets_a_right_result(person):
    anat = person['folder'] / 'out/sub-01/anat'
    rows = {row['scan']: row for row in read_table(anat / 'sub-01_desc-harmonized_qc.tsv')}
    assert set(rows) == {f'sub-01_{name}' for name in SCANS}
    for name, contrast in SCANS.items():
        row = rows[f'sub-01_{name}']
        assert float(row['distance_after']) < 0.5 * float(row['distance_before']), name
        assert float(row['edge_agreement']) > 0.7, name
        entities = name.removesuffix(f'_{contrast}')
        found = read_itk_affine(
            anat / f'sub-01_{entities}_from-{contrast}_to-{SPACE}_mode-image_xfm.txt'
        )
        centre = np.array([0, -18, 5, 1])
        apart = found @ np.linalg.inv(person['truth'][name]) @ centre - centre
        assert np.linalg.norm(apart[:3]) < 6, name
        source = nib.load(person['folder'] / f'raw/sub-01/anat/sub-01_{name}.nii.gz')
        result = nib.load(anat / f'sub-01_{entities}_desc-harmonized_{contrast}.nii.gz')
        assert result.shape == source.shape
        assert np.array_equal(result.affine, source.affine)


@pytest.mark.slow
def test_a_face_that_was_removed_does_not_come_back(person):
    anat = person['folder'] / 'out/sub-01/anat'
    result = np.asarray(nib.load(anat / 'sub-01_run-2_desc-harmonized_T1w.nii.gz').dataobj)
    assert np.all(result[person['face']] == 0)


@pytest.mark.slow
def test_the_page_says_what_happened(person):
    page = (person['folder'] / 'out/sub-01.html').read_text()
    parts = {
        name: page.split(f'<div id="sub-01_{name}"></div>')[1].split('<section')[0]
        for name in SCANS
    }
    defaced = 'the face was removed (defaced)'
    assert [name for name, part in parts.items() if defaced in part] == ['run-2_T1w']
    assert 'each slice was divided into 2 by' in parts['acq-2d_FLAIR']
    assert 'voxels: <b>3 x 3 x 6 mm</b>' in parts['acq-2d_FLAIR']
    found = page.split('<h2>What was found</h2>')[1].split('<section')[0]
    assert '3 images in the anat folders, 3 used.' in found
    assert defaced in found
    assert 'all well</strong> 3 scans harmonized.' in page
    assert 'reports in' in person['told']
