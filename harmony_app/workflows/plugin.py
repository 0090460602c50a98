"""How the nodes are run: one after the other, on several processes, or on a cluster."""

from collections.abc import Callable
from pathlib import Path
from traceback import format_exception

from nipype.pipeline.plugins import LinearPlugin
from nipype.pipeline.plugins.tools import report_crash

from harmony_app.workflows.checks import read_plugin
from harmony_app.workflows.session_order import session_by_session
from harmony_app.workflows.slurm import Slurm
from harmony_app.workflows.workers import PatientMultiProc, kept_interrupts, limited, watched


class OneByOne(LinearPlugin):
    """Runs the nodes in this process, session by session."""

    def run(self, graph, config, updatehash=False):
        """Run all nodes; a node that fails costs those that depend on it."""
        stop = str(config['execution']['stop_on_first_crash']).lower() == 'true'
        lost: set = set()
        first_error = None
        with kept_interrupts() as interrupts:
            for node in session_by_session(graph):
                if any(before in lost for before in graph.predecessors(node)):
                    lost.add(node)
                    continue
                error = self._run_node(node, updatehash)
                if interrupts:
                    raise interrupts[0]
                if error is not None:
                    report_crash(node, format_exception(error))
                    lost.add(node)
                    first_error = first_error or error
                self._tell(node, 'end' if error is None else 'exception')
                if stop and first_error:
                    break
        if first_error:
            raise first_error

    def _run_node(self, node, updatehash: bool) -> Exception | None:
        """Run a node; what it raised, if it did."""
        self._tell(node, 'start')
        try:
            with (
                watched(node, self.plugin_args.get('monitor_dir')),
                limited(self.plugin_args.get('step_timeout')),
            ):
                node.run(updatehash=updatehash)
        except Exception as error:  # noqa: BLE001
            # A node can raise anything; its crash file says what.
            return error
        return None

    def _tell(self, node, status: str) -> None:
        if self._status_callback:
            self._status_callback(node, status)


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
    step_timeout: float | None = None,
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
    step_timeout : float, optional
        Minutes after which a step counts as hanging.

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
    if step_timeout is not None:
        args['step_timeout'] = step_timeout
    if nprocs == 1 and not (apart or low_mem):
        return OneByOne(plugin_args=args), args
    # A forked child inherits locks of ITK and torch, and cannot use CUDA at all.
    args['mp_context'] = 'spawn'
    args['low_mem'] = low_mem
    return PatientMultiProc(plugin_args=args), args
