"""Where and how networks run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from harmony_app.errors import OptionError


@dataclass(frozen=True)
class Compute:
    """Device, precision and batch of inference.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    autocast : bool
        Mixed precision (bfloat16) on CUDA; without effect on the CPU, where results are
        the same bit for bit from run to run.
    batch : int
        Slices computed at once.

    Raises
    ------
    OptionError
        Where this machine has no such device.
    """

    device: str = 'cpu'
    autocast: bool = False
    batch: int = 16

    def __post_init__(self):
        try:
            kind = torch.device(self.device).type
        except RuntimeError as error:
            raise OptionError(f'--device {self.device}: no such device; use cpu or cuda') from error
        present = {
            'cpu': True,
            'cuda': torch.cuda.is_available(),
            'mps': torch.backends.mps.is_available(),
        }
        if not present.get(kind, False):
            raise OptionError(f'--device {self.device}: this machine has none; use cpu')

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inference mode, and mixed precision where asked."""
        kind = torch.device(self.device).type
        mixed = self.autocast and kind == 'cuda'
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=mixed):
            yield

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A copy of an array on the device, as float32."""
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch: sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
