"""Jobs of a cluster, with commands that answer as SLURM's do. tests/hpc has a real one."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from nipype.interfaces import utility as niu
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits
from nipype.pipeline import engine as pe

from harmony_app.workflows.slurm import Slurm

SBATCH = """#!/bin/sh
echo "$@" >>"$FAKE/sent"
number=$(grep -c '' "$FAKE/sent")
state=$(sed -n "${number}p" "$FAKE/plan" 2>/dev/null)
for script; do :; done
case $state in
REFUSED) echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1 ;;
SILENT) echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1 ;;
'') sh "$script" >"$(dirname "$script")/slurm-$number.out" 2>&1 ;;
*) echo 'slurmstepd: error: killed' >"$(dirname "$script")/slurm-$number.out" ;;
esac
echo "$number ${state:-COMPLETED}" >>"$FAKE/states"
echo "$number"
"""

SQUEUE = """#!/bin/sh
echo "$@" >>"$FAKE/asked"
if [ "$(grep -c '' "$FAKE/asked")" = 1 ] && [ -e "$FAKE/busy" ]; then
    echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2
    exit 1
fi
cat "$FAKE/states"
"""

SCANCEL = '#!/bin/sh\necho "$@" >>"$FAKE/cancelled"\n'


def answer():
    return 42


def take(item):
    return item


def run_here(node, updatehash=False, store_exception=True):
    """Instead of Nipype's script, which imports for seconds: its result is made here, and the
    job puts it in its place."""
    node.run(updatehash)
    result = Path(node.output_dir()) / f'result_{node.name}.pklz'
    made = result.rename(result.with_suffix('.made'))
    script = Path(node.base_dir) / f'pyscript_{node.name}.py'
    script.write_text(f'import os\nos.rename({str(made)!r}, {str(result)!r})\n')
    return str(script)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Folder of the commands: ``plan`` says how the jobs end, one in a line, empty for well."""
    folder = tmp_path / 'cluster'
    folder.mkdir()
    for name, text in (('sbatch', SBATCH), ('squeue', SQUEUE), ('scancel', SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv('FAKE', str(folder))
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setattr('nipype.pipeline.plugins.base.create_pyscript', run_here)
    return folder


@pytest.fixture
def run(tmp_path, cluster):
    """Run two nodes that know nothing of each other, and one after the first; give its folder."""

    def run_(plan='', **args):
        (cluster / 'plan').write_text(plan)
        workflow = pe.Workflow('wf', base_dir=str(tmp_path))
        workflow.config['execution'] = {
            'crashdump_dir': str(tmp_path),
            'crashfile_format': 'txt',
            'stop_on_first_crash': 'false',
            'poll_sleep_duration': '0.05',
        }
        first = pe.Node(niu.Function(function=answer, output_names=['out']), name='first')
        after = pe.Node(niu.Function(function=take, output_names=['out']), name='then')
        apart = pe.Node(niu.Function(function=answer, output_names=['out']), name='zz_apart')
        workflow.connect(first, 'out', after, 'item')
        workflow.add_nodes([apart])
        settings = {'poll_seconds': 0.1, 'result_seconds': 0.2, 'max_jobs': 1}
        workflow.run(plugin=Slurm(settings | args))
        return tmp_path / 'wf'

    return run_


def has_result(folder, node):
    return (folder / node / f'result_{node}.pklz').exists()


def crash(folder):
    """Text of the one crash file."""
    [file] = folder.glob('crash-*.txt')
    return file.read_text()


def test_every_node_is_a_job(run, cluster):
    folder = run(sbatch_args='--partition=long --mem=9G')
    assert all(has_result(folder, name) for name in ('first', 'then', 'zz_apart'))
    sent = (cluster / 'sent').read_text().splitlines()
    assert len(sent) == 3
    assert all('--partition=long --mem=9G --cpus-per-task=1' in line for line in sent)
    assert '--job-name=wf.first' in sent[0]


def test_a_killed_job_is_sent_again(run, cluster):
    folder = run('NODE_FAIL\n')
    assert has_result(folder, 'then')
    assert len((cluster / 'sent').read_text().splitlines()) == 4


def test_a_job_that_is_killed_again_costs_what_depends_on_it(run, cluster, tmp_path):
    with pytest.raises(RuntimeError, match='wf.first'):
        run('FAILED\nFAILED\n')
    assert has_result(tmp_path / 'wf', 'zz_apart')
    assert not has_result(tmp_path / 'wf', 'then')
    text = crash(tmp_path)
    assert '(FAILED), 2 times sent: it was killed, perhaps for memory' in text
    assert 'slurmstepd: error: killed' in text


@pytest.mark.parametrize(
    'state, advice', [('CANCELLED', 'the same command'), ('TIMEOUT', '--time')]
)
def test_what_sending_again_does_not_mend_is_told(run, cluster, tmp_path, state, advice):
    with pytest.raises(RuntimeError, match=state):
        run(f'{state}\n')
    assert has_result(tmp_path / 'wf', 'zz_apart')
    assert len((cluster / 'sent').read_text().splitlines()) == 2
    assert advice in crash(tmp_path)


def test_memory_that_was_short_is_doubled(run, cluster):
    run('OUT_OF_MEMORY\n')
    sent = (cluster / 'sent').read_text().splitlines()
    assert '--mem=205M' in sent[0]
    assert '--mem=410M' in sent[1]
    assert '--mem=205M' in sent[2]


def test_memory_that_the_user_gave_is_not_doubled(run, cluster, tmp_path):
    with pytest.raises(RuntimeError, match='OUT_OF_MEMORY'):
        run('OUT_OF_MEMORY\n', sbatch_args='--mem=9G')
    assert len((cluster / 'sent').read_text().splitlines()) == 2
    assert '--mem' in crash(tmp_path)


def test_a_job_that_is_refused_costs_its_node(run, tmp_path):
    with pytest.raises(RuntimeError, match='invalid partition'):
        run('REFUSED\n')
    assert has_result(tmp_path / 'wf', 'zz_apart')
    assert 'did not take the job' in crash(tmp_path)


def test_a_controller_that_does_not_answer_is_waited_for(run, cluster):
    (cluster / 'busy').touch()
    folder = run('SILENT\n')
    assert has_result(folder, 'then')
    assert len((cluster / 'asked').read_text().splitlines()) > 1


def test_one_that_never_answers_is_not_waited_for_forever(run, tmp_path):
    with pytest.raises(RuntimeError, match='Unable to contact'):
        run('SILENT\n' * 5, submit_seconds=0.2)
    assert has_result(tmp_path / 'wf', 'zz_apart')


def test_a_result_of_an_earlier_run_is_not_taken(cluster, tmp_path):
    """A job that never began leaves the folder of its node as it was."""
    (cluster / 'plan').write_text('CANCELLED\n')
    node = pe.Node(niu.Function(function=answer, output_names=['out']), name='first')
    node.base_dir = str(tmp_path)
    old = Path(node.output_dir()) / 'result_first.pklz'
    old.parent.mkdir()
    old.touch()
    plugin = Slurm({'poll_seconds': 0})
    handle = plugin._submit_batchtask(str(tmp_path / 'script.sh'), node)
    assert 'CANCELLED' in plugin._get_result(handle)['traceback'][0]
    assert not old.exists()


def test_jobs_are_asked_for_together_and_seldom(run, cluster):
    started = time.monotonic()
    run(max_jobs=2, poll_seconds=0.4)
    asked = (cluster / 'asked').read_text().splitlines()
    assert '--jobs=1,2' in asked[0]
    assert len(asked) <= (time.monotonic() - started) / 0.4 + 1


def test_a_run_that_is_told_to_end_cancels_its_jobs(run, cluster):
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run('RUNNING\nRUNNING\n', max_jobs=2)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (cluster / 'cancelled').read_text().split() == ['1', '2']


class _AcceleratorSpec(BaseInterfaceInputSpec):
    use_gpu = traits.Bool(True, usedefault=True)


class _Accelerated(SimpleInterface):
    input_spec = _AcceleratorSpec
    output_spec = TraitedSpec


def test_a_job_asks_for_what_its_node_needs():
    node = pe.Node(_Accelerated(), name='node', mem_gb=1.5, n_procs=4)
    assert Slurm().resources(node) == ['--mem=1536M', '--cpus-per-task=4', '--gres=gpu:1']
    assert Slurm().resources(node, 2)[0] == '--mem=6144M'
    given = Slurm({'sbatch_args': '--mem-per-cpu 4G -c 2 --gpus=1'})
    assert given.resources(node) == []
    chosen = Slurm({'gpu_sbatch_args': '-p gpu --gpus=a100:1'})
    assert chosen.resources(node)[2:] == ['-p', 'gpu', '--gpus=a100:1']
