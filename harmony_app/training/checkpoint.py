"""Checkpoints of a training: one safetensors file, its header carries the rest as JSON.

One file is written whole or not at all, so weights, optimiser, random states and progress
can never come from different moments. No pickle.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from harmony_app.errors import InputError, OutputError
from harmony_app.methods.model_folder import write_atomically


def save_checkpoint(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    progress: Mapping,
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
    generator : torch.Generator
        Noise of the training step.
    progress : mapping
        What JSON can say: step, seconds, state of the sampler, settings.

    Raises
    ------
    OutputError
        Where the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {'generator': generator.get_state()}
    for name, module in modules.items():
        for key, tensor in module.state_dict().items():
            tensors[f'{name}.{key}'] = tensor.detach().cpu().contiguous()
    state = optimizer.state_dict()
    for index, slots in state['state'].items():
        for key, value in slots.items():
            tensors[f'optimizer.{index}.{key}'] = torch.as_tensor(value).detach().cpu().contiguous()
    header = {'progress': json.dumps(dict(progress)), 'groups': json.dumps(state['param_groups'])}
    try:
        write_atomically(Path(path), save(tensors, metadata=header))
    except OSError as error:
        raise OutputError(f'cannot write the checkpoint {path}: {error.strerror}') from error


def load_checkpoint(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> dict:
    """Continue from a checkpoint: put back what :func:`save_checkpoint` wrote.

    Returns
    -------
    dict
        The progress.

    Raises
    ------
    InputError
        Where it is absent, broken, or of other networks.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            header = stream.metadata()
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f'{path}: no checkpoint to resume from') from error
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} is not a checkpoint: {error}') from error
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
        generator.set_state(tensors['generator'])
        return json.loads(header['progress'])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f'{path} is a checkpoint of other networks: {reason}') from error
