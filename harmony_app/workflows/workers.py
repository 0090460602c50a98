"""Worker processes: what becomes of the others where one is killed, hangs, or loses its parent."""

import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

from nipype.pipeline.plugins import MultiProcPlugin
from nipype.pipeline.plugins.multiproc import process_initializer, run_node

from harmony_app.workflows.failures import KILLED, TIMEOUT
from harmony_app.workflows.resources import monitor
from harmony_app.workflows.session_order import SessionOrder

logger = logging.getLogger('harmony_app')

LOGGERS = ('nipype.workflow', 'nipype.interface', 'nipype.utils', 'nipype.filemanip')
"""Loggers of Nipype that speak of every node."""


class StepTimeoutError(Exception):
    """A step runs longer than it may."""


@dataclass
class Task:
    """A node that was given to the workers.

    Parameters
    ----------
    node : Node
        What to run.
    updatehash : bool
        As in Nipype.
    pool : ProcessPoolExecutor or None
        Where it runs; None while it waits to be run alone.
    since : float
        When it was given, monotonic seconds.
    lost : bool
        Whether the pool broke under it.
    alone : bool
        Whether it has to be the only one.
    """

    node: object
    updatehash: bool
    pool: ProcessPoolExecutor | None = None
    since: float = 0.0
    lost: bool = False
    alone: bool = False


class PatientMultiProc(SessionOrder, MultiProcPlugin):
    """Nipype's MultiProc, but a worker that dies or hangs costs its node and no other.

    Where the operating system kills a worker (most often for memory), the pool is broken with
    all that runs in it, and Nipype would wait forever. Nobody can say then whose worker it was:
    every node that was running is run once more, one at a time. One that breaks the pool when
    it is alone has failed.
    """

    def __init__(self, plugin_args=None):
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown(wait=False)
        self.pool = self._make_pool()
        self._tasks: dict[int, Task] = {}
        self._limit = self.plugin_args.get('step_timeout')
        self._interrupts: list[BaseException] = []

    def run(self, graph, config, updatehash=False):
        """Run all nodes; however it ends, no worker outlives it.

        Nipype collects garbage each time it looks for the next node, several times a second;
        all that the libraries hold would be looked through, for half of a processor.
        """
        gc.freeze()
        ended = False
        try:
            with kept_interrupts() as self._interrupts:
                super().run(graph, config, updatehash)
        except Exception:
            # Nipype raises what a node raised once all have ended, or at the first crash.
            ended = not self.pending_tasks
            raise
        else:
            ended = True
        finally:
            gc.unfreeze()
            if not ended:
                self._kill_workers()

    def _send_procs_to_workers(self, updatehash=False, graph=None):
        if self._interrupts:
            raise self._interrupts[0]
        # As long as it is not known which node kills its worker, nothing new is put at risk.
        if not any(task.alone for task in self._tasks.values()):
            super()._send_procs_to_workers(updatehash=updatehash, graph=graph)

    def _submit_job(self, node, updatehash=False):
        self._taskid += 1
        self._tasks[self._taskid] = Task(node, updatehash)
        self._start(self._taskid)
        return self._taskid

    def _start(self, number: int) -> None:
        """Give a node to a worker, one that watches processor and memory where that is wanted."""
        task = self._tasks[number]
        folder = self.plugin_args.get('monitor_dir')
        work = partial(run_watched, task.node, task.updatehash, number, folder)
        try:
            future = self.pool.submit(work)
        except BrokenProcessPool:
            self._restart_pool()
            future = self.pool.submit(work)
        task.pool, task.since, task.lost = self.pool, time.monotonic(), False
        self._task_obj[number] = future
        future.add_done_callback(partial(self._take, number))

    def _take(self, number: int, future: Future) -> None:
        """Keep what a worker gave; called in a thread of the pool."""
        task = self._tasks.get(number)
        if task is None or future is not self._task_obj.get(number) or future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._taskresult[number] = future.result()
        elif isinstance(error, BrokenProcessPool):
            task.lost = True
        else:
            # Nipype catches what a node raises: this is a result that cannot travel.
            self._fail(number, f'the result of this step cannot be read: {error!r}')

    def _get_result(self, taskid):
        if taskid not in self._taskresult:
            self._look_after_workers()
        result = self._taskresult.get(taskid)
        if result is not None:
            self._tasks.pop(taskid, None)
        return result

    def _look_after_workers(self) -> None:
        """Stop a node that hangs, and see who broke a pool."""
        running = {
            number: task
            for number, task in self._tasks.items()
            if task.pool is not None and number not in self._taskresult
        }
        lost = {number: task for number, task in running.items() if task.lost}
        if lost:
            pool = next(iter(lost.values())).pool
            # The pool tells all of them, one by one.
            if all(task.lost for task in running.values() if task.pool is pool):
                self._judge(lost, pool)
            return
        late = [n for n, task in running.items() if time.monotonic() - task.since > self._seconds]
        if late:
            self._fail(late[0], TIMEOUT.format(self._limit))
            self._kill_workers()
            self._restart_pool()
            for number in running.keys() - {late[0]}:
                self._start(number)
        elif not running:
            waiting = [number for number, task in self._tasks.items() if task.alone]
            if waiting:
                self._start(waiting[0])

    @property
    def _seconds(self) -> float:
        return float('inf') if self._limit is None else 60 * self._limit

    def _judge(self, lost: dict[int, Task], pool: ProcessPoolExecutor) -> None:
        """Fail the node that broke a pool; of several, run each once more and alone."""
        if self.pool is pool:
            self._restart_pool()
        if len(lost) == 1:
            ((number, _),) = lost.items()
            self._fail(number, KILLED)
            return
        logger.warning('%d steps that were running are run again, one at a time', len(lost))
        for task in lost.values():
            task.pool, task.lost, task.alone = None, False, True

    def _fail(self, number: int, message: str) -> None:
        self._taskresult[number] = {'result': None, 'traceback': [message], 'taskid': number}

    def _restart_pool(self):
        logger.warning('a worker ended before its step: the workers are started again')
        self.pool.shutdown(wait=False)
        self.pool = self._make_pool()

    def _kill_workers(self):
        """End the workers whatever they do."""
        for process in list((self.pool._processes or {}).values()):
            process.kill()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _make_pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context(self.plugin_args.get('mp_context'))
        level = self.plugin_args.get('worker_level', 'CRITICAL')
        return ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=_start_worker,
            initargs=(self._cwd, level),
            mp_context=context,
            max_tasks_per_child=1 if self.plugin_args.get('low_mem') else None,
        )


def run_watched(node, updatehash: bool, taskid: int, folder: str | None) -> dict:
    """Run a node as Nipype's worker does, with its processor and memory watched where asked."""
    with watched(node, folder):
        return run_node(node, updatehash, taskid)


def watched(node, folder: str | None):
    """Watch the processor and memory of a node where there is a folder for it."""
    return nullcontext() if folder is None else monitor(Path(folder), node.fullname)


@contextmanager
def limited(minutes: float | None) -> Iterator[None]:
    """Raise :class:`StepTimeoutError` where the block takes longer.

    Within one process only: what holds Python's lock cannot be stopped so.
    """
    if minutes is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number, frame):
        raise StepTimeoutError(TIMEOUT.format(minutes))

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def kept_interrupts() -> Iterator[list[BaseException]]:
    """Keep what Ctrl-C and SIGTERM raise: a node of Nipype that runs in this process makes a failure of it.

    Yields
    ------
    list of BaseException
        Empty until a signal comes.
    """
    kept: list[BaseException] = []
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                replaced[number] = before
                signal.signal(number, partial(_keep, kept, before))
    try:
        yield kept
    finally:
        for number, before in replaced.items():
            signal.signal(number, before)


def _keep(kept: list[BaseException], handler: Callable, number: int, frame) -> None:
    """Call a handler of signals, and keep what it raises."""
    try:
        handler(number, frame)
    except BaseException as error:
        kept.append(error)
        raise


def _start_worker(folder: str, level: str) -> None:
    """Set up a worker process; a crash of its node is told once, by the summary."""
    # Ctrl-C reaches the whole group: the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    process_initializer(folder)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(level)


def _end_with_parent() -> None:
    """End this process when its parent has: two workers must not write into one folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
