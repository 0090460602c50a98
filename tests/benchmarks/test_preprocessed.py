import json

from benchmarks.preprocessed import Preprocessed


def test_sessions_are_prepared_in_processes_of_their_own(tmp_path):
    """Here of scans that cannot be read, which is found out in the processes."""
    bids = tmp_path / 'bids'
    for subject in ('01', '02'):
        folder = bids / f'sub-{subject}' / 'anat'
        folder.mkdir(parents=True)
        (folder / f'sub-{subject}_T1w.nii').write_bytes(b'no image')
    description = {'Name': 'x', 'BIDSVersion': '1.10.0'}
    (bids / 'dataset_description.json').write_text(json.dumps(description))
    data = Preprocessed(bids, tmp_path / 'cache', workers=2)
    assert len(data.sessions) == 2
    assert data.inputs == []
    assert len(list((tmp_path / 'cache').glob('*_prepared.npz'))) == 2
