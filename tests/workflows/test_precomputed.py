import numpy as np

from harmony_app.bids.discovery import Selection, discover
from harmony_app.bids.transforms import write_itk_affine
from harmony_app.imaging.grid import SPACE
from harmony_app.workflows.precomputed import find_precomputed


def test_masks_and_transforms_are_found_by_the_entities_of_the_scan(make_dataset):
    raw = make_dataset(
        'sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz',
    )
    mask = 'sub-01/ses-a/anat/sub-01_ses-a_run-1_desc-brain_mask.nii.gz'
    first = make_dataset(
        mask,
        'sub-01/ses-a/anat/sub-01_ses-a_desc-brainT2w_mask.nii.gz',
        # On another grid, or of another kind: not ours to take.
        'sub-01/ses-a/anat/sub-01_ses-a_run-2_space-MNI152NLin6Asym_desc-brain_mask.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_run-2_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.txt',
        name='first',
    )
    second = make_dataset(mask, name='second')
    transform = (
        second / f'sub-01/ses-a/anat/sub-01_ses-a_run-2_from-T1w_to-{SPACE}_mode-image_xfm.txt'
    )
    write_itk_affine(transform, np.eye(4))
    scans = discover(raw, Selection()).scans
    found = find_precomputed({'a': first, 'b': second}, scans)
    assert found == {
        'sub-01_ses-a_run-1_T1w': {'mask_file': first / mask},
        'sub-01_ses-a_run-2_T1w': {'transform_file': transform},
        'sub-01_ses-a_T2w': {
            'mask_file': first / 'sub-01/ses-a/anat/sub-01_ses-a_desc-brainT2w_mask.nii.gz'
        },
    }
