"""Runs that are killed at any moment: nothing half-written is seen, and a restart gives the same voxels."""

import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time

import nibabel as nib
import numpy as np
import pytest

from harmony_app.bids import atomic
from harmony_app.bids.atomic import read_table
from harmony_app.bids.publish import is_finished
from harmony_app.errors import OutputError
from harmony_app.imaging import io
from harmony_app.imaging.volume import Volume
from harmony_app.methods import model_folder
from harmony_app.workflows import records

CUBE = np.ones((8, 8, 8), np.float32)

KILLS = [pytest.param(n, marks=() if n in (7, 17) else pytest.mark.faults) for n in range(20)]
"""Parts of a run at which it is killed: twenty, of which the quick suite takes two."""


def check_whole(root):
    """What stands under its final name can be read to its end."""
    for path in root.rglob('*'):
        if not path.is_file() or path.name.startswith('.') or '.staging' in path.parts:
            continue
        if path.name.endswith('.nii.gz'):
            gzip.decompress(path.read_bytes())
            nib.load(path).get_fdata()
        elif path.suffix == '.json':
            json.loads(path.read_text())
        elif path.suffix == '.tsv':
            rows = path.read_text().splitlines()
            assert len({row.count('\t') for row in rows}) == 1, path
            assert read_table(path) is not None
        elif path.suffix == '.html':
            assert path.read_text().rstrip().endswith('</html>'), path
        elif path.suffix == '.png':
            assert path.read_bytes().endswith(b'IEND\xaeB`\x82'), path
        elif path.suffix != '.toml':
            assert path.stat().st_size > 0, path


def left_behind(study):
    """Files that have no business in finished results."""
    return [
        path
        for path in study.out.rglob('*')
        if path.name.endswith('.lock') or '.staging' in path.parts
    ]


@pytest.fixture(scope='module')
def whole(new_study, tmp_path_factory):
    """A run that nothing happened to, with the number of its writes and its time."""
    study = new_study(tmp_path_factory.mktemp('whole'))
    log = study.folder / 'log'
    begun = time.monotonic()
    done = study.run(fault={'log': str(log), 'below': str(study.folder)})
    assert done.code == 0, done.told
    study.seconds = time.monotonic() - begun
    study.writes = [line.partition('\t')[2] for line in log.read_text().splitlines()]
    study.writes = [path for path in study.writes if path.startswith(str(study.folder))]
    return study


def finish(study, whole):
    """Run again, to the same voxels."""
    done = study.run()
    assert done.code == 0, done.told
    assert study.images() == whole.images()
    assert is_finished(study.out, 'sub-01', None)
    check_whole(study.out)
    # Of a run that was killed after all was in place, an empty lock may stay: nobody takes it again.
    assert not left_behind(study) or 'were done before' in done.told


@pytest.mark.parametrize('part', KILLS)
def test_killed_between_two_writes(study, whole, part):
    at = 1 + round((len(whole.writes) - 1) * (part + 0.5) / 20)
    killed = study.run(fault={'kill_at': at, 'below': str(study.folder)})
    assert killed.code == -signal.SIGKILL
    check_whole(study.out)
    finish(study, whole)


@pytest.mark.faults
def test_killed_between_any_two_writes_of_results(study, whole):
    """Every write below the results, one after the other, on what the kills before have left."""
    count = sum(path.startswith(str(whole.out)) for path in whole.writes)
    assert count > 100
    for at in range(1, count + 1):
        shutil.rmtree(study.out, ignore_errors=True)
        killed = study.run(fault={'kill_at': at, 'below': str(study.out)})
        assert killed.code == -signal.SIGKILL, (at, killed.told)
        check_whole(study.out)
        if at % 20 == 0:
            finish(study, whole)
    finish(study, whole)


@pytest.mark.faults
def test_killed_at_twenty_random_moments(study, whole):
    import random

    moments = random.Random(0)
    for _ in range(20):
        study.clear()
        running = study.start()
        time.sleep(moments.uniform(0.1, 1) * whole.seconds)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        check_whole(study.out)
        finish(study, whole)


def test_results_of_other_settings_that_were_half_replaced_are_not_taken_for_whole(
    study, whole, new_study
):
    """Finished, replaced by another method, and killed in the middle of that: the first ones again."""
    finish(study, whole)
    log = study.folder / 'log'
    other = new_study(study.folder / 'other')
    shutil.copytree(study.out, other.out)
    fault = {'log': str(log), 'below': str(other.out)}
    assert other.run(method='nyul', fault=fault).code == 0
    paths = [line.partition('\t')[2] for line in log.read_text().splitlines()]
    paths = [path for path in paths if path.startswith(str(other.out))]
    final = re.compile(rf'{re.escape(str(other.out))}/sub-01/(anat|figures)/sub-01_[^/]*')
    placed = [number for number, path in enumerate(paths, 1) if final.fullmatch(path)]
    # nyul says something of the scan that none does not: files come and go
    assert len(placed) > 10
    for at in (placed[len(placed) // 2], placed[-1]):
        killed = study.run(method='nyul', fault={'kill_at': at, 'below': str(study.out)})
        assert killed.code == -signal.SIGKILL
        assert not is_finished(study.out, 'sub-01', None)
        check_whole(study.out)
        finish(study, whole)
        assert sorted(p.name for p in (study.out / 'sub-01').rglob('*')) == sorted(
            p.name for p in (whole.out / 'sub-01').rglob('*')
        )


@pytest.mark.parametrize(
    'name, code, part',
    [
        pytest.param('SIGTERM', 143, 0.75),
        pytest.param('SIGINT', 130, 0.3),
        pytest.param('SIGTERM', 143, 0.3, marks=pytest.mark.faults),
        pytest.param('SIGINT', 130, 0.75, marks=pytest.mark.faults),
    ],
)
def test_asked_to_end(study, whole, name, code, part):
    """In the middle of the first steps, and of the writing of results."""
    at = round(len(whole.writes) * part)
    fault = {'kill_at': at, 'below': str(study.folder), 'signal': name}
    ended = study.run(fault=fault)
    assert ended.code == code
    assert 'the same command continues the run' in ended.told
    assert 'Traceback' not in ended.told
    check_whole(study.out)
    assert not left_behind(study)
    finish(study, whole)


def test_two_runs_of_one_command_at_once(study, whole):
    """The second is told to wait; the first is not disturbed."""
    first = study.start()
    until = time.monotonic() + 60
    while not list(study.work.glob('.*.lock')) and time.monotonic() < until:
        time.sleep(0.01)
    second = study.run()
    assert second.code == 75
    assert 'another run works on this dataset' in second.told
    assert '--work-dir' in second.told
    assert first.wait().code == 0, first.told
    finish(study, whole)
    assert not list(study.work.glob('.*.lock'))


def test_two_runs_with_their_own_scratch_into_one_output(study, whole, new_study):
    """Both write all results of one session: those of the last stand, and none of the other."""
    other = new_study(study.folder)
    other.work = study.folder / 'other'
    runs = [study.start(), other.start(method='nyul')]
    assert [run.wait().code for run in runs] == [0, 0], [run.told for run in runs]
    check_whole(study.out)
    assert not left_behind(study)
    marker = json.loads((study.out / 'logs/sessions/sub-01.json').read_text())
    methods = {
        json.loads(path.read_text())['HarmonizationMethod']
        for path in (study.out / 'sub-01/anat').glob('*desc-harmonized_T1w.json')
    }
    assert len(methods) == 1
    named = {*marker['files'], *marker['scans']['sub-01_T1w']['files']}
    found = {
        p.relative_to(study.out).as_posix()
        for p in (study.out / 'sub-01').rglob('*')
        if p.is_file()
    }
    assert named == found


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of some megabytes: ``small_disk('out', '4m')``."""
    mounted = []

    def mount(name, size):
        folder = tmp_path / name
        folder.mkdir()
        command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError:
            pytest.skip('there is no mount command')
        if done.returncode:
            pytest.skip('a small disk cannot be mounted here (that needs root)')
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(['umount', '-l', str(folder)], check=False)


@pytest.mark.parametrize(
    'name, size',
    [
        pytest.param('out', '700k'),
        pytest.param('work', '100k'),
        pytest.param('out', '100k', marks=pytest.mark.faults),
        pytest.param('work', '700k', marks=pytest.mark.faults),
    ],
)
def test_a_full_disk(study, whole, small_disk, name, size):
    """A message that says so; with room, the run is ended where it stopped."""
    disk = small_disk(name, size)
    done = study.run()
    assert done.code in (1, 73, 74), done.told
    assert 'Traceback' not in done.told
    assert re.search('disk (of .* )?is full|is the disk full|No space left', done.told), done.told
    check_whole(study.out)
    subprocess.run(['mount', '-o', 'remount,size=100m', str(disk)], check=True)
    finish(study, whole)


WRITERS = {
    'text': ('a.txt', lambda path: atomic.write_text(path, 'new')),
    'image': ('a.nii.gz', lambda path: io.write_volume(path, Volume(CUBE, np.eye(4)))),
    'weights': ('a.bin', lambda path: model_folder.write_atomically(path, b'new')),
    'record': ('a.zip', lambda path: records.write_record(path, {}, {'cube': CUBE})),
}
"""What writes results and scratch."""


@pytest.mark.parametrize('writer', WRITERS)
def test_a_file_goes_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch, writer):
    name, write = WRITERS[writer]
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda n: steps.append('fsync') or fsync(n))
    monkeypatch.setattr(os, 'replace', lambda a, b: steps.append('replace') or replace(a, b))
    write(tmp_path / name)
    assert steps == ['fsync', 'replace']
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('writer', WRITERS)
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, writer):
    name, write = WRITERS[writer]
    (tmp_path / name).write_text('old')

    def fail(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises((OSError, OutputError), match='No space left'):
        write(tmp_path / name)
    assert (tmp_path / name).read_text() == 'old'
    assert [path.name for path in tmp_path.iterdir()] == [name]
