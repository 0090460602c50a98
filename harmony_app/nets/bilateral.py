"""A network that predicts a three-dimensional bilateral grid of affine coefficients.

``y = a(x, I) * I + b(x, I)`` with ``a`` and ``b`` smooth in place x and intensity I (Chen
2016, ACM TOG 35:143; Gharbi 2017, ACM TOG 36:118). The grid is predicted at low resolution
and sliced with the scan itself as guide, so it cannot invent or erase structure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FEATURE_STEP = 4
"""Edge in voxels of the cubes over which the input features are averaged."""

CELLS = (4, 8, 16, 32)
"""Edges of a grid cell in voxels (mm) of the working grid that the network can be built for."""


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
    cell : int
        Edge of a grid cell, one of :data:`CELLS`.
    guide : bool
        Whether the places of the bins are learned: a monotone curve of the compressed
        intensity, even where training begins (Gharbi 2017, section 3.4.1).
    base : bool
        Whether the coefficients act on the scan after the monotone map of its tissue levels;
        on the scan itself otherwise.
    style : bool
        Whether the network is told the condition; zeros otherwise. For ablation.
    """

    features: int = 6
    condition: int = 78
    width: int = 24
    bins: int = 16
    last_bin: float = 0.9
    cell: int = 8
    guide: bool = False
    base: bool = True
    style: bool = True

    def __post_init__(self):
        if self.cell not in CELLS:
            raise ValueError(f'a cell of {self.cell} voxels: choose one of {CELLS}')


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
        stride = min(2, config.cell // FEATURE_STEP)
        self.pooled = config.cell // FEATURE_STEP // stride
        self.enter = _Modulated(config.features, width, code, stride)
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
        self.steps = nn.Parameter(torch.zeros(config.bins - 1)) if config.guide else None

    def guide(self) -> torch.Tensor | None:
        """Learned places of the bins, 0 to 1, shape (bins,); None where they are even."""
        if self.steps is None:
            return None
        return functional.pad(self.steps.softmax(0).cumsum(0), (1, 0))

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
        Tensor, shape (B, 2 * bins, X / cell, Y / cell, Z / cell)
            Gain less one of every bin, then offset of every bin.
        """
        if not self.config.style:
            condition = torch.zeros_like(condition)
        if self.pooled > 1:
            features = functional.avg_pool3d(features, self.pooled)
        code = self.code(condition)
        x = self.here(self.enter(features, code), code)
        low = self.below(self.down(x, code), code)
        low = functional.interpolate(
            self.rise(low), size=x.shape[2:], mode='trilinear', align_corners=False
        )
        x = self.merge(x + low, code)
        return self.local(x) + self.everywhere(code)[:, :, None, None, None]


KNOTS = 3.0
"""Voxels of the working grid between knots along axes that are not those of the working grid."""


def slice_grid(
    coefficients: torch.Tensor,
    intensity: torch.Tensor,
    base: torch.Tensor,
    last_bin: float,
    guide: torch.Tensor | None = None,
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
    guide : Tensor, shape (bins,), optional
        Places of the bins, rising from 0 to 1 (at ``last_bin``); even where None.

    Returns
    -------
    Tensor, shape (N,)
        Transferred intensities, not below zero; zero stays zero.
    """
    bins = coefficients.shape[1] // 2
    place = (compress(intensity) / last_bin).clamp(max=1)
    if guide is None:
        place = place * (bins - 1)
        lower = place.floor().clamp(max=bins - 2).long()
    else:
        lower = (torch.bucketize(place, guide.detach(), right=True) - 1).clamp(0, bins - 2)
        low, high = guide[lower], guide[lower + 1]
        place = lower + ((place - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    upper_weight = place - lower

    def interpolated(table):
        low = table.gather(1, lower[:, None])[:, 0]
        high = table.gather(1, lower[:, None] + 1)[:, 0]
        return low + upper_weight * (high - low)

    gains, offsets = coefficients[:, :bins], coefficients[:, bins:]
    # what is dark stays dark: the offset fades in over the first bin
    offset = interpolated(offsets) * place.clamp(max=1)
    return ((1 + interpolated(gains)) * base + offset).clamp(min=0)


def sample_grid(grid: torch.Tensor, points: torch.Tensor, cell: int = 8) -> torch.Tensor:
    """Sample a grid at points of the working grid, trilinearly.

    Parameters
    ----------
    grid : Tensor, shape (C, X / cell, Y / cell, Z / cell)
        Beyond the outer cell centres the border holds.
    points : Tensor, shape (N, 3)
        Voxel coordinates on the working grid.
    cell : int
        Edge of a cell: cell i of 8 spans voxels 8 i to 8 i + 7.

    Returns
    -------
    Tensor, shape (N, C)
    """
    size = torch.tensor(grid.shape[1:], device=points.device, dtype=points.dtype)
    cells = (points - (cell - 1) / 2) / cell
    normal = 2 * cells / (size - 1) - 1
    sampled = functional.grid_sample(
        grid[None],
        normal.flip(1)[None, :, None, None, :],
        mode='bilinear',
        padding_mode='border',
        align_corners=True,
    )
    return sampled[0, :, :, 0, 0].T


def sample_planes(
    grid: torch.Tensor, matrix: np.ndarray, box: Sequence[slice], cell: int = 8
) -> Iterator[torch.Tensor]:
    """Sample a grid at all voxels of a box of a volume, plane by plane.

    The coefficients are smooth over a cell: they are sampled at the knots of a lattice along the
    axes of the volume, and interpolated between these axis by axis, which is far less work than
    to sample at each voxel. Where the axes are those of the working grid the knots are the cell
    centres, and the result is that of :func:`sample_grid`; elsewhere knots lie :data:`KNOTS`
    voxels of the working grid apart, and the kinks at cell centres are cut by that much.

    Parameters
    ----------
    grid : Tensor, shape (C, X / cell, Y / cell, Z / cell)
        As for :func:`sample_grid`.
    matrix : ndarray, shape (4, 4)
        Voxels of the volume to those of the working grid.
    box : sequence of 3 slice
        Voxels of the volume.
    cell : int
        Edge of a cell.

    Yields
    ------
    Tensor, shape (C, Y, Z)
        Of each plane of the first axis of the box.
    """
    knots = [
        _knots(matrix, axis, part, grid.shape[1 + axis], cell) for axis, part in enumerate(box)
    ]
    points = np.stack(np.meshgrid(*knots, indexing='ij'), axis=-1).reshape(-1, 3)
    points = torch.from_numpy(points @ matrix[:3, :3].T + matrix[:3, 3]).to(grid)
    lattice = sample_grid(grid, points, cell).T.reshape(-1, *map(len, knots))
    along, rows, columns = (
        torch.from_numpy(_hats(np.arange(part.start, part.stop), places)).to(grid)
        for part, places in zip(box, knots, strict=True)
    )
    for weights in along:
        used = torch.nonzero(weights)[:, 0]
        plane = torch.einsum('k,ckbd->cbd', weights[used], lattice[:, used])
        yield rows @ (plane @ columns.T)


def _knots(matrix: np.ndarray, axis: int, part: slice, cells: int, cell: int) -> np.ndarray:
    """Places along an axis of a volume between which coefficients are interpolated, rising."""
    first, last = float(part.start), float(part.stop - 1)
    scales = np.diag(matrix[:3, :3])
    if np.allclose(matrix[:3, :3], np.diag(scales), atol=1e-6):
        centres = np.arange(cells) * cell + (cell - 1) / 2
        inner = (centres - matrix[axis, 3]) / scales[axis]
        inner = inner[(inner > first) & (inner < last)]
    else:
        inner = np.arange(first, last, KNOTS / np.linalg.norm(matrix[:3, axis]))
    return np.unique(np.concatenate([[first], inner, [last]]))


def _hats(places: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Weights of the knots in a linear interpolation at places, shape (places, knots)."""
    return np.stack([np.interp(places, knots, row) for row in np.eye(len(knots))], axis=1)
