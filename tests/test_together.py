"""Several runs at once into one output, as the jobs of an array on a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harmony_app.bids.atomic import read_table

ROOT = Path(__file__).parents[1]
PEOPLE = ('01', '02', '03', '04')


def start(study, *arguments):
    command = [sys.executable, '-m', 'harmony_app', study / 'bids', study / 'out', *arguments]
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env=os.environ
        | {
            'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests' / 'known_registration')]),
            'OMP_NUM_THREADS': '1',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(processes):
    """Wait for processes; every one of them has to end well."""
    try:
        for process in processes:
            told, _ = process.communicate(timeout=600)
            assert process.returncode == 0, told
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope='module')
def study(tmp_path_factory, make_study):
    """Four participants at once, and after them the group level twice at once."""
    folder = tmp_path_factory.mktemp('together')
    common = [*make_study(folder, len(PEOPLE)), '--nprocs', 1, '-w', folder / 'work']
    end([start(folder, 'participant', '--participant-label', p, *common) for p in PEOPLE])
    end([start(folder, 'group') for _ in range(2)])
    return folder


def test_every_result_is_there(study):
    for person in PEOPLE:
        anat = study / 'out' / f'sub-{person}' / 'anat'
        assert (anat / f'sub-{person}_desc-harmonized_T1w.nii.gz').stat().st_size > 10_000
        marker = json.loads((study / f'out/logs/sessions/sub-{person}.json').read_text())
        assert marker['scans'][f'sub-{person}_T1w']['status'] == 'done'
        for name in marker['scans'][f'sub-{person}_T1w']['files'] + marker['files']:
            assert (study / 'out' / name).is_file(), name


def test_shared_files_are_whole(study):
    out = study / 'out'
    assert json.loads((out / 'dataset_description.json').read_text())['DatasetType'] == 'derivative'
    assert len(read_table(out / 'descriptions.tsv')) > 5
    for path in out.rglob('*.json'):
        assert json.loads(path.read_text()) is not None
    assert len(list(out.glob('logs/*/harmony_app.toml'))) == len(PEOPLE)
    for path in out.glob('logs/*/inputs.tsv'):
        assert [row['status'] for row in read_table(path)].count('use') == 1


def test_no_row_of_the_group_is_lost(study):
    out = study / 'out'
    rows = read_table(out / 'group_T1w.tsv')
    assert [row['scan'] for row in rows] == [f'sub-{person}_T1w' for person in PEOPLE]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert read_table(out / 'group_summary.tsv')[0]['scans'] == str(len(PEOPLE))


def test_nothing_half_written_stays(study):
    left = [
        path for path in (study / 'out').rglob('*') if path.name.startswith(('.tmp-', '.probe'))
    ]
    assert not left
    assert not (study / 'out' / 'logs' / '.staging').exists()
