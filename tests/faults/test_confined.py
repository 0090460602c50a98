"""Where a run writes, what it asks of the network, and what it makes of odd surroundings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

ROOT = Path(__file__).parents[2]
NAMELESS = 54_321
"""An id that no machine has a name for."""


@pytest.fixture
def watched(study, tmp_path):
    """Run, and give each event that is told: ``watched(options, method='none')``."""

    def run(*options, method='none', **request):
        log = tmp_path / 'log'
        fault = request.pop('fault', {}) | {'log': str(log)}
        done = study.run(*options, method=method, fault=fault, **request)
        lines = [line.partition('\t') for line in log.read_text().splitlines()]
        log.unlink()
        return done, [(event, what) for event, _, what in lines]

    return run


def test_nothing_is_written_beside_output_and_scratch(study, watched):
    """Nor into the input, which is read only, nor a home, which there is none."""
    done, events = watched(unset=['HOME'], fault={})
    assert done.code == 0, done.told
    paths = {what for event, what in events if event == 'write'}
    assert len(paths) > 100
    allowed = (str(study.out), str(study.work), '/dev/null')
    # Folders are removed file by file, by names within them.
    outside = {
        path for path in paths if not path.startswith(allowed) and Path(path).parent != Path('/')
    }
    assert not outside


@pytest.mark.parametrize('method', ['none', 'transfer'])
def test_no_network_and_no_code_of_data(study, watched, method):
    """No socket is opened, no program started, nothing unpickled but what Nipype wrote itself."""
    done, events = watched(method=method)
    assert done.code == 0, done.told
    assert not [what for event, what in events if event.startswith('socket.')]
    assert not [what for event, what in events if event in ('os.system', 'os.exec')]
    programs = [what for event, what in events if event == 'subprocess.Popen']
    # Python's own platform module asks this for the name of the processor.
    assert set(programs) <= {"('uname', ['uname', '-p'], None, None)"}
    foreign = ('os.', 'posix.', 'subprocess.', 'builtins.exec', 'builtins.eval', 'torch.')
    found = {what for event, what in events if event == 'pickle.find_class'}
    assert not [name for name in found if name.startswith(foreign)]


def unshare_works():
    if not shutil.which('unshare'):
        return False
    return (
        subprocess.run(['unshare', '-rn', 'true'], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not unshare_works(), reason='unshare -n does not work here')
def test_a_machine_without_network(study, small_environment):
    """The command itself, where there is not even a loopback."""
    command = ['unshare', '-rn', sys.executable, '-m', 'harmony_app', *map(str, study.command())]
    done = subprocess.run(
        command,
        env=os.environ | small_environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert '1 done, 0 failed' in done.stdout


PLACES = {
    'plain letters': {'LC_ALL': 'C', 'LANG': 'C', 'PYTHONUTF8': '0'},
    'western letters': {'LC_ALL': 'en_US.ISO-8859-1', 'PYTHONIOENCODING': 'iso-8859-1'},
    'far east': {'TZ': 'Pacific/Kiritimati'},
    'no such zone': {'TZ': 'Nowhere/Land'},
    'other commas': {'LC_ALL': 'de_DE.UTF-8', 'LC_NUMERIC': 'de_DE.UTF-8'},
}


@pytest.fixture(scope='module')
def usual(new_study, tmp_path_factory):
    """Images of a run in usual surroundings."""
    study = new_study(tmp_path_factory.mktemp('usual'))
    assert study.run().code == 0
    return study.images()


@pytest.mark.parametrize('place', PLACES)
def test_odd_locales_and_clocks(study, usual, place):
    done = study.run(env=PLACES[place])
    assert done.code == 0, done.told
    assert study.images() == usual


LONG_AGO = """
import datetime, time
from harmony_app import app
class Then(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(1970, 1, 1, 0, 0, 1, tzinfo=tz)
time.time = lambda: 12.0
app.datetime = Then
"""


def test_a_clock_that_stands_in_1970(study, usual):
    done = study.run(fault={'patch': LONG_AGO})
    assert done.code == 0, done.told
    assert study.images() == usual
    (run,) = study.out.glob('logs/1970*')
    assert (run / 'outcomes.tsv').is_file()


def test_scans_of_1970_and_of_the_future(study, usual, tmp_path):
    """The times of files are compared, never believed."""
    raw = tmp_path / 'raw'
    shutil.copytree(study.raw, raw)
    image = raw / 'sub-01/anat/sub-01_T1w.nii.gz'
    study.raw = raw
    for when in (0, 2**33):
        os.utime(image, (when, when))
        done = study.run()
        assert done.code == 0, done.told
        assert study.images() == usual


@pytest.mark.parametrize(
    'name', ['with some spaces', 'ünïcödé 日本 🧠', 'quote\'s "and" $HOME `id`', '-x']
)
def test_paths_of_any_letters(new_study, study, tmp_path, usual, name):
    """Of input, output and scratch, all of them."""
    folder = tmp_path / name
    shutil.copytree(study.raw, folder / 'raw')
    odd = new_study(folder, folder / 'raw')
    done = odd.run()
    assert done.code == 0, done.told
    assert odd.images() == usual
    sidecar = json.loads((odd.out / 'sub-01/anat/sub-01_desc-harmonized_T1w.json').read_text())
    assert sidecar['Sources'] == ['bids:raw:sub-01/anat/sub-01_T1w.nii.gz']


def test_a_path_in_another_encoding(new_study, study, tmp_path):
    """What tables cannot name is refused before anything is done."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9'))
    try:
        shutil.copytree(study.raw, folder / 'raw')
    except OSError:
        pytest.skip('this file system takes UTF-8 alone')
    odd = new_study(folder, folder / 'raw')
    refused = odd.run()
    assert refused.code == 64, refused.told
    assert 'the path is not in UTF-8; rename the folder' in refused.told
    assert not odd.out.exists()


def datalad(source, root):
    """The dataset as DataLad has it: each file a link into the annex, which nobody may write to."""
    shutil.copytree(source, root)
    annex = root / '.git/annex/objects/Xx/1'
    annex.mkdir(parents=True)
    for number, path in enumerate(sorted(root.rglob('sub-*/**/*.nii.gz'))):
        key = annex / f'MD5E-s{path.stat().st_size}--{number}.nii.gz'
        path.rename(key)
        key.chmod(0o444)
        path.symlink_to(os.path.relpath(key, path.parent))
    return root


def test_links_of_datalad_and_of_folders(new_study, study, tmp_path, usual):
    """Links to files, and to the dataset, the output and the scratch; results are named after the link."""
    raw = datalad(study.raw, tmp_path / 'real')
    for name in ('raw', 'out', 'work'):
        real = raw if name == 'raw' else tmp_path / f'real_{name}'
        real.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(real)
    linked = new_study(tmp_path, tmp_path / 'raw')
    done = linked.run()
    assert done.code == 0, done.told
    assert linked.images() == usual
    sidecar = json.loads((linked.out / 'sub-01/anat/sub-01_desc-harmonized_T1w.json').read_text())
    assert sidecar['Sources'] == ['bids:raw:sub-01/anat/sub-01_T1w.nii.gz']
    # The dataset by another way is the same dataset: nothing is computed again.
    linked.raw = raw
    assert 'finished before' in linked.run().told


def open_way(folder):
    """Let anybody pass through the folders above."""
    for parent in (folder, *folder.parents):
        if parent.owner() == Path('/proc/self').owner() and not parent.stat().st_mode & 0o001:
            try:
                parent.chmod(parent.stat().st_mode | 0o055)
            except OSError:
                return


@pytest.mark.skipif(os.getuid() != 0, reason='takes another id, which only root can')
def test_input_of_others_without_home_and_name(new_study, study, tmp_path, usual):
    """A read-only dataset, an id that has no name, no home: as in a container on a cluster."""
    raw = tmp_path / 'raw'
    shutil.copytree(study.raw, raw)
    for path in (*raw.rglob('*'), raw):
        path.chmod(0o555 if path.is_dir() else 0o444)
    place = tmp_path / 'mine'
    place.mkdir()
    os.chown(place, NAMELESS, NAMELESS)
    open_way(tmp_path)
    other = new_study(place, raw)
    # The interpreter may lie where only root can look: a run of root loads what is needed.
    warm = new_study(tmp_path / 'warm')
    assert study.zygote.ask(warm=[str(word) for word in warm.command()])['code'] == 0
    for unset, env in ((['HOME', 'USER', 'LOGNAME'], {}), ([], {'HOME': '/nonexistent'})):
        other.clear()
        done = other.run(fault={'user': NAMELESS}, unset=unset, env=env)
        assert done.code == 0, done.told
        assert other.images() == usual
    # Where it may not write, it says so at once.
    other.out = tmp_path / 'theirs'
    refused = other.run(fault={'user': NAMELESS})
    assert refused.code == 73, refused.told
    assert 'output_dir' in refused.told
    for path in (raw, *raw.rglob('*')):
        if path.is_dir():
            path.chmod(0o755)


@pytest.mark.skipif(os.getuid() != 0, reason='gives a folder to another id, which only root can')
def test_scratch_that_another_user_has_laid_out_is_refused(study, tmp_path):
    """The default one has a name that can be guessed, and Nipype runs what lies in it."""
    work = tmp_path / 'tmp' / f'harmony-work-{os.getuid()}'
    work.mkdir(parents=True)
    work.parent.chmod(0o1777)
    fault = {'patch': f'import tempfile; tempfile.tempdir = {str(work.parent)!r}'}
    os.chown(work, NAMELESS, NAMELESS)
    command = [word for word in study.command() if word not in ('-w', study.work)]
    refused = study.zygote.run(*command, fault=fault)
    assert refused.code == 73, refused.told
    assert 'belongs to another user' in refused.told
    work.rmdir()
    done = study.zygote.run(*command, fault=fault)
    assert done.code == 0, done.told
    assert work.stat().st_mode & 0o077 == 0


def test_scans_in_the_results_can_be_read_by_others(study):
    """Temporary files are private; results are as the umask of the user says."""
    assert study.run(fault={'patch': 'import os; os.umask(0o022)'}).code == 0
    for path in study.out.rglob('*'):
        if path.is_file():
            assert path.stat().st_mode & 0o044 == 0o044, path
    assert nib.load(next(study.out.rglob('*desc-harmonized_T1w.nii.gz'))).shape
