"""The command line on a real SLURM, and the scripts of docs/hpc.md as they stand there."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = re.findall(r'```sh\n(#!/bin/bash\n.*?)```', (ROOT / 'docs/hpc.md').read_text(), re.S)


@pytest.fixture(scope='module')
def study(tmp_path_factory, make_study):
    """Two participants, and what their runs are told."""
    folder = tmp_path_factory.mktemp('hpc')
    common = make_study(folder, 2)
    plugin = folder / 'plugin.yml'
    args = {'poll_seconds': 1, 'result_seconds': 5}
    plugin.write_text(yaml.safe_dump({'plugin': 'SLURM', 'plugin_args': args}))
    return folder, [*common, '--use-plugin', str(plugin), '--nprocs', '1']


def start(cluster, study, out, *arguments):
    folder, common = study
    command = [sys.executable, '-m', 'harmony_app', folder / 'bids', folder / out, 'participant']
    command += [*common, '-w', folder / f'work-{out}', *arguments]
    return subprocess.Popen(
        [str(word) for word in command],
        env=cluster.environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def states(study, out):
    """How the scans ended, by session."""
    markers = (study[0] / out / 'logs/sessions').glob('*.json')
    return {
        path.stem: {scan['status'] for scan in json.loads(path.read_text())['scans'].values()}
        for path in markers
    }


def running(cluster, word):
    """Number of a running job whose name holds a word."""

    def look():
        return next((n for n, name in cluster.jobs().items() if word in name), None)

    return cluster.wait_for(look)


def processes_of(cluster, number):
    """Processes of a job, once its Python has started."""

    def look():
        told = cluster.ask('scontrol', 'listpids', number).splitlines()[1:]
        return [int(line.split()[0]) for line in told if line.split()[0].isdigit()]

    return cluster.wait_for(look)


def test_a_killed_process_is_sent_again_and_a_cancelled_job_costs_one_participant(cluster, study):
    run = start(cluster, study, 'out')
    try:
        for number in processes_of(cluster, running(cluster, 'sub_01_prepare_wf.prepare')):
            os.kill(number, signal.SIGKILL)
        cluster.ask('scancel', running(cluster, 'sub_02_prepare_wf.align'))
        told, _ = run.communicate(timeout=1500)
    finally:
        run.kill()
    assert run.returncode == 1, told
    assert re.search(r'sub_01_prepare_wf.prepare\S* ended without a result .*sent again', told)
    assert states(study, 'out') == {'sub-01': {'done'}}
    crash = re.search(r'failed sub-02_T1w: sub-02 stopped; see (\S+)', told)[1]
    with open(crash) as file:
        assert 'CANCELLED' in file.read()
    assert '1 done, 1 failed' in told

    # The same command goes on: the finished session is left, the lost one is made.
    again = start(cluster, study, 'out')
    told, _ = again.communicate(timeout=1500)
    assert again.returncode == 0, told
    assert 'sub-01: finished before' in told
    assert '2 done, 0 failed' in told
    assert states(study, 'out') == {'sub-01': {'done'}, 'sub-02': {'done'}}


def test_a_run_that_is_terminated_leaves_no_jobs(cluster, study):
    run = start(cluster, study, 'ended')
    try:
        running(cluster, 'prepare')
        run.terminate()
        told, _ = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == 130, told
    assert 'the same command continues' in told
    cluster.wait_for(lambda: not cluster.jobs('RUNNING,PENDING,COMPLETING'), seconds=60)


def test_an_array_has_one_job_for_each_participant(cluster, study):
    folder, common = study
    [script] = [text for text in SCRIPTS if '--array' in text]
    (folder / 'array.sbatch').write_text(script)
    given = [word for word in common if word not in common[common.index('--use-plugin') :]]
    told = cluster.run(
        folder / 'array.sbatch',
        folder / 'bids',
        folder / 'array',
        *given,
        options=['--array=1-2', '--mem=2G', '--cpus-per-task=1'],
    )
    assert len(told) == 2
    assert all('1 done, 0 failed' in text for text in told.values()), told
    assert states(study, 'array') == {'sub-01': {'done'}, 'sub-02': {'done'}}


def test_a_training_runs_on_several_processes(cluster, study):
    folder, _ = study
    [script] = [text for text in SCRIPTS if 'torchrun' in text]
    (folder / 'train.sbatch').write_text(script)
    told = cluster.run(
        folder / 'train.sbatch',
        folder / 'bids',
        folder / 'array',
        *('--method', 'transfer', '--device', 'cpu', '--steps', 2, '--batch-size', 2),
        *('--nprocs', 1, '-w', folder / 'work-train'),
        options=['--mem=6G', '--gpus-per-node=0', '--ntasks-per-node=2', '--cpus-per-task=1'],
    )
    [text] = told.values()
    model = json.loads((folder / 'array/models/transfer/model.json').read_text())
    assert model['training']['steps'] == 2, text
