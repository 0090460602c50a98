"""What a network costs: parameters and floating point operations."""

from torch import nn

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


class FlopCounter:
    """Count the multiplications and additions of convolutions and linear layers in a block.

    Parameters
    ----------
    module : Module
        Watched from entry to exit.

    Attributes
    ----------
    flops : int
        Two for each multiply-add.

    Examples
    --------
    >>> import torch
    >>> layer = nn.Conv2d(2, 3, 3, padding=1)
    >>> with FlopCounter(layer) as counter:
    ...     _ = layer(torch.zeros(1, 2, 10, 10))
    >>> counter.flops == 2 * 9 * 2 * 3 * 100
    True
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.flops = 0
        self._handles = []

    def __enter__(self) -> 'FlopCounter':
        for part in self.module.modules():
            if isinstance(part, (*_CONVOLUTIONS, nn.Linear)):
                self._handles.append(part.register_forward_hook(self._count))
        return self

    def __exit__(self, *error) -> None:
        for handle in self._handles:
            handle.remove()

    def _count(self, part, inputs, output) -> None:
        per_output = part.weight[0].numel()
        self.flops += 2 * per_output * output.numel()


def parameters(module: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in module.parameters())
