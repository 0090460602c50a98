import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from harmony_app.bids.publish import (
    is_finished,
    marker_path,
    publish,
    read_marker,
    staging,
    write_marker,
)

SCAN = 'sub-01/anat/sub-01_desc-harmonized_T1w.nii.gz'


def put(folder, name, text='new'):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_marker(files, status='done', digest='d'):
    state = {'status': status, 'message': '', 'exit_code': 0, 'files': files}
    return {'digest': digest, 'run': 'r', 'scans': {'sub-01_T1w': state}, 'files': []}


def test_a_session_appears_whole_and_leaves_no_scratch(tmp_path):
    with staging(tmp_path, 'sub-01') as folder:
        put(folder, SCAN)
        put(folder, 'sub-01/figures/sub-01_T1w.png')
        assert not (tmp_path / 'sub-01').exists()
        publish(tmp_path, folder)
    assert (tmp_path / SCAN).read_text() == 'new'
    assert (tmp_path / 'sub-01/figures/sub-01_T1w.png').exists()
    assert not (tmp_path / 'logs' / '.staging').exists()


def test_what_fails_halfway_is_not_seen(tmp_path):
    def write_half():
        with staging(tmp_path, 'sub-01') as folder:
            put(folder, SCAN)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert not (tmp_path / 'sub-01').exists()


def test_a_second_run_replaces_files_and_removes_stale_ones(tmp_path):
    other = 'sub-01/anat/sub-01_desc-decoder_T1w.nii.gz'
    for name in (SCAN, other, 'sub-01/anat/mine.txt'):
        put(tmp_path, name, 'old')
    write_marker(tmp_path, 'sub-01', make_marker([SCAN, other]))
    with staging(tmp_path, 'sub-01') as folder:
        put(folder, SCAN)
        publish(tmp_path, folder)
        write_marker(tmp_path, 'sub-01', make_marker([SCAN]))
    assert (tmp_path / SCAN).read_text() == 'new'
    assert not (tmp_path / other).exists()
    # What we did not make is not ours to remove.
    assert (tmp_path / 'sub-01/anat/mine.txt').exists()


def test_what_was_made_of_all_scans_goes_with_them(tmp_path):
    imputed = 'sub-01/anat/sub-01_desc-imputed_T2w.nii.gz'
    put(tmp_path, imputed, 'old')
    write_marker(tmp_path, 'sub-01', make_marker([SCAN]) | {'files': [imputed]})
    others = make_marker([SCAN])
    others['scans'] = {'sub-01_FLAIR': others['scans'].pop('sub-01_T1w')}
    write_marker(tmp_path, 'sub-01', others | {'files': [imputed]})
    write_marker(tmp_path, 'sub-01', make_marker([SCAN]))
    assert (tmp_path / imputed).exists(), 'the scan that it was made of was not asked for'
    write_marker(tmp_path, 'sub-01', make_marker([SCAN]) | {'files': [imputed]})
    write_marker(tmp_path, 'sub-01', make_marker([SCAN]))
    assert not (tmp_path / imputed).exists()


def test_a_marker_never_removes_what_lies_outside_the_results(tmp_path):
    outside = tmp_path / 'precious'
    outside.touch()
    root = tmp_path / 'out'
    write_marker(root, 'sub-01', make_marker(['../precious']))
    write_marker(root, 'sub-01', make_marker([]))
    assert outside.exists()


@pytest.mark.parametrize(
    'status, digest, remove, finished',
    [
        ('done', 'd', False, True),
        ('skipped', 'd', False, True),
        ('failed', 'd', False, False),
        ('done', 'other', False, False),
        ('done', 'd', True, False),
    ],
)
def test_a_session_is_finished_when_whole_and_of_these_settings(
    tmp_path, status, digest, remove, finished
):
    put(tmp_path, SCAN)
    write_marker(tmp_path, 'sub-01', make_marker([SCAN], status))
    if remove:
        (tmp_path / SCAN).unlink()
    assert is_finished(tmp_path, 'sub-01', digest) is finished


def test_a_marker_that_cannot_be_read_counts_for_nothing(tmp_path):
    assert read_marker(tmp_path, 'sub-01') is None
    marker_path(tmp_path, 'sub-01').parent.mkdir(parents=True)
    marker_path(tmp_path, 'sub-01').write_text('{')
    assert not is_finished(tmp_path, 'sub-01', 'd')


def test_sessions_that_end_at_once_do_not_take_the_folder_from_each_other(tmp_path):
    """One removes the empty parent between two steps in which another makes or reads it."""

    def stage(number):
        for _ in range(400):
            with staging(tmp_path, f'sub-{number}') as folder:
                (folder / 'file').touch()

    before = sys.getswitchinterval()
    # threads take turns within such steps, not once in thousands of them
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(stage, range(6)))
    finally:
        sys.setswitchinterval(before)
    assert not (tmp_path / 'logs' / '.staging').exists()
