"""How the nodes are run: one after the other, on several processes, or on a cluster."""

import gc
import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path

from nipype.pipeline.plugins import LinearPlugin, MultiProcPlugin
from nipype.pipeline.plugins.multiproc import process_initializer, run_node
from nipype.pipeline.plugins.tools import report_crash

from harmony_app.workflows.checks import read_plugin
from harmony_app.workflows.resources import monitor
from harmony_app.workflows.session_order import SessionOrder, session_by_session
from harmony_app.workflows.slurm import Slurm

logger = logging.getLogger('harmony_app')

LOGGERS = ('nipype.workflow', 'nipype.interface', 'nipype.utils', 'nipype.filemanip')
"""Loggers of Nipype that speak of every node."""


class OneByOne(LinearPlugin):
    """Runs the nodes in this process, session by session."""

    def run(self, graph, config, updatehash=False):
        """Run all nodes; a node that fails costs those that depend on it."""
        stop = str(config['execution']['stop_on_first_crash']).lower() == 'true'
        lost: set = set()
        first_error = None
        for node in session_by_session(graph):
            if any(before in lost for before in graph.predecessors(node)):
                lost.add(node)
                continue
            status = 'end'
            self._tell(node, 'start')
            try:
                with _watched(node, self.plugin_args.get('monitor_dir')):
                    node.run(updatehash=updatehash)
            except Exception as error:  # noqa: BLE001
                # A node can raise anything; its crash file says what.
                report_crash(node)
                lost.add(node)
                status, first_error = 'exception', first_error or error
            self._tell(node, status)
            if stop and first_error:
                break
        if first_error:
            raise first_error

    def _tell(self, node, status: str) -> None:
        if self._status_callback:
            self._status_callback(node, status)


class PatientMultiProc(SessionOrder, MultiProcPlugin):
    """Nipype's MultiProc, but a worker that was killed ends its node and not the run.

    Where the operating system kills a worker (most often for memory), the pool is broken,
    and Nipype would wait for its node forever.
    """

    def __init__(self, plugin_args=None):
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown(wait=False)
        self.pool = self._make_pool()

    def run(self, graph, config, updatehash=False):
        """Run all nodes.

        Nipype collects garbage each time it looks for the next node, several times a second;
        all that the libraries hold would be looked through, for half of a processor.
        """
        gc.freeze()
        try:
            super().run(graph, config, updatehash)
        finally:
            gc.unfreeze()

    def _submit_job(self, node, updatehash=False):
        try:
            return self._submit(node, updatehash)
        except BrokenProcessPool:
            self._restart_pool()
            return self._submit(node, updatehash)

    def _submit(self, node, updatehash: bool) -> int:
        """Give a node to a worker that watches its processor and memory, where that is wanted."""
        folder = self.plugin_args.get('monitor_dir')
        if folder is None:
            return super()._submit_job(node, updatehash)
        self._taskid += 1
        future = self.pool.submit(run_watched, node, updatehash, self._taskid, folder)
        future.add_done_callback(self._async_callback)
        self._task_obj[self._taskid] = future
        return self._taskid

    def _async_callback(self, args):
        error = args.exception()
        if error is None:
            super()._async_callback(args)
            return
        for task, future in list(self._task_obj.items()):
            if future is args:
                message = f'the worker of this node was killed, perhaps for memory: {error!r}\n'
                self._taskresult[task] = {'result': None, 'traceback': [message], 'taskid': task}

    def _restart_pool(self):
        logger.warning('a worker was killed: the others are started again; is memory short?')
        self.pool.shutdown(wait=False)
        self.pool = self._make_pool()

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


def run_watched(node, updatehash: bool, taskid: int, folder: str) -> dict:
    """Run a node as Nipype's worker does, with its processor and memory watched."""
    with _watched(node, folder):
        return run_node(node, updatehash, taskid)


def _watched(node, folder: str | None):
    return nullcontext() if folder is None else monitor(Path(folder), node.fullname)


def _start_worker(folder: str, level: str) -> None:
    """Set up a worker process; a crash of its node is told once, by the summary."""
    process_initializer(folder)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(level)


def make_plugin(
    nprocs: int,
    memory_gb: float | None = None,
    plugin_file: Path | None = None,
    nodes_use_gpu: bool = False,
    verbose: bool = False,
    progress: Callable | None = None,
    apart: bool = False,
    low_mem: bool = False,
    monitor_dir: Path | None = None,
) -> tuple[object, dict]:
    """Plugin and its arguments.

    Parameters
    ----------
    nprocs : int
        Processes at a time; one runs everything in this process.
    memory_gb : float or None
        Memory that the nodes may take together; None for nine tenths of the machine's.
    plugin_file : Path or None
        YAML with ``plugin`` and ``plugin_args``; it decides alone where it is given. ``SLURM``
        is :class:`~harmony_app.workflows.slurm.Slurm`, the others are Nipype's.
    nodes_use_gpu : bool
        Whether some nodes take an accelerator.
    verbose : bool
        Whether workers tell each node that they run.
    progress : callable, optional
        Called with a node and ``start``, ``end`` or ``exception``.
    apart : bool
        Run nodes in another process even where there is one at a time: a live display stands
        still wherever a library holds Python's lock.
    low_mem : bool
        Run each node in a process of its own, so that nothing it held is kept.
    monitor_dir : Path, optional
        Where samples of processor and memory go.

    Returns
    -------
    plugin : str or plugin object
    plugin_args : dict

    Raises
    ------
    OptionError
        Where the YAML cannot be read or names no plugin that can be used.
    """
    if plugin_file is not None:
        name, args = read_plugin(plugin_file)
        if progress is not None:
            args['status_callback'] = progress
        return (Slurm(args) if name == 'SLURM' else name), args
    args: dict = {'n_procs': nprocs, 'raise_insufficient': False}
    args['worker_level'] = 'INFO' if verbose else 'CRITICAL'
    if memory_gb is not None:
        args['memory_gb'] = memory_gb
    if progress is not None:
        args['status_callback'] = progress
    if nodes_use_gpu:
        # One node at a time on the accelerator that --device names.
        args['n_gpu_procs'] = 1
    if monitor_dir is not None:
        args['monitor_dir'] = str(monitor_dir)
    if nprocs == 1 and not (apart or low_mem):
        return OneByOne(plugin_args=args), args
    # A forked child inherits locks of ITK and torch, and cannot use CUDA at all.
    args['mp_context'] = 'spawn'
    args['low_mem'] = low_mem
    return PatientMultiProc(plugin_args=args), args
