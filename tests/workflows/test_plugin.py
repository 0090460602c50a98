import gc
import os

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from harmony_app.errors import OptionError
from harmony_app.workflows.checks import CLUSTER_PLUGINS, LOCAL_PLUGINS, check_device
from harmony_app.workflows.plugin import OneByOne, PatientMultiProc, make_plugin
from harmony_app.workflows.slurm import Slurm


def test_one_process_needs_no_pool():
    plugin, _ = make_plugin(1)
    assert isinstance(plugin, OneByOne)


def test_memory_and_accelerators_are_limited():
    _, args = make_plugin(2, 3.5, nodes_use_gpu=True)
    assert args['memory_gb'] == 3.5
    assert args['n_gpu_procs'] == 1
    # A fork would take over the locks of ITK and cannot use CUDA.
    assert args['mp_context'] == 'spawn'


def test_a_plugin_file_decides_alone(tmp_path):
    path = tmp_path / 'plugin.yml'
    path.write_text('plugin: SGE\nplugin_args: {qsub_args: "-q long"}\n')
    assert make_plugin(4, 8, path) == ('SGE', {'qsub_args': '-q long'})
    # What is written is told, and cleared away, as on one machine.
    assert make_plugin(4, 8, path, progress=print)[1]['status_callback'] is print


@pytest.mark.parametrize(
    'text, told',
    [
        ('plugin_args: {}', 'names no plugin'),
        ('[', 'is not YAML'),
        ('- a', 'names no plugin'),
        ('plugin: Slurm', 'Slurm is none of'),
        ('plugin: SGE\nplugin_args: -q long', 'no mapping'),
        # It returns before anything has run.
        ('plugin: SLURMGraph', 'SLURMGraph is none of'),
    ],
)
def test_a_plugin_file_that_cannot_be_used_is_refused(tmp_path, text, told):
    path = tmp_path / 'plugin.yml'
    path.write_text(text)
    with pytest.raises(OptionError, match=f'--use-plugin .*{told}'):
        make_plugin(4, 8, path)


def test_slurm_is_our_own_and_needs_its_commands(tmp_path, monkeypatch):
    path = tmp_path / 'plugin.yml'
    path.write_text('plugin: SLURM\nplugin_args: {sbatch_args: "-p long"}\n')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(OptionError, match='sbatch is not on the PATH'):
        make_plugin(4, 8, path)
    (tmp_path / 'sbatch').touch(mode=0o755)
    plugin, _ = make_plugin(4, 8, path)
    assert isinstance(plugin, Slurm)
    assert plugin.options == ['-p', 'long']


def test_every_plugin_that_is_offered_exists():
    from nipype.pipeline import plugins

    for name in LOCAL_PLUGINS + CLUSTER_PLUGINS:
        assert hasattr(plugins, f'{name}Plugin')


def test_an_accelerator_of_a_cluster_is_not_looked_for_here(tmp_path, monkeypatch):
    path = tmp_path / 'plugin.yml'
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    path.write_text('plugin: SGE')
    assert check_device('cuda', path) == 'cuda'
    assert check_device('auto', path) == 'cpu'
    path.write_text('plugin: MultiProc')
    with pytest.raises(OptionError, match='no CUDA device'):
        check_device('cuda', path)


def _fail():
    raise RuntimeError('broken')


def _take(item):
    return item


def test_a_node_that_fails_costs_what_depends_on_it_and_nothing_else(tmp_path):
    workflow = pe.Workflow('failing_wf', base_dir=str(tmp_path))
    workflow.config['execution'] = {'crashdump_dir': str(tmp_path), 'crashfile_format': 'txt'}
    failing = pe.Node(niu.Function(function=_fail, output_names=['out']), name='failing')
    after = pe.Node(niu.Function(function=_take, output_names=['out']), name='after')
    apart = pe.Node(niu.Function(function=_answer, output_names=['out']), name='apart')
    workflow.connect(failing, 'out', after, 'item')
    workflow.add_nodes([apart])
    told = []
    plugin = OneByOne({'status_callback': lambda node, status: told.append((node.name, status))})
    with pytest.raises(RuntimeError, match='broken'):
        workflow.run(plugin=plugin)
    assert ('apart', 'end') in told
    assert ('failing', 'exception') in told
    assert not [status for name, status in told if name == 'after']
    assert len(list(tmp_path.glob('crash-*.txt'))) == 1


def test_waiting_for_workers_does_not_look_through_all_that_is_loaded(tmp_path):
    workflow = pe.Workflow('waiting_wf', base_dir=str(tmp_path))
    workflow.config['execution'] = {'poll_sleep_duration': '0.1'}
    workflow.add_nodes([pe.Node(niu.Function(function=_answer, output_names=['out']), name='one')])
    frozen = []
    args = {'n_procs': 1, 'memory_gb': 4, 'mp_context': 'spawn', 'raise_insufficient': False}
    args['status_callback'] = lambda node, status: frozen.append(gc.get_freeze_count())
    workflow.run(plugin=PatientMultiProc(plugin_args=args))
    assert min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


def _kill_self():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def _answer():
    return 42


@pytest.mark.skipif(os.name != 'posix', reason='POSIX only')
def test_a_killed_worker_costs_its_node_and_not_the_run(tmp_path):
    workflow = pe.Workflow('killed_wf', base_dir=str(tmp_path))
    workflow.config['execution'] = {
        'crashdump_dir': str(tmp_path),
        'poll_sleep_duration': '0.1',
        'stop_on_first_crash': 'false',
    }
    killed = pe.Node(niu.Function(function=_kill_self, output_names=['out']), name='killed')
    after = pe.Node(niu.Function(function=_answer, output_names=['out']), name='other')
    workflow.add_nodes([killed, after])
    args = {'n_procs': 1, 'memory_gb': 4, 'mp_context': 'spawn', 'raise_insufficient': False}
    with pytest.raises(Exception, match='killed'):
        workflow.run(plugin=PatientMultiProc(plugin_args=args))
    assert (tmp_path / 'killed_wf' / 'other' / 'result_other.pklz').exists()
