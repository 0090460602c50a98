"""What to do where the accelerator has too little memory: fewer slices at a time, then the CPU."""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from harmony_app.errors import ExitCode, HarmonyError, one_line
from harmony_app.methods.base import Method
from harmony_app.methods.registry import find_class
from harmony_app.workflows.failures import DEVICE_FULL

logger = logging.getLogger('harmony_app')

Result = TypeVar('Result')


class DeviceMemoryError(HarmonyError):
    """The accelerator is too small, or others fill it."""

    exit_code = ExitCode.RETRY


def within_device_memory(
    name: str,
    device: str,
    options: Mapping,
    falls_back: bool,
    make: Callable[[str, Mapping], Method],
    use: Callable[[Method, str], Result],
) -> Result:
    """Use a method with as many slices at a time as the accelerator has room for.

    Parameters
    ----------
    name : str
        Name of the method.
    device : str
        Where it runs.
    options : mapping
        Its settings.
    falls_back : bool
        Whether the CPU may take over: where the device was not asked for (``--device auto``).
    make : callable
        Makes the method on a device with options.
    use : callable
        What is done with it and its device; has to be able to begin again.

    Returns
    -------
    result
        What ``use`` gave.

    Raises
    ------
    DeviceMemoryError
        Where one slice at a time does not fit either, and a device was asked for.
    """
    if device == 'cpu':
        return use(make(device, options), device)
    import torch

    for tried, changed in _attempts(name, device, options, falls_back):
        try:
            return use(make(tried, options | changed), tried)
        except torch.OutOfMemoryError as error:
            logger.warning('%s: %s', DEVICE_FULL, one_line(error))
            # The frames of the error hold tensors.
            error.__traceback__ = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise DeviceMemoryError(
        f'{DEVICE_FULL} for one slice at a time: end what else runs there, give --device cpu, or '
        '--device auto, which goes on on the CPU by itself'
    )


def _attempts(
    name: str, device: str, options: Mapping, falls_back: bool
) -> Iterator[tuple[str, dict]]:
    """Devices and changed options, from fast to frugal."""
    yield device, {}
    method = find_class(name)
    known = inspect.signature(method.load if method.needs_training else method).parameters
    if 'batch' in known:
        batch = options.get('batch', known['batch'].default)
        while batch > 1:
            batch = max(batch // 4, 1)
            logger.warning('%s: again with %d slices at a time', name, batch)
            yield device, {'batch': batch}
    if falls_back:
        logger.warning('%s: goes on on the CPU', name)
        yield 'cpu', {}
