"""Fusion of the volumes that were decoded in three orientations into one."""

import torch
from torch import nn
from torch.nn import functional

AROUND = 2
"""Voxels on each side in which differences are averaged, to be a unit."""

LEAST = 0.01
"""Difference (white matter is 1) that is taken for none."""


class FusionNet(nn.Module):
    """A small 3D network that weighs the three orientations and their median in every voxel.

    Its result lies between the least and the greatest of the three. Where the decoder meets the
    level of a tissue badly, no fusion could tell what the level should be; a network that is free
    to correct it learns the levels of the blocks that it saw, and loses to the median elsewhere.
    So it sees neither levels nor contrast: only how far the orientations lie from their median,
    in units of how far they do so around.

    Parameters
    ----------
    width : int
        Channels of its two hidden layers.
    """

    halo = 3 + AROUND
    """Voxels around a block that its result depends on."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Conv3d(3, width, 3, padding=1), nn.Conv3d(width, width, 3, padding=1)]
        )
        self.head = nn.Conv3d(width, 4, 3, padding=1)
        # untrained it weighs all alike
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, volumes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fuse.

        Parameters
        ----------
        volumes : Tensor, shape (B, 3, X, Y, Z)
            Axial, coronal and sagittal result, zero outside the mask.
        mask : Tensor, shape (B, 1, X, Y, Z)
            Union of the foregrounds, 0 or 1.

        Returns
        -------
        Tensor, shape (B, 1, X, Y, Z)
            Not negative, zero outside the mask.
        """
        median = volumes.median(dim=1, keepdim=True).values
        candidates = torch.cat([volumes, median], dim=1)
        if not (self.training or self.head.weight.any() or self.head.bias.any()):
            # all weigh alike: that needs no layers
            return candidates.mean(dim=1, keepdim=True).clamp_min(0) * mask
        apart = volumes - median
        around = functional.avg_pool3d(
            apart.abs().mean(dim=1, keepdim=True), 2 * AROUND + 1, stride=1, padding=AROUND
        )
        features = apart / (around + LEAST)
        for layer in self.layers:
            features = functional.leaky_relu(layer(features), 0.1) * mask
        weights = self.head(features).softmax(dim=1)
        return (weights * candidates).sum(dim=1, keepdim=True).clamp_min(0) * mask
