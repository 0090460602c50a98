import json

import pytest

from benchmarks.preprocessed import STAMP, Preprocessed
from harmony_app.errors import InputError


@pytest.fixture
def bids(tmp_path):
    """Two people with a scan each that cannot be read."""
    bids = tmp_path / 'bids'
    for subject in ('01', '02'):
        folder = bids / f'sub-{subject}' / 'anat'
        folder.mkdir(parents=True)
        (folder / f'sub-{subject}_T1w.nii').write_bytes(b'no image')
    description = {'Name': 'x', 'BIDSVersion': '1.10.0'}
    (bids / 'dataset_description.json').write_text(json.dumps(description))
    return bids


def test_sessions_are_prepared_in_processes_of_their_own(tmp_path, bids):
    """Here of scans that cannot be read, which is found out in the processes."""
    data = Preprocessed(bids, tmp_path / 'cache', workers=2)
    assert len(data.sessions) == 2
    assert data.inputs == []
    assert len(list((tmp_path / 'cache').glob('*_prepared.npz'))) == 2


@pytest.mark.parametrize('stamp', [None, '{"code": "of yesterday"}'])
def test_what_other_code_has_preprocessed_is_made_anew(tmp_path, bids, stamp):
    cache = tmp_path / 'cache'
    Preprocessed(bids, cache)
    record = cache / 'sub-01_T1w_finished.npz'
    made = record.stat().st_mtime_ns
    Preprocessed(bids, cache)
    assert record.stat().st_mtime_ns == made
    if stamp is None:
        (cache / STAMP).unlink()
    else:
        (cache / STAMP).write_text(stamp)
    with pytest.raises(InputError, match='preprocessed by other code'):
        Preprocessed.of_study(tmp_path)
    assert record.stat().st_mtime_ns == made
    Preprocessed(bids, cache)
    assert record.stat().st_mtime_ns > made
    assert len(Preprocessed.of_study(tmp_path).sessions) == 2


def test_slices_that_are_divided_are_no_others(tmp_path, bids):
    """A change of ``super_resolution`` is one of what made the records."""
    cache = tmp_path / 'cache'
    Preprocessed(bids, cache)
    record = cache / 'sub-01_T1w_prepared.npz'
    made = record.stat().st_mtime_ns
    Preprocessed(bids, cache, super_resolution='auto')
    assert record.stat().st_mtime_ns > made
    with pytest.raises(InputError, match='preprocessed by other code'):
        Preprocessed.of_study(tmp_path)


def test_a_study_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match='run benchmarks.travelling first'):
        Preprocessed.of_study(tmp_path)
