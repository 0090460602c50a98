"""What a call costs: parameters, floating point operations, time and memory.

Time and memory are measured in a fresh process, so that nothing that the caller holds counts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

STATUS = Path('/proc/self/status')
"""Where Linux tells a process its memory."""

CLEAR = Path('/proc/self/clear_refs')
"""Where Linux takes the wish to count the peak anew."""


@dataclass(frozen=True)
class Cost:
    """Cost of one call.

    Parameters
    ----------
    parameters : int or None
        Weights of the network; None where none was given.
    flops : int or None
        Floating point operations of the call, two for each multiply-add of matrix products,
        convolutions and attention, none for what is done voxel by voxel; None where no
        network was given.
    wall_seconds : float
        Time that passed.
    cpu_seconds : float
        Time of the processor, all threads of the process together.
    peak_memory : int
        Largest resident memory of the process during the call, bytes.
    memory_before : int
        Resident memory before the call, bytes: the interpreter, its imports, the arguments.
    """

    parameters: int | None
    flops: int | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory: int
    memory_before: int


def measure_cost(
    call: Callable[..., Any],
    *arguments: Any,
    module: 'nn.Module | None' = None,
    warm_up: bool = False,
) -> Cost:
    """Cost of a call, measured in a process of its own.

    The process is spawned, gets the call and its arguments, and runs the call once for time and
    memory and, where a network is given, once more to count its operations: counting slows a
    call. Memory is the high-water mark that the kernel keeps for the process (``VmHWM``), set
    back before the call. ``ru_maxrss`` would not do: a child starts with its parent's.

    Its limits: the system is Linux. The call and its arguments can be pickled (a function of a
    module, not a lambda), and a script that measures keeps its own work below
    ``if __name__ == '__main__'``. Processes that the call starts are not counted, and work that
    a GPU still does when the call returns is not waited for: let the call wait for it. Tensors
    passed as arguments are moved to shared memory; a call that makes or loads its own needs
    none. Settings of the caller, as the number of threads of torch, do not reach the process;
    environment variables do. Where the kernel does not let the mark be set back, the peak is that of
    the whole process, imports included: an upper bound.

    Parameters
    ----------
    call : callable
        What is measured; its result is dropped.
    *arguments
        Its arguments.
    module : Module, optional
        Network whose parameters are counted; with it the operations of the call are counted too.
    warm_up : bool, optional
        Whether the call is run once before it is measured: the first call of a library pays for
        what is loaded once.

    Returns
    -------
    Cost

    Raises
    ------
    RuntimeError
        Where the process ends before it answers (killed for its memory, as a rule), or where
        the system does not tell the peak.
    Exception
        What the call raises is raised again.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    count = module is not None
    # not forked: a fork shares the caller's memory, and its threads may leave locks taken
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        try:
            measured = pool.submit(_measure, call, arguments, warm_up, count).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                'the measured process ended before it answered: it was killed, for its memory '
                'perhaps, or it could not start; give it less to do'
            ) from error
    return Cost(count_parameters(module) if count else None, **measured)


def count_parameters(module: 'nn.Module') -> int:
    """Number of weights of a network, one that several layers share counted once.

    Examples
    --------
    >>> from torch import nn
    >>> count_parameters(nn.Conv2d(2, 3, kernel_size=3))  # 2 * 3 * 9 weights and 3 biases
    57
    """
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(call: Callable[..., Any], *arguments: Any) -> int:
    """Floating point operations of a call, in this process.

    Parameters
    ----------
    call : callable
        Anything that works with torch.
    *arguments
        Its arguments.

    Returns
    -------
    int
        Two for each multiply-add of matrix products, convolutions and attention; 0 for a call
        that has none.

    Examples
    --------
    >>> import torch
    >>> count_flops(torch.matmul, torch.ones(2, 3), torch.ones(3, 5))  # 2 * 2 * 3 * 5
    60
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call(*arguments)
    return int(counter.get_total_flops())


def _measure(call: Callable[..., Any], arguments: tuple, warm_up: bool, count: bool) -> dict:
    """Measure a call in this process, by the names of the fields of :class:`Cost`."""
    if warm_up:
        call(*arguments)
    try:
        CLEAR.write_text('5')
    except OSError:
        pass  # the peak stays that of the whole process: an upper bound
    before = _status('VmRSS')
    wall, processor = time.perf_counter(), time.process_time()
    call(*arguments)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    # the kernel counts in batches: the mark may lag a few pages behind
    peak = max(_status('VmHWM'), before)
    return {
        'flops': count_flops(call, *arguments) if count else None,
        'wall_seconds': wall,
        'cpu_seconds': processor,
        'peak_memory': peak,
        'memory_before': before,
    }


def _status(field: str) -> int:
    """Bytes of a field of the process's status."""
    try:
        lines = dict(line.split(':', 1) for line in STATUS.read_text().splitlines() if ':' in line)
        number, unit = lines[field].split()
    except (OSError, KeyError, ValueError) as error:
        raise RuntimeError(f'this system does not tell {field}: measure on Linux') from error
    return int(number) * {'kB': 1024}[unit]
