"""A model is a folder: ``model.json`` and ``weights.safetensors``, never a pickle.

``model.json`` names the method and the sha256 of the weights, which is checked before a
single tensor is read.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from harmony_app import __version__
from harmony_app.errors import ModelError, OutputError, one_line
from harmony_app.imaging.grid import SPACE, WORKING_SHAPE
from harmony_app.methods.base import CONTRASTS

METADATA = 'model.json'
WEIGHTS = 'weights.safetensors'

LARGEST_FILE = 2**32
"""Bytes of weights that are read."""

LARGEST_NUMBER, LONGEST_LIST = 4096, 256
"""Largest width or count, and longest list, that the description of a network holds."""

NOT_DESCRIBED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What is raised where ``model.json`` does not hold what it should."""

Networks = TypeVar('Networks')


def common_metadata(licence: str) -> dict:
    """What ``model.json`` says of every model that is trained here."""
    return {
        'version': __version__,
        'licence': licence,
        'contrasts': list(CONTRASTS),
        'grid': {'space': SPACE, 'shape': list(WORKING_SHAPE), 'zooms': [1.0, 1.0, 1.0]},
        'normalization': 'white-matter peak at 1',
    }


def write_model_folder(
    folder: Path, metadata: Mapping, tensors: Mapping, half: bool = True
) -> None:
    """Write a model folder; an old model there is replaced file by file.

    Parameters
    ----------
    folder : Path
        Made where absent.
    metadata : mapping
        What JSON can say, with at least ``method``; ``weights_sha256`` and ``parameters``
        are added.
    tensors : mapping of str to torch.Tensor
        Weights; written on the CPU and contiguous.
    half : bool
        Store floating-point tensors as float16 (the folder is half as large); they come
        back as float32.

    Raises
    ------
    ModelError
        Where a weight is not finite as stored.
    OutputError
        Where the folder cannot be written.
    """
    import torch
    from safetensors.torch import save

    if 'method' not in metadata:
        raise ValueError('the metadata of a model names its method')
    stored = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float16 if half else torch.float32)
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f'weight {name} is not finite; the model was not written to {folder}'
                )
        stored[name] = tensor.contiguous()
    weights = save(stored)
    fields = dict(metadata) | {
        'parameters': sum(math.prod(tensor.shape) for tensor in stored.values()),
        'weights_sha256': hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(fields, indent=2, allow_nan=False) + '\n'
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / WEIGHTS, weights)
        write_atomically(folder / METADATA, text.encode())
    except OSError as error:
        raise OutputError(f'cannot write the model folder {folder}: {error.strerror}') from error


def read_model_folder(folder: Path, method: str) -> tuple[dict, dict]:
    """Read a model folder after checking that it is whole and of the right method.

    Parameters
    ----------
    folder : Path
        Model folder.
    method : str
        Name of the method that wants it.

    Returns
    -------
    metadata : dict
        Content of ``model.json``.
    tensors : dict of str to torch.Tensor
        Weights on the CPU, floating-point ones as float32.

    Raises
    ------
    ModelError
        One line: absent, unreadable, of another method, or weights that are not those
        that ``model.json`` describes.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    if metadata['method'] != method:
        raise ModelError(
            f'{folder} is a model of the method {metadata["method"]}, not of {method}; '
            'give another model folder or another method'
        )
    try:
        if (folder / WEIGHTS).stat().st_size > LARGEST_FILE:
            raise ModelError(f'{folder / WEIGHTS} is larger than any model; it was not read')
        weights = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f'{folder} has no {WEIGHTS}; the model folder is incomplete') from error
    except OSError as error:
        raise ModelError(f'cannot read {folder / WEIGHTS}: {error.strerror}') from error
    if hashlib.sha256(weights).hexdigest() != metadata.get('weights_sha256'):
        raise ModelError(
            f'{folder / WEIGHTS} is not the file that {METADATA} describes (sha256 differs); '
            'copy the model folder again'
        )

    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(weights)
    except (SafetensorError, *NOT_DESCRIBED) as error:
        raise ModelError(f'{folder / WEIGHTS} is not a safetensors file: {error}') from error
    return metadata, {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def read_metadata(folder: Path) -> dict:
    """Read ``model.json`` alone (light: no torch).

    Raises
    ------
    ModelError
        Where it is absent, no JSON object, or names no method.
    """
    path = Path(folder) / METADATA
    try:
        metadata = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f'{folder} is no model folder: it has no {METADATA}') from error
    except OSError as error:
        raise ModelError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f'{path} is not valid JSON; copy the model folder again') from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get('method'), str):
        raise ModelError(f'{path} does not name the method of the model')
    return metadata


def build_networks(
    folder: Path, method: str, described: Mapping, tensors: Mapping, build: Callable[[], Networks]
) -> Networks:
    """Make the networks that ``model.json`` describes, once it is seen that they fit the weights.

    A description can ask for more than a machine has; it is first made without memory.

    Parameters
    ----------
    folder : Path
        Model folder, for messages.
    method : str
        Name of the method.
    described : mapping
        Content of ``model.json``.
    tensors : mapping of str to torch.Tensor
        Its weights.
    build : callable
        Makes the networks; of a tuple some may be None.

    Raises
    ------
    ModelError
        Where they are not described, or are larger than the weights.
    """
    import torch

    wrong = (*NOT_DESCRIBED, RuntimeError, ArithmeticError, RecursionError)
    try:
        for name in ('network', 'networks', 'energies', 'fusion'):
            _check_numbers(described.get(name))
        with torch.device('meta'):
            made = build()
        parts = made if isinstance(made, tuple) else (made,)
        asked = sum(
            t.numel() for part in parts if part is not None for t in part.state_dict().values()
        )
        given = sum(tensor.numel() for tensor in tensors.values())
        if asked > given:
            raise ValueError(f'they have {asked} numbers, and the weights {given}')
        return build()
    except wrong as error:
        raise ModelError(
            f'{folder}/{METADATA} does not describe networks of {method} ({one_line(error)})'
        ) from error


def _check_numbers(value, depth: int = 0) -> None:
    """Refuse sizes and counts that no network has."""
    if isinstance(value, Mapping | list):
        if len(value) > LONGEST_LIST or depth > LONGEST_LIST:
            raise ValueError(f'a list of {len(value)} entries')
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in items:
            if name != 'seed':
                _check_numbers(item, depth + 1)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
        raise ValueError(f'a size of {value}')


def load_weights(module, tensors: Mapping, folder: Path) -> None:
    """Put tensors of a model folder into a torch module, strictly.

    Raises
    ------
    ModelError
        Where names or shapes are not those of the module.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise ModelError(
                f'the weights of {folder} lack {name}; the model does not fit its {METADATA}'
            )
        if tuple(tensors[name].shape) != tuple(tensor.shape):
            raise ModelError(
                f'in the weights of {folder}, {name} has shape {tuple(tensors[name].shape)} '
                f'where its {METADATA} asks for {tuple(tensor.shape)}'
            )
    unknown = sorted(set(tensors) - set(wanted))
    if unknown:
        raise ModelError(f'the weights of {folder} hold {unknown[0]}, unknown to its {METADATA}')
    module.load_state_dict(dict(tensors), strict=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment it is the old one or the new one, whole.

    Parameters
    ----------
    path : Path
        File in a folder that exists.
    content : bytes
        What it shall hold.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
