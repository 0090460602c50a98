"""One training on several devices: torch.distributed under torchrun or SLURM, by hand.

Every process holds the whole network and draws its share of the joint batch; gradients are
averaged after the backward pass. Losses divide by totals over all processes
(:func:`mean_over_ranks`), so that the average is the gradient of the joint batch.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
from torch import distributed

from harmony_app.errors import OptionError

TIMEOUT = timedelta(minutes=60)
"""How long a process waits for the others, for example while the first one fills the cache."""


@dataclass(frozen=True)
class Ranks:
    """A process among all that train together.

    Parameters
    ----------
    rank, world : int
        Its number, and how many there are.
    local : int
        Its number on its machine: the device that it takes.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Examples of the joint batch that it draws: rank, rank + world, ...

        Examples
        --------
        >>> list(Ranks(1, 2).share(6))
        [1, 3, 5]
        """
        return range(self.rank, batch, self.world)

    def device(self, wanted: str) -> str:
        """Device of this process: of several on a machine each takes its own.

        Examples
        --------
        >>> Ranks(5, 8, 1).device('cuda'), Ranks(1, 2, 1).device('cpu')
        ('cuda:1', 'cpu')
        """
        return f'cuda:{self.local}' if wanted == 'cuda' and self.world > 1 else wanted

    def agree(self, stop: bool, done: float) -> tuple[bool, float]:
        """Whether any process was told to stop, and the share of the budget by the first one."""
        if self.world == 1:
            return stop, done
        told = torch.tensor([float(stop), done if self.first else -1.0], dtype=torch.float64)
        told = told.to(_device())
        distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return bool(told[0] > 0), float(told[1])

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes.

        One that no process has stays absent; where only some have it, the others count as zero.
        """
        if self.world == 1:
            return
        parameters = [p for p in parameters if p.requires_grad]
        if not parameters:
            return
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=_device())
        distributed.all_reduce(has, distributed.ReduceOp.MAX)
        reached = [p for p, one in zip(parameters, has.tolist(), strict=True) if one]
        if not reached:
            return
        for parameter in reached:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        joined = torch.cat([p.grad.reshape(-1) for p in reached])
        distributed.all_reduce(joined)
        joined /= self.world
        parts = joined.split([p.numel() for p in reached])
        for parameter, part in zip(reached, parts, strict=True):
            parameter.grad.copy_(part.view_as(parameter))

    def same_start(self, modules: Iterable[torch.nn.Module]) -> None:
        """Give every process the weights of the first one."""
        if self.world > 1:
            for module in modules:
                for tensor in module.state_dict().values():
                    distributed.broadcast(tensor, 0)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of some numbers over all processes."""
        return values if self.world == 1 else mean_over_ranks(values)

    def wait(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            distributed.barrier()


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Mean over all processes, without a gradient; the values themselves with one process.

    A loss that is a sum divided by a count divides by this mean of the counts instead: the
    mean of the losses of all processes is then the loss of the joint batch.
    """
    values = values.detach()
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


def joint(values: torch.Tensor) -> torch.Tensor:
    """Rows of all processes in the order of the joint batch, without a gradient.

    Parameters
    ----------
    values : Tensor, shape (B, ...)
        One row for each example of this process; every process has as many.

    Returns
    -------
    Tensor, shape (B * world, ...)
    """
    values = values.detach()
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, values.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def neighbours(values: torch.Tensor) -> torch.Tensor:
    """For each example the row of the example before it in the joint batch, without a gradient."""
    rolled = joint(values).roll(1, dims=0)
    if len(rolled) == len(values):
        return rolled
    return rolled[distributed.get_rank() :: distributed.get_world_size()]


def start(device: str, environment: Mapping[str, str] | None = None) -> Ranks:
    """Join the other processes of a training, where there are any.

    Parameters
    ----------
    device : str
        ``cpu`` (gloo) or ``cuda`` (nccl).
    environment : mapping, optional
        Variables of torchrun (``RANK``, ``WORLD_SIZE`` ...) or of a SLURM step.

    Raises
    ------
    OptionError
        Where the variables do not fit together, or one device is named for several processes.
    """
    found = read_environment(os.environ if environment is None else environment)
    if found is None:
        return Ranks()
    ranks, address, port = found
    if device == 'cuda':
        # a scheduler may show each process one device only
        ranks = replace(ranks, local=ranks.local % max(1, torch.cuda.device_count()))
    if device.startswith('cuda:'):
        raise OptionError(f'--device {device} with {ranks.world} processes: give --device cuda')
    if not distributed.is_initialized():
        if device == 'cuda':
            torch.cuda.set_device(ranks.local)
        distributed.init_process_group(
            'nccl' if device == 'cuda' else 'gloo',
            init_method=f'tcp://{address}:{port}',
            rank=ranks.rank,
            world_size=ranks.world,
            timeout=TIMEOUT,
        )
    return ranks


def finish() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def read_environment(environment: Mapping[str, str]) -> tuple[Ranks, str, int] | None:
    """Rank, address and port of the first process; None where there is one process only.

    Examples
    --------
    >>> read_environment(
    ...     {
    ...         'SLURM_PROCID': '3',
    ...         'SLURM_STEP_NUM_TASKS': '4',
    ...         'SLURM_LOCALID': '1',
    ...         'SLURM_STEP_NODELIST': 'gpu[07-08,11]',
    ...         'SLURM_JOB_ID': '4100017',
    ...     }
    ... )
    (Ranks(rank=3, world=4, local=1), 'gpu07', 20017)
    >>> read_environment({'SLURM_PROCID': '0', 'SLURM_NTASKS': '4'}) is None  # no step of srun
    True
    """
    try:
        if int(environment.get('WORLD_SIZE', 1)) > 1:
            ranks = Ranks(
                int(environment['RANK']),
                int(environment['WORLD_SIZE']),
                int(environment.get('LOCAL_RANK', 0)),
            )
            return ranks, environment['MASTER_ADDR'], int(environment['MASTER_PORT'])
        if int(environment.get('SLURM_STEP_NUM_TASKS', 1)) > 1:
            ranks = Ranks(
                int(environment['SLURM_PROCID']),
                int(environment['SLURM_STEP_NUM_TASKS']),
                int(environment.get('SLURM_LOCALID', 0)),
            )
            address = environment.get('MASTER_ADDR') or _first_host(
                environment['SLURM_STEP_NODELIST']
            )
            # jobs that share a machine must not share a port
            port = (
                environment.get('MASTER_PORT') or 20000 + int(environment['SLURM_JOB_ID']) % 10000
            )
            return ranks, address, int(port)
    except (KeyError, ValueError) as error:
        raise OptionError(
            f'the variables of torchrun or SLURM do not fit together ({error!r}); start with '
            'torchrun --nproc-per-node N -m harmony_app ..., or with srun'
        ) from error
    return None


def _first_host(nodes: str) -> str:
    """First of a list of SLURM, for example ``gpu[07-08,11],big1``."""
    match = re.match(r'([^\[,]+)(?:\[([^\],-]+))?', nodes)
    if match is None:
        raise ValueError(nodes)
    return match[1] + (match[2] or '')


def _device() -> torch.device:
    """Where the backend wants its tensors."""
    if distributed.get_backend() == 'nccl':
        return torch.device('cuda', torch.cuda.current_device())
    return torch.device('cpu')
