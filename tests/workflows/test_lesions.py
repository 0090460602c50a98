"""Lesion masks: which is found, and where it comes to lie."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harmony_app.bids.transforms import write_itk_affine
from harmony_app.errors import ScanError
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.io import write_volume
from harmony_app.imaging.volume import Volume
from harmony_app.workflows.evaluation_inputs import ResultScan
from harmony_app.workflows.lesions import LesionMask, find_lesions, read_lesions

SHAPE = (20, 22, 24)
T1W = ResultScan('sub-1_ses-a_T1w', '1', 'a', 'T1w', 'A', (('sub', '1'), ('ses', 'a')))
FLAIR = replace(T1W, name='sub-1_ses-a_FLAIR', contrast='FLAIR')
OTHER = replace(T1W, name='sub-2_ses-a_T1w', subject='2', entities=(('sub', '2'), ('ses', 'a')))
FOLDER = Path('sub-1/ses-a/anat')
XFM = FOLDER / f'sub-1_ses-a_from-FLAIR_to-{SPACE}_mode-image_xfm.txt'


def touch(root, name):
    path = root / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_mask_of_a_session_serves_all_its_scans(tmp_path):
    out, other = tmp_path / 'out', tmp_path / 'other'
    mask = touch(other, f'sub-1_ses-a_space-{SPACE}_res-1_label-WMH_mask.nii.gz')
    found = find_lesions([T1W, FLAIR, OTHER], [out, other])
    assert [scan.lesions for scan in found] == [LesionMask(mask), LesionMask(mask), None]
    first = touch(out, f'sub-1_ses-a_space-{SPACE}_res-1_label-lesion_mask.nii')
    assert find_lesions([FLAIR], [out, other])[0].lesions == LesionMask(first)


@pytest.mark.parametrize('name', ['label-lesion', 'space-FLAIR_label-L'])
def test_a_mask_on_the_grid_of_a_scan_needs_its_transform(tmp_path, name):
    mask = touch(tmp_path, f'sub-1_ses-a_{name}_mask.nii.gz')
    assert find_lesions([FLAIR], [tmp_path])[0].lesions is None
    write_itk_affine(tmp_path / XFM, np.eye(4))
    found = find_lesions([T1W, FLAIR], [tmp_path])
    assert [scan.lesions for scan in found] == 2 * [LesionMask(mask, tmp_path / XFM)]


def test_masks_on_other_grids_are_left_alone(tmp_path):
    touch(tmp_path, 'sub-1_ses-a_space-MNI152NLin6Asym_label-lesion_mask.nii.gz')
    touch(tmp_path, 'sub-1_ses-a_label-GM_mask.nii.gz')
    write_itk_affine(tmp_path / XFM, np.eye(4))
    assert find_lesions([FLAIR], [tmp_path])[0].lesions is None


@pytest.fixture
def brain():
    return Volume(np.ones(SHAPE, np.float32), np.eye(4))


def make_mask(path, voxels, affine=None):
    data = np.zeros(SHAPE, np.float32)
    data[voxels] = 1
    write_volume(path, Volume(data, np.eye(4) if affine is None else affine))
    return path


def test_a_mask_is_brought_to_the_template(tmp_path, brain):
    """A mask whose scan lies 3 mm aside of the template."""
    path = make_mask(tmp_path / 'mask.nii.gz', np.s_[5:9, 6:10, 7:11])
    matrix = np.eye(4)
    matrix[0, 3] = 3.0
    write_itk_affine(tmp_path / 'xfm.txt', matrix)
    moved = read_lesions(LesionMask(path, tmp_path / 'xfm.txt'), brain)
    wanted = np.zeros(SHAPE, bool)
    wanted[8:12, 6:10, 7:11] = True
    np.testing.assert_array_equal(moved, wanted)
    half = brain.with_data((np.indices(SHAPE)[0] < 10).astype(np.float32))
    assert np.flatnonzero(read_lesions(LesionMask(path), half).any((1, 2))).tolist() == [5, 6, 7, 8]


def test_masks_that_show_nothing_are_told(tmp_path, brain):
    path = make_mask(tmp_path / 'mask.nii.gz', np.s_[5:9, 6:10, 7:11])
    nobody = brain.with_data(np.zeros(SHAPE, np.float32))
    with pytest.raises(ValueError, match='no lesion inside the brain'):
        read_lesions(LesionMask(path), nobody)
    with pytest.raises(ValueError, match='has the shape'):
        read_lesions(LesionMask(path), Volume(np.ones((8, 8, 8), np.float32), np.eye(4)))
    empty = make_mask(tmp_path / 'empty.nii.gz', np.s_[:0])
    with pytest.raises(ScanError, match='all voxels are zero'):
        read_lesions(LesionMask(empty), brain)
