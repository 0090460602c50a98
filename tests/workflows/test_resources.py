"""Processor and memory of steps: sampled from outside, in tables and a summary."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from harmony_app.bids.atomic import read_table
from harmony_app.workflows.plugin import OneByOne, PatientMultiProc
from harmony_app.workflows.resources import write_resources

SESSIONS = {'sub_01_wf': 'sub-01'}
ROOT = Path(__file__).parents[2]


def work_and_hold(samples=None):
    """Use the processor for a while and hold a hundred megabytes, as a step would.

    Until a file of samples, where one is given, has some: on a busy machine the first come late.
    """
    import time

    import numpy as np

    held = np.ones(100 * 2**20, np.uint8)
    start, deadline = time.process_time(), time.monotonic() + 60
    while time.process_time() - start < 0.6:
        held[:1000].sum()
    while samples is not None and time.monotonic() < deadline:
        if len(samples.read_text().splitlines()) > 6:
            break
        time.sleep(0.02)
    return int(held[0])


STEPS = """
import sys, time
from pathlib import Path
from harmony_app.workflows.resources import monitor

folder = Path(sys.argv[1])
name = 'harmony_wf.sub_01_wf.harmonize'
with monitor(folder, name, period=0.05):
    work_and_hold(folder / f'{name}.txt')
with monitor(folder, 'harmony_wf.sub_01_wf.write', period=0.05):
    time.sleep(0.3)
with monitor(folder, 'harmony_wf.sub_01_wf.prepared_scans', period=0.05):
    pass
"""


def test_a_step_is_sampled_while_it_runs(tmp_path):
    folder = tmp_path / 'logs' / 'resources'
    # In a process of its own: of a large one that ran other tests the system may take back as much
    # memory meanwhile as the step holds.
    script = inspect.getsource(work_and_hold) + STEPS
    subprocess.run([sys.executable, '-c', script, str(folder)], check=True, cwd=ROOT)
    told = write_resources(folder, SESSIONS)
    steps = {row['step']: row for row in read_table(tmp_path / 'logs' / 'resources.tsv')}
    # Nodes that only pass records on are not told.
    assert set(steps) == {'harmonize', 'write'}
    busy, idle = steps['harmonize'], steps['write']
    assert busy['session'] == 'sub-01'
    assert 0.5 < float(busy['cpu_seconds']) < 1.5
    assert float(idle['cpu_seconds']) < 0.2
    assert float(busy['added_mb']) > 80
    assert float(idle['start']) >= float(busy['seconds'])
    over_time = read_table(tmp_path / 'logs' / 'resources_over_time.tsv')
    assert sum(row['step'] == 'harmonize' for row in over_time) > 4
    assert all(np.diff([float(r['time']) for r in over_time if r['step'] == 'write']) >= 0)
    assert (tmp_path / 'logs' / 'resources.json').is_file()
    assert not folder.exists()
    assert told[0].split() == ['step', 'times', 'seconds', 'CPU', 's', 'processors', 'peak', 'MB']
    assert told[1].startswith('harmonize        1')
    assert told[-1].endswith('in 2 steps')


@pytest.mark.parametrize('make', [OneByOne, PatientMultiProc])
def test_nodes_are_watched_by_whoever_runs_them(tmp_path, make):
    workflow = pe.Workflow('harmony_wf', base_dir=str(tmp_path))
    inner = pe.Workflow('sub_01_wf')
    inner.add_nodes([pe.Node(niu.Function(function=work_and_hold), name='align')])
    workflow.add_nodes([inner])
    folder = tmp_path / 'logs' / 'resources'
    args = {'n_procs': 1, 'memory_gb': 4, 'mp_context': 'spawn', 'raise_insufficient': False}
    workflow.config['execution'] = {'poll_sleep_duration': '0.1'}
    workflow.run(plugin=make(plugin_args=args | {'monitor_dir': str(folder)}))
    write_resources(folder, SESSIONS)
    (row,) = read_table(tmp_path / 'logs' / 'resources.tsv')
    assert (row['session'], row['step']) == ('sub-01', 'align')
    assert float(row['cpu_seconds']) > 0.4


def test_a_run_without_samples_tells_nothing(tmp_path):
    assert write_resources(tmp_path, {}) == []
