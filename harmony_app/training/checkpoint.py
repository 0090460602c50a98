"""Checkpoints of a training: one safetensors file, its header carries the rest as JSON.

One file is written whole or not at all, so weights, optimiser and progress can never come
from different moments. No pickle.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from harmony_app.errors import InputError, OutputError
from harmony_app.methods.model_folder import write_atomically

AVERAGE = 'average.'
"""What the names of the averaged weights begin with in a checkpoint."""


def save_checkpoint(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    facts: Mapping,
) -> None:
    """Write everything that an exact resume needs.

    Parameters
    ----------
    path : Path
        File in a folder that exists; replaced atomically.
    modules : mapping of str to Module
        Networks (also their running average) by a name without a dot.
    optimizer : Optimizer
        AdamW or Adam.
    facts : mapping
        What JSON can say: progress and settings.

    Raises
    ------
    OutputError
        Where the file cannot be written.
    """
    tensors = {
        f'{name}.{key}': tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    state = optimizer.state_dict()
    for index, slots in state['state'].items():
        for key, value in slots.items():
            tensors[f'optimizer.{index}.{key}'] = torch.as_tensor(value)
    header = {'facts': json.dumps(dict(facts)), 'groups': json.dumps(state['param_groups'])}
    _write(path, tensors, header)


def load_checkpoint(
    path: Path, modules: Mapping[str, torch.nn.Module], optimizer: torch.optim.Optimizer
) -> dict:
    """Continue from a checkpoint: put back what :func:`save_checkpoint` wrote.

    Returns
    -------
    dict
        The facts.

    Raises
    ------
    InputError
        Where it is absent, broken, or of other networks.
    """
    tensors, header = _read(path)
    slots: dict[int, dict] = {}
    for key, tensor in tensors.items():
        name, _, rest = key.partition('.')
        if name == 'optimizer':
            index, _, slot = rest.partition('.')
            slots.setdefault(int(index), {})[slot] = tensor
    try:
        for name, module in modules.items():
            start = f'{name}.'
            module.load_state_dict(
                {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
            )
        groups = json.loads(header['groups'])
        optimizer.load_state_dict({'state': slots, 'param_groups': groups})
        # fused optimisers walk through memory: the layout must be that of the weights
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                if value.shape == parameter.shape:
                    state[key] = torch.empty_like(parameter).copy_(value)
        return json.loads(header['facts'])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f'{path} is a checkpoint of other networks: {reason}') from error


def save_weights(path: Path, network: torch.nn.Module, facts: Mapping) -> None:
    """Write the weights of one network, as float32, with what JSON can say of them."""
    _write(path, network.state_dict(), {'facts': json.dumps(dict(facts))})


def load_averaged(path: Path, network: torch.nn.Module) -> dict:
    """Put weights into a network: those of :func:`save_weights`, or the average of a checkpoint.

    Returns
    -------
    dict
        The facts.

    Raises
    ------
    InputError
        Where the file is absent, broken, or of another network.
    """
    tensors, header = _read(path)
    averaged = {k.removeprefix(AVERAGE): t for k, t in tensors.items() if k.startswith(AVERAGE)}
    try:
        network.load_state_dict(averaged or tensors)
        return json.loads(header['facts'])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f'{path} holds the weights of another network: {reason}') from error


def read_facts(path: Path) -> dict:
    """Facts of a checkpoint or of weights, without the tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            return json.loads((stream.metadata() or {})['facts'])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f'{path} is not a checkpoint: {error}') from error


def _write(path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str]) -> None:
    from safetensors.torch import save

    stored = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    try:
        write_atomically(Path(path), save(stored, metadata=header))
    except OSError as error:
        raise OutputError(f'cannot write the checkpoint {path}: {error.strerror}') from error


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
            return tensors, stream.metadata() or {}
    except FileNotFoundError as error:
        raise InputError(f'{path}: no checkpoint to resume from') from error
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} is not a checkpoint: {error}') from error
