import json

import nibabel as nib
import numpy as np
import pytest

from harmony_app.bids.discovery import discover, select_participants
from harmony_app.bids.filters import Selection
from harmony_app.errors import ExitCode, InputError, SelectionError


def states(inventory):
    """File name (and contrast) to reason; empty for a scan that is used."""
    return {row.path.name: row.reason for row in inventory.rows}


def test_every_image_has_a_row_and_only_scans_of_a_contrast_are_used(make_dataset, tmp_path):
    anat = 'sub-01/anat/sub-01'
    root = make_dataset(
        f'{anat}_T1w.nii.gz',
        f'{anat}_T2w.nii.gz',
        f'{anat}_PDw.nii',
        f'{anat}_FLAIR.nii.gz',
        f'{anat}_acq-3d_run-01_T1w.nii.gz',
        f'{anat}_acq-3d_run-02_T1w.nii.gz',
        f'{anat}_rec-norm_T1w.nii.gz',
        f'{anat}_echo-1_T1w.nii.gz',
        f'{anat}_task-rest_T1w.nii.gz',
        f'{anat}_part-mag_T2w.nii.gz',
        f'{anat}_part-phase_T2w.nii.gz',
        f'{anat}_part-real_T2w.nii.gz',
        f'{anat}_part-imag_T2w.nii.gz',
        f'{anat}_chunk-1_T1w.nii.gz',
        f'{anat}_chunk-2_T1w.nii.gz',
        f'{anat}_ce-gad_T1w.nii.gz',
        f'{anat}_UNIT1.nii.gz',
        f'{anat}_inv-1_MP2RAGE.nii.gz',
        f'{anat}_mod-T1w_defacemask.nii.gz',
        f'{anat}_angio.nii.gz',
        f'{anat}_T2starw.nii.gz',
        f'{anat}_space-orig_desc-brain_T1w.nii.gz',
        'sub-01/func/sub-01_task-rest_bold.nii.gz',
        'derivatives/other/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz',
        'sourcedata/sub-01/anat/sub-01_T1w.nii.gz',
    )
    inventory = discover(root, Selection())
    found = states(inventory)
    used = {name for name, reason in found.items() if not reason}
    assert used == {
        'sub-01_T1w.nii.gz',
        'sub-01_T2w.nii.gz',
        'sub-01_PDw.nii',
        'sub-01_FLAIR.nii.gz',
        'sub-01_acq-3d_run-01_T1w.nii.gz',
        'sub-01_acq-3d_run-02_T1w.nii.gz',
        'sub-01_rec-norm_T1w.nii.gz',
        'sub-01_echo-1_T1w.nii.gz',
        'sub-01_task-rest_T1w.nii.gz',
        'sub-01_part-mag_T2w.nii.gz',
    }
    assert len(found) == 22
    assert 'not a magnitude' in found['sub-01_part-phase_T2w.nii.gz']
    assert 'field of view' in found['sub-01_chunk-1_T1w.nii.gz']
    assert '--include-contrast-enhanced' in found['sub-01_ce-gad_T1w.nii.gz']
    assert 'other modality: angio' in found['sub-01_angio.nii.gz']
    assert 'UNIT1' in found['sub-01_UNIT1.nii.gz']

    table = inventory.write(tmp_path / 'inputs.tsv').read_text().splitlines()
    assert table[0].split('\t')[:3] == ['path', 'volume', 'contrast']
    assert len(table) == 23
    assert sum('\tuse\t' in line for line in table) == 10


def test_contrast_enhanced_scans_are_taken_when_asked_for(make_dataset):
    root = make_dataset('sub-01/anat/sub-01_ce-gad_T1w.nii.gz')
    with pytest.raises(InputError, match='include-contrast-enhanced'):
        discover(root, Selection())
    scans = discover(root, Selection(include_contrast_enhanced=True)).scans
    assert [scan.name for scan in scans] == ['sub-01_ce-gad_T1w']


def test_a_pdt2_is_two_scans(make_dataset):
    root = make_dataset('sub-01/anat/sub-01_PDT2.nii.gz', 'sub-01/anat/sub-01_acq-tse_PDT2.nii')
    image = nib.Nifti1Image(np.ones((9, 9, 9, 2), np.float32), np.eye(4))
    for path in root.glob('sub-01/anat/*'):
        nib.save(image, path)
    scans = discover(root, Selection()).scans
    assert [(s.name, s.contrast, s.volume) for s in scans] == [
        ('sub-01_acq-PDT2_PDw', 'PDw', 0),
        ('sub-01_acq-PDT2_T2w', 'T2w', 1),
        ('sub-01_acq-tsePDT2_PDw', 'PDw', 0),
        ('sub-01_acq-tsePDT2_T2w', 'T2w', 1),
    ]
    only = discover(root, Selection(modalities=('T2w',)))
    assert {scan.contrast for scan in only.scans} == {'T2w'}
    assert len(only.rows) == 4


def test_4d_and_doubled_files_are_skipped_and_told(make_dataset):
    root = make_dataset(
        'sub-01/anat/sub-01_T1w.nii.gz', 'sub-01/anat/sub-01_T1w.nii', 'sub-01/anat/sub-01_T2w.nii'
    )
    series = nib.Nifti1Image(np.ones((9, 9, 9, 3), np.float32), np.eye(4))
    nib.save(series, root / 'sub-01/anat/sub-01_T2w.nii')
    found = states(discover(root, Selection()))
    assert '4D: 3 volumes' in found['sub-01_T2w.nii']
    # Results of both would have one name.
    assert sorted(map(bool, (found['sub-01_T1w.nii'], found['sub-01_T1w.nii.gz']))) == [False, True]


def test_sessions_and_their_absence(make_dataset):
    root = make_dataset(
        'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz',
        'sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz',
        'sub-02/anat/sub-02_T1w.nii.gz',
    )
    keys = list(discover(root, Selection()).sessions)
    assert keys == [('01', 'a'), ('01', 'b'), ('02', None)]
    inventory = discover(root, Selection(sessions=('b',)))
    # A filter on an entity concerns only the files that have it (BIDS execution specification).
    assert list(inventory.sessions) == [('01', 'b'), ('02', None)]
    with pytest.raises(SelectionError, match=r'--session-label c .* a, b'):
        discover(root, Selection(sessions=('c',)))


def test_only_selected_participants_are_indexed(make_dataset):
    root = make_dataset(*[f'sub-0{n}/anat/sub-0{n}_T1w.nii.gz' for n in range(1, 6)])
    make_dataset('sub-011/anat/sub-011_T1w.nii.gz')
    inventory = discover(root, Selection(participants=('01', '03')))
    assert [scan.subject for scan in inventory.scans] == ['01', '03']
    assert len(inventory.rows) == 2


def test_an_unknown_participant_names_those_that_exist(make_dataset):
    root = make_dataset(*[f'sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz' for n in range(1, 13)])
    with pytest.raises(SelectionError, match='there are 01, 02, .* and 2 more') as caught:
        select_participants(root, ['99'])
    assert caught.value.exit_code == ExitCode.NOTHING_SELECTED == 18


def test_nothing_to_do_says_what_was_found(make_dataset):
    root = make_dataset('sub-01/anat/sub-01_UNIT1.nii.gz', 'sub-01/anat/sub-01_T2starw.nii.gz')
    with pytest.raises(InputError, match='2 images, none of them usable') as caught:
        discover(root, Selection())
    assert caught.value.exit_code == 66
    with pytest.raises(InputError, match='no image in any anat'):
        discover(make_dataset('sub-01/func/sub-01_task-a_bold.nii.gz', name='func'), Selection())
    with pytest.raises(InputError, match='no sub-'):
        discover(make_dataset(name='empty'), Selection())


def test_filters_that_leave_nothing_say_so(make_dataset):
    root = make_dataset('sub-01/anat/sub-01_acq-a_T1w.nii.gz')
    filters = {'T1w': {'acq': ('b',)}}
    with pytest.raises(SelectionError, match='filtered out: acq-a'):
        discover(root, Selection(filters=filters))


def test_a_broken_link_is_told(make_dataset):
    root = make_dataset('sub-01/anat/sub-01_T1w.nii.gz')
    (root / 'sub-01/anat/sub-01_T2w.nii.gz').symlink_to('.git/annex/nowhere')
    found = states(discover(root, Selection()))
    assert 'DataLad' in found['sub-01_T2w.nii.gz']


def test_the_most_specific_site_column_wins(make_dataset):
    files = [f'sub-0{n}/ses-a/anat/sub-0{n}_ses-a_T1w.nii.gz' for n in range(1, 5)]
    root = make_dataset(
        *files,
        'sub-03/ses-a/anat/sub-03_ses-a_T2w.nii.gz',
        **{
            'participants.tsv': 'participant_id\tsite\nsub-01\tp1\nsub-02\tp2\nsub-03\tp3\n',
            'sub-02/sub-02_sessions.tsv': 'session_id\tsite\nses-a\ts2\n',
            'sub-03/sub-03_sessions.tsv': 'session_id\tsite\nses-a\tn/a\n',
            'sub-03/ses-a/sub-03_ses-a_scans.tsv': (
                'filename\tsite\nanat/sub-03_ses-a_T1w.nii.gz\tf3\n'
            ),
            'T1w.json': json.dumps({'Manufacturer': 'Siemens', 'MagneticFieldStrength': 1.5}),
            'sub-04/sub-04_T1w.json': json.dumps({'MagneticFieldStrength': 3}),
        },
    )
    sites = {scan.name: scan.site for scan in discover(root, Selection()).scans}
    assert sites == {
        'sub-01_ses-a_T1w': 'p1',
        'sub-02_ses-a_T1w': 's2',
        'sub-03_ses-a_T1w': 'f3',
        'sub-03_ses-a_T2w': 'p3',
        'sub-04_ses-a_T1w': 'Siemens 3T',
    }


def test_without_tables_and_sidecars_the_site_is_unknown(make_dataset):
    root = make_dataset('sub-01/anat/sub-01_T1w.nii.gz', **{'T1w.json': 'no json'})
    assert discover(root, Selection()).scans[0].site is None
