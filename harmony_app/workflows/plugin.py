"""How the nodes are run: one after the other, on several processes, or on a cluster."""

import logging
from collections.abc import Mapping
from pathlib import Path

from nipype.pipeline.plugins import LinearPlugin, MultiProcPlugin

from harmony_app.errors import OptionError

logger = logging.getLogger('harmony_app')


class PatientMultiProc(MultiProcPlugin):
    """Nipype's MultiProc, but a worker that was killed ends its node and not the run.

    Where the operating system kills a worker (most often for memory), the pool is broken,
    and Nipype would wait for its node forever.
    """

    def _submit_job(self, node, updatehash=False):
        from concurrent.futures.process import BrokenProcessPool

        try:
            return super()._submit_job(node, updatehash)
        except BrokenProcessPool:
            self._restart_pool()
            return super()._submit_job(node, updatehash)

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
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        from nipype.pipeline.plugins.multiproc import process_initializer

        logger.warning('a worker was killed: the others are started again; is memory short?')
        self.pool.shutdown(wait=False)
        self.pool = ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=process_initializer,
            initargs=(self._cwd,),
            mp_context=multiprocessing.get_context(self.plugin_args.get('mp_context')),
        )


def make_plugin(
    nprocs: int, memory_gb: float | None, plugin_file: Path | None, nodes_use_gpu: bool = False
) -> tuple[object, dict]:
    """Plugin and its arguments.

    Parameters
    ----------
    nprocs : int
        Processes at a time; one runs everything in this process.
    memory_gb : float or None
        Memory that the nodes may take together; None for nine tenths of the machine's.
    plugin_file : Path or None
        YAML with ``plugin`` and ``plugin_args``; it decides alone where it is given.
    nodes_use_gpu : bool
        Whether some nodes take an accelerator.

    Returns
    -------
    plugin : str or plugin object
    plugin_args : dict

    Raises
    ------
    OptionError
        Where the YAML cannot be read or names no plugin.
    """
    if plugin_file is not None:
        return _read_plugin(plugin_file)
    args: dict = {'n_procs': nprocs, 'raise_insufficient': False}
    if memory_gb is not None:
        args['memory_gb'] = memory_gb
    if nodes_use_gpu:
        # One node at a time on the accelerator that --device names.
        args['n_gpu_procs'] = 1
    if nprocs == 1:
        return LinearPlugin(plugin_args=args), args
    # A forked child inherits locks of ITK and torch, and cannot use CUDA at all.
    args['mp_context'] = 'spawn'
    return PatientMultiProc(plugin_args=args), args


def _read_plugin(path: Path) -> tuple[str, dict]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise OptionError(f'--use-plugin {path}: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise OptionError(f'--use-plugin {path} is not YAML: {error}') from error
    if not isinstance(content, Mapping) or not isinstance(content.get('plugin'), str):
        raise OptionError(f'--use-plugin {path} names no plugin (plugin: SLURM, plugin_args: ...)')
    return content['plugin'], dict(content.get('plugin_args') or {})
