"""Workers that are killed, hang, or run out of memory; a parent that is killed; a GPU that is full."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nipype.interfaces.utility as niu
import nipype.pipeline.engine as pe
import pytest

from harmony_app.workflows.plugin import OneByOne, PatientMultiProc

ROOT = Path(__file__).parents[2]
ARGS = {'memory_gb': 4, 'mp_context': 'spawn', 'raise_insufficient': False}


def answer():
    import time

    time.sleep(1.5)
    return 42


def die(folder):
    """Note each try, wait until the others are on their way, and be killed."""
    import os
    import signal
    import time
    import uuid
    from pathlib import Path

    (Path(folder) / uuid.uuid4().hex).touch()
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    import ctypes

    # In C, with no look at signals of Python.
    ctypes.CDLL(None).pause()


def hoard():
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    return len(bytearray(2**31))


def workflow_of(folder, **functions):
    """A workflow whose nodes do not depend on each other."""
    workflow = pe.Workflow('workers_wf', base_dir=str(folder / 'scratch'))
    crashes = folder / 'crashes'
    crashes.mkdir()
    workflow.config['execution'] = {
        'crashdump_dir': str(crashes),
        'crashfile_format': 'txt',
        'poll_sleep_duration': '0.1',
        'stop_on_first_crash': 'false',
    }
    for name, (function, inputs) in functions.items():
        node = pe.Node(niu.Function(function=function, output_names=['out']), name=name)
        node.inputs.trait_set(**inputs)
        workflow.add_nodes([node])
    return workflow, crashes


def ended(folder):
    return {path.parent.name for path in (folder / 'scratch').rglob('result_*.pklz')}


def test_a_killed_worker_costs_nothing_that_ran_beside_it(tmp_path):
    """It is run once more and alone, and given up; the others give their results."""
    tries = tmp_path / 'tries'
    tries.mkdir()
    workflow, crashes = workflow_of(
        tmp_path, killed=(die, {'folder': str(tries)}), first=(answer, {}), second=(answer, {})
    )
    with pytest.raises(Exception, match='the worker of this step was killed'):
        workflow.run(plugin=PatientMultiProc(plugin_args=ARGS | {'n_procs': 3}))
    assert ended(tmp_path) == {'first', 'second'}
    assert len(list(tries.iterdir())) == 2
    assert len(list(crashes.glob('crash-*'))) == 1


def test_a_hanging_worker_is_stopped(tmp_path):
    workflow, crashes = workflow_of(tmp_path, hanging=(hang, {}), first=(answer, {}))
    begun = time.monotonic()
    args = ARGS | {'n_procs': 2, 'step_timeout': 0.15}
    with pytest.raises(Exception, match='did not end within 0.15 minutes'):
        workflow.run(plugin=PatientMultiProc(plugin_args=args))
    assert 9 <= time.monotonic() - begun < 50
    assert ended(tmp_path) == {'first'}
    assert '--step-timeout' in next(crashes.glob('crash-*')).read_text()


def doze():
    import time

    time.sleep(60)


def test_without_workers_a_step_is_stopped_too(tmp_path):
    workflow, _ = workflow_of(tmp_path, hanging=(doze, {}), first=(answer, {}))
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Exception, match='did not end within 0.02 minutes'):
        workflow.run(plugin=OneByOne({'step_timeout': 0.02}))
    assert ended(tmp_path) >= {'first'}
    assert signal.getsignal(signal.SIGALRM) is before


def test_memory_that_runs_out_costs_one_step(tmp_path):
    workflow, crashes = workflow_of(tmp_path, hoarding=(hoard, {}), first=(answer, {}))
    args = ARGS | {'n_procs': 1, 'low_mem': True}
    with pytest.raises(Exception, match='MemoryError'):
        workflow.run(plugin=PatientMultiProc(plugin_args=args))
    assert 'first' in ended(tmp_path)
    assert len(list(crashes.glob('crash-*'))) == 1


HANG = """
from harmony_app.workflows import steps
prepare = steps.prepare_scan
def hang(out, path, name, *rest, **more):
    import time
    if name.startswith('sub-01'):
        time.sleep(60)
    return prepare(out, path, name, *rest, **more)
steps.prepare_scan = hang
"""

HOARD = """
from harmony_app.workflows import steps
prepare = steps.prepare_scan
def hoard(out, path, name, *rest, **more):
    if name.startswith('sub-01'):
        bytearray(2**40)
    return prepare(out, path, name, *rest, **more)
steps.prepare_scan = hoard
"""


@pytest.fixture(scope='module')
def two_people(make_small_study, tmp_path_factory):
    return make_small_study(tmp_path_factory.mktemp('two') / 'raw', people=2)


def test_a_step_that_hangs_is_stopped_and_the_others_go_on(new_study, two_people, tmp_path):
    study = new_study(tmp_path, two_people)
    done = study.run('--step-timeout', 0.05, fault={'patch': HANG})
    assert done.code == 1, done.told
    assert 'did not end within --step-timeout and was stopped' in done.told
    assert '1 done, 1 failed, 0 skipped' in done.told
    assert study.run('--step-timeout', 0).code == 0


def test_memory_that_runs_out_is_told_and_the_others_go_on(new_study, two_people, tmp_path):
    study = new_study(tmp_path, two_people)
    done = study.run(fault={'patch': HOARD})
    assert done.code == 1, done.told
    assert 'failed sub-01_T1w: sub-01 stopped; see ' in done.told
    assert 'memory ran out: give it more' in done.told
    assert '1 done, 1 failed, 0 skipped' in done.told
    # Where it is all that happened, the code says that another try may do.
    alone = study.run('--participant-label', '01', fault={'patch': HOARD})
    assert alone.code == 75, alone.told


REFUSE = """
from harmony_app.errors import OutputError
from harmony_app.workflows import steps
def refuse(*_, **__):
    raise OutputError('cannot write /x: Permission denied; choose another folder')
steps.align_session = refuse
"""


def test_an_error_that_says_what_to_do_is_told_and_not_only_in_a_crash_file(study):
    done = study.run(fault={'patch': REFUSE})
    assert 'cannot write /x: Permission denied; choose another folder' in done.told
    assert done.code == 73, done.told


def processes_below(parent):
    """Processes that have another among their ancestors, by number."""
    parents = {}
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / 'stat').read_text().rpartition(')')[2].split()
            except OSError:
                continue
            if fields[0] != 'Z':
                parents[int(entry.name)] = int(fields[1])
    found = {parent}
    for _ in parents:
        found |= {number for number, above in parents.items() if above in found}
    return found - {parent}


@pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='reads /proc')
@pytest.mark.parametrize(
    'number, code',
    [
        pytest.param(signal.SIGKILL, -9),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.faults),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.faults),
    ],
)
def test_workers_end_with_their_parent(study, small_environment, number, code):
    """Whatever they do: one that lived on would write into the folder that the next run uses."""
    command = study.command()
    command[command.index('--nprocs') + 1] = 2
    process = subprocess.Popen(
        [sys.executable, '-m', 'harmony_app', *map(str, command)],
        env=os.environ | small_environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and not list(study.work.rglob('_node.pklz')):
        time.sleep(0.05)
    below = processes_below(process.pid)
    assert len(below) >= 1
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert 'Traceback' not in told
    until = time.monotonic() + 30
    while time.monotonic() < until and any(os.path.exists(f'/proc/{n}') for n in below):
        time.sleep(0.1)
    assert not [n for n in below if os.path.exists(f'/proc/{n}')]
    again = study.run()
    assert again.code == 0, again.told
