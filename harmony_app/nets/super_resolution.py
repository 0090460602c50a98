"""The network that adds to cubic B-splines what thin slices would have shown."""

import torch
from torch import nn
from torch.nn import functional


class SliceNetwork(nn.Module):
    """Residual of thin slices against the B-spline through thick ones, in two dimensions.

    It works on planes that hold one axis of the slices' plane and the slice axis, at the spacing
    of the thick slices: the last layer gives each thick slice as many channels as there are thin
    ones in it (sub-pixel convolution, Shi 2016, along one axis). So a plane costs ``factor`` times
    less than by a network between images of the fine grid.

    No layer has a bias: a scan in another unit gives the same result in that unit. The last layer
    begins at zero: an untrained network is the B-spline.

    Parameters
    ----------
    factor : int
        Thin slices in a thick one.
    width : int
        Channels of the hidden layers.
    layers : int
        Hidden layers.
    kernel : tuple of int
        Of all convolutions: along the plane, along the slices.
    """

    def __init__(
        self, factor: int, width: int = 24, layers: int = 5, kernel: tuple[int, int] = (5, 3)
    ):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)

        def convolution(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)

        self.first = convolution(1, width)
        self.hidden = nn.ModuleList(convolution(width, width) for _ in range(layers))
        self.last = convolution(width, factor)
        nn.init.zeros_(self.last.weight)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """What to add to the B-spline.

        Parameters
        ----------
        planes : Tensor, shape (B, A, N)
            N thick slices seen from the side.

        Returns
        -------
        Tensor, shape (B, A, N * factor)
        """
        hidden = self.first(planes[:, None])
        for layer in self.hidden:
            hidden = hidden + layer(functional.relu(hidden))
        residual = self.last(functional.relu(hidden))
        return residual.permute(0, 2, 3, 1).reshape(*planes.shape[:2], -1)
