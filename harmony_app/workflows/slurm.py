"""Nodes as jobs of a SLURM cluster."""

import itertools
import logging
import math
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nipype.pipeline.plugins.base import SGELikeBatchManagerBase

from harmony_app.workflows.session_order import SessionOrder

logger = logging.getLogger('harmony_app')

ENDED = {
    'BOOT_FAIL',
    'CANCELLED',
    'COMPLETED',
    'DEADLINE',
    'FAILED',
    'NODE_FAIL',
    'OUT_OF_MEMORY',
    'PREEMPTED',
    'TIMEOUT',
}
"""States of a job that will not run any more; in any other it waits or runs."""

FORGOTTEN = 'UNKNOWN'
"""State of a job that SLURM no longer lists: it ended a while ago."""

FINAL = {
    'CANCELLED': 'someone, or a limit of the cluster, cancelled it; the same command continues',
    'TIMEOUT': 'give it more with --time in sbatch_args',
    'DEADLINE': 'give it a later one with --deadline in sbatch_args',
}
"""What to do about states that sending the job again would not mend."""

KILLED = (
    'it was killed, perhaps for memory (--mem in sbatch_args), or could not start where it was sent'
)

MEMORY = ('--mem', '--mem-per-cpu', '--mem-per-gpu')
PROCESSORS = ('-c', '--cpus-per-task', '--cpus-per-gpu', '--exclusive')
ACCELERATORS = ('-G', '--gpus', '--gres', '--gpus-per-node', '--gpus-per-task')


@dataclass
class Job:
    """What is known of a node that was sent to the cluster.

    Parameters
    ----------
    node : Node
        The node.
    script : str
        Its batch script.
    number : int
        Number of the job; 0 where SLURM did not take it.
    tries : int
        How often it was sent.
    ended : float
        When it was first seen without being listed as waiting or running; 0 before.
    refusal : str
        What SLURM said where it did not take it.
    """

    node: object
    script: str
    number: int = 0
    tries: int = 0
    ended: float = 0.0
    refusal: str = ''


class Slurm(SessionOrder, SGELikeBatchManagerBase):
    """Runs each node as a job of its own, and looks after the jobs.

    Nipype's plugin asks SLURM for every job several times a second, ends the run where a
    job is not taken or the controller does not answer, takes the result of an earlier run
    for that of a job that never began, and leaves jobs behind when it is stopped.

    Parameters
    ----------
    plugin_args : mapping
        ``sbatch_args`` (str): options of every job, which go before what is asked for here.
        ``gpu_sbatch_args`` (str): further options of nodes on an accelerator, ``--gres=gpu:1``
        by default. ``template`` (str): head of the batch script, or a file that holds it.
        ``max_jobs`` (int): jobs at a time. ``retries`` (int): how often a job that was killed
        is sent again, 1 by default. ``poll_seconds`` (float): how often SLURM is asked, 10 by
        default. ``result_seconds`` (float): how long a result may take to appear on a shared
        disk, 60 by default. ``submit_seconds`` (float): how long SLURM may not answer, 600
        by default.
    """

    def __init__(self, plugin_args: Mapping | None = None):
        args = dict(plugin_args or {})
        super().__init__(args.get('template') or '#!/bin/bash', plugin_args=args)
        self.options = shlex.split(args.get('sbatch_args') or '')
        self.gpu_options = shlex.split(args.get('gpu_sbatch_args', '--gres=gpu:1') or '')
        self.retries = int(args.get('retries', 1))
        self.poll_seconds = float(args.get('poll_seconds', 10))
        self.result_seconds = float(args.get('result_seconds', 60))
        self.submit_seconds = float(args.get('submit_seconds', 600))
        self._jobs: dict[int, Job] = {}
        self._handles = itertools.count(1)
        self._states: dict[int, str] = {}
        self._asked = -math.inf

    def run(self, graph, config, updatehash=False):
        """Run all nodes; jobs that are left when it is stopped are cancelled."""
        with _terminated_like_interrupted():
            try:
                super().run(graph, config, updatehash)
            finally:
                self._cancel()

    def resources(self, node, tries: int = 0) -> list[str]:
        """Options of ``sbatch`` that say what a node needs, where the user's do not.

        Parameters
        ----------
        node : Node
            With ``mem_gb`` and ``n_procs``, and perhaps an interface that takes an accelerator.
        tries : int
            How often its memory was too short: each time it is doubled.
        """
        given = {option.split('=')[0] for option in self.options}
        wanted = []
        if given.isdisjoint(MEMORY):
            wanted.append(f'--mem={math.ceil(node.mem_gb * 1024) * 2**tries}M')
        if given.isdisjoint(PROCESSORS):
            wanted.append(f'--cpus-per-task={node.n_procs or 1}')
        if getattr(node.interface.inputs, 'use_gpu', False) and given.isdisjoint(ACCELERATORS):
            wanted += self.gpu_options
        return wanted

    def _submit_batchtask(self, scriptfile, node):
        # A result of an earlier run must not be taken for this one's.
        for old in Path(node.output_dir()).glob('result_*.pklz'):
            old.unlink()
        handle = next(self._handles)
        self._jobs[handle] = Job(node, scriptfile)
        self._send(self._jobs[handle])
        self._pending[handle] = node.output_dir()
        return handle

    def _send(self, job: Job, short_of_memory: bool = False) -> None:
        """Hand a job to SLURM; while it does not answer, wait."""
        command = ['sbatch', '--parsable', f'--job-name={job.node.fullname}']
        command.append(f'--output={Path(job.script).parent}/slurm-%j.out')
        command += self.options + self.resources(job.node, job.tries if short_of_memory else 0)
        job.tries += 1
        job.number, job.ended = 0, 0.0
        patience = time.monotonic() + self.submit_seconds
        while not job.number:
            told = _ask([*command, job.script])
            if told.returncode == 0:
                job.number = int(told.stdout.split(';')[0])
                # The states that are known are from before this job.
                self._states[job.number] = 'PENDING'
            elif _answers(told) or time.monotonic() > patience:
                job.refusal = told.stderr.strip()
                break
            else:
                logger.warning('sbatch: %s; trying again', told.stderr.strip())
                time.sleep(min(self.poll_seconds, 30))

    def _get_result(self, taskid):
        job = self._jobs[taskid]
        if not job.number:
            return _failure(f'SLURM did not take the job of this node: {job.refusal}')
        state = self._state(job.number)
        if state is None:
            return None
        if any(Path(self._pending[taskid]).glob('result_*.pklz')):
            return super()._get_result(taskid)
        # The disk that the result comes by may be slower than SLURM.
        job.ended = job.ended or time.monotonic()
        if state in ('COMPLETED', FORGOTTEN) and time.monotonic() - job.ended < self.result_seconds:
            return None
        return self._lost(job, state)

    def _lost(self, job: Job, state: str) -> dict | None:
        """Send a job that ended without a result again, else say why not."""
        short = state == 'OUT_OF_MEMORY'
        told = f'job {job.number} of {job.node.fullname} ended without a result ({state})'
        own_memory = any(o.split('=')[0] in MEMORY for o in self.options)
        if state not in FINAL and job.tries <= self.retries and not (short and own_memory):
            logger.warning('%s: it is sent again%s', told, ', with twice the memory' * short)
            self._send(job, short)
            return None
        advice = FINAL.get(state, KILLED)
        return _failure(f'{told}, {job.tries} times sent: {advice}', _end_of_log(job))

    def _is_pending(self, taskid):
        return self._state(self._jobs[taskid].number) is None

    def _state(self, number: int) -> str | None:
        """State of a job that ended; None for one that waits or runs, as far as is known."""
        if time.monotonic() - self._asked >= self.poll_seconds:
            self._asked = time.monotonic()
            self._refresh()
        state = self._states.get(number, FORGOTTEN)
        return state if state in ENDED or state == FORGOTTEN else None

    def _refresh(self) -> None:
        """Ask SLURM for all jobs at once; where it does not answer, what was known stays."""
        numbers = self._numbers()
        if not numbers:
            return
        command = ['squeue', '--noheader', '--states=all', '--format=%A %T']
        told = _ask([*command, '--jobs=' + ','.join(map(str, numbers))])
        if told.returncode != 0 and 'Invalid job id' not in told.stderr:
            logger.warning('squeue: %s; trying again', told.stderr.strip())
            return
        rows = [line.split() for line in told.stdout.splitlines() if line.strip()]
        self._states = {int(number): state for number, state in rows}

    def _clear_task(self, taskid):
        super()._clear_task(taskid)
        del self._jobs[taskid]

    def _cancel(self) -> None:
        if numbers := [str(number) for number in self._numbers()]:
            logger.warning('jobs that are left are cancelled: %s', ', '.join(numbers))
            _ask(['scancel', *numbers])

    def _numbers(self) -> list[int]:
        """Jobs that SLURM took and whose end was not seen."""
        return [job.number for job in self._jobs.values() if job.number]


def _ask(command: list[str]) -> subprocess.CompletedProcess:
    """Run a command of SLURM without the settings of a job that this process may be."""
    kept = ('SLURM_CONF', 'SLURM_CLUSTERS')
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith('SLURM_')
    }
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _answers(told: subprocess.CompletedProcess) -> bool:
    """Whether SLURM said no, and did not only fail to answer."""
    silent = ('Unable to contact', 'Socket timed out', 'not available at the moment')
    silent += ('Connection refused', 'Zero Bytes', 'temporarily unable', 'Communication connection')
    return not any(words in told.stderr for words in silent)


def _failure(message: str, log: str = '') -> dict:
    return {'result': None, 'traceback': [f'{message}\n', log]}


def _end_of_log(job: Job, lines: int = 20) -> str:
    """Last lines of what a job said: SLURM writes there what it killed it for."""
    path = Path(job.script).with_name(f'slurm-{job.number}.out')
    try:
        told = path.read_text(errors='replace').splitlines()[-lines:]
    except OSError:
        return ''
    return '\n'.join([f'{path}:', *told]) + '\n'


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which a cluster sends when time is over, ends a run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
