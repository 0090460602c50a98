"""A network that predicts a three-dimensional bilateral grid of affine coefficients.

``y = a(x, I) * I + b(x, I)`` with ``a`` and ``b`` smooth in place x and intensity I (Chen
2016, ACM TOG 35:143; Gharbi 2017, ACM TOG 36:118). The grid is predicted at low resolution
and sliced with the scan itself as guide, so it cannot invent or erase structure.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

CELL = 8
"""Edge of a grid cell in voxels (mm) of the working grid."""

FEATURE_STEP = 4
"""Edge in voxels of the cubes over which the input features are averaged."""


def compress(intensity: torch.Tensor) -> torch.Tensor:
    """Map intensities 0 to infinity to 0 to 1; white matter (1) to a half.

    Even resolution over a range in which T1w ends at 2.5 and the CSF of T2w at 5.
    """
    intensity = intensity.clamp(min=0)
    return intensity / (1 + intensity)


@dataclass(frozen=True)
class TransferConfig:
    """Widths of the transfer network.

    Parameters
    ----------
    features : int
        Input feature maps (see :func:`harmony_app.methods.transfer_features.volume_features`).
    condition : int
        Length of the condition vector.
    width : int
        Channels at half the feature resolution; twice that below.
    bins : int
        Intensity bins of the grid, even in compressed intensity.
    last_bin : float
        Compressed intensity of the last bin.
    """

    features: int = 6
    condition: int = 78
    width: int = 24
    bins: int = 16
    last_bin: float = 0.9


class _Modulated(nn.Module):
    """Convolution whose channels the condition scales and shifts (Perez 2018, AAAI)."""

    def __init__(self, inputs: int, outputs: int, code: int, stride: int = 1):
        super().__init__()
        self.convolution = nn.Conv3d(inputs, outputs, 3, stride, 1)
        self.modulation = nn.Linear(code, 2 * outputs)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(code)[:, :, None, None, None].chunk(2, dim=1)
        return functional.leaky_relu(self.convolution(x) * (1 + scale) + shift, 0.1)


class TransferNetwork(nn.Module):
    """Predicts the grid from low-resolution features and the two styles.

    The last layers begin at zero, so that the untrained network is the identity.
    """

    def __init__(self, config: TransferConfig | None = None):
        super().__init__()
        self.config = config = config or TransferConfig()
        width, code = config.width, 64
        self.code = nn.Sequential(
            nn.Linear(config.condition, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(),
            nn.Linear(128, code), nn.SiLU(),
        )  # fmt: skip
        self.enter = _Modulated(config.features, width, code, stride=2)
        self.here = _Modulated(width, width, code)
        self.down = _Modulated(width, 2 * width, code, stride=2)
        self.below = _Modulated(2 * width, 2 * width, code)
        self.rise = nn.Conv3d(2 * width, width, 1)
        self.merge = _Modulated(width, width, code)
        self.local = nn.Conv3d(width, 2 * config.bins, 1)
        self.everywhere = nn.Sequential(
            nn.Linear(code, 128), nn.SiLU(), nn.Linear(128, 2 * config.bins)
        )
        for layer in (self.local, self.everywhere[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Predict grids.

        Parameters
        ----------
        features : Tensor, shape (B, features, X / 4, Y / 4, Z / 4)
            Averages of the working grid over cubes of :data:`FEATURE_STEP` voxels.
        condition : Tensor, shape (B, condition)
            Styles of source and target and the contrast.

        Returns
        -------
        Tensor, shape (B, 2 * bins, X / 8, Y / 8, Z / 8)
            Gain less one of every bin, then offset of every bin.
        """
        code = self.code(condition)
        x = self.here(self.enter(features, code), code)
        low = self.below(self.down(x, code), code)
        low = functional.interpolate(
            self.rise(low), size=x.shape[2:], mode='trilinear', align_corners=False
        )
        x = self.merge(x + low, code)
        return self.local(x) + self.everywhere(code)[:, :, None, None, None]


def slice_grid(
    coefficients: torch.Tensor, intensity: torch.Tensor, base: torch.Tensor, last_bin: float
) -> torch.Tensor:
    """Apply the coefficients of the two nearest bins at each voxel.

    Parameters
    ----------
    coefficients : Tensor, shape (N, 2 * bins)
        Gains less one, then offsets, sampled at each of N voxels.
    intensity : Tensor, shape (N,)
        The guide: the scan, white-matter peak at 1.
    base : Tensor, shape (N,)
        What the coefficients act on: the scan after the map of its tissue medians.
    last_bin : float
        Compressed intensity of the last bin.

    Returns
    -------
    Tensor, shape (N,)
        Transferred intensities, not below zero; zero stays zero.
    """
    bins = coefficients.shape[1] // 2
    place = (compress(intensity) / last_bin).clamp(max=1) * (bins - 1)
    lower = place.floor().clamp(max=bins - 2).long()
    upper_weight = place - lower

    def interpolated(table):
        low = table.gather(1, lower[:, None])[:, 0]
        high = table.gather(1, lower[:, None] + 1)[:, 0]
        return low + upper_weight * (high - low)

    gains, offsets = coefficients[:, :bins], coefficients[:, bins:]
    # what is dark stays dark: the offset fades in over the first bin
    offset = interpolated(offsets) * place.clamp(max=1)
    return ((1 + interpolated(gains)) * base + offset).clamp(min=0)


def sample_grid(grid: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Sample a grid at points of the working grid, trilinearly.

    Parameters
    ----------
    grid : Tensor, shape (C, X / 8, Y / 8, Z / 8)
        Cell i spans voxels 8 i to 8 i + 7; beyond the outer cell centres the border holds.
    points : Tensor, shape (N, 3)
        Voxel coordinates on the working grid.

    Returns
    -------
    Tensor, shape (N, C)
    """
    size = torch.tensor(grid.shape[1:], device=points.device, dtype=points.dtype)
    cells = (points - (CELL - 1) / 2) / CELL
    normal = 2 * cells / (size - 1) - 1
    sampled = functional.grid_sample(
        grid[None],
        normal.flip(1)[None, :, None, None, :],
        mode='bilinear',
        padding_mode='border',
        align_corners=True,
    )
    return sampled[0, :, :, 0, 0].T
