"""Random crops of volumes: a plane, a place, a mild deformation."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from harmony_app.errors import OptionError


class CropDraw:
    """Draws that all come from one generator.

    Parameters
    ----------
    size : int
        Height and width of the crops.
    rng : numpy.random.Generator
        Draws everything.
    """

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng

    def crop(
        self, volumes: Sequence[np.ndarray], points: np.ndarray, axis: int | None = None
    ) -> torch.Tensor:
        """Crop (C, size, size), float32, of a random, mildly deformed plane.

        Parameters
        ----------
        volumes : sequence of ndarray, shape (C, X, Y, Z)
            Of one grid; memory-mapped ones are read where needed.
        points : ndarray, shape (N, 3)
            Places to choose from.
        axis : int, optional
            That the plane lies across; drawn without.
        """
        rng, size = self.rng, self.size
        centre = points[int(rng.integers(len(points)))]
        if axis is None:
            axis = int(rng.integers(3))
        window = size + size // 4
        index = [slice(None)]
        for i, length in enumerate(volumes[0].shape[1:]):
            if i == axis:
                index.append(int(centre[i]))
                continue
            jitter = int(rng.integers(-size // 4, size // 4 + 1))
            start = int(np.clip(centre[i] + jitter - window // 2, 0, max(0, length - window)))
            index.append(slice(start, start + window))
        parts = [np.asarray(volume[tuple(index)], np.float32) for volume in volumes]
        stack = torch.from_numpy(np.concatenate(parts))
        if rng.random() < 0.7:
            stack = self._warp(stack)
        else:
            rows, columns = ((n - size) // 2 for n in stack.shape[1:])
            stack = _window(stack, rows, columns, size)
        if rng.random() < 0.5:
            stack = stack.flip(1)
        return stack

    def _warp(self, stack: torch.Tensor) -> torch.Tensor:
        """Turn, scale and bend a window about its centre to a crop."""
        rng, size = self.rng, self.size
        angle, stretch = rng.normal(0, 0.15), np.exp(rng.normal(0, 0.08, 2))
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        line = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        points = torch.stack(torch.meshgrid(line, line, indexing='ij'), dim=-1)
        points = points @ torch.from_numpy((matrix * stretch).astype(np.float32))
        bend = rng.uniform(0, 3)
        points = points + bend * torch.stack([self.smooth(5), self.smooth(5)], dim=-1)
        half = torch.tensor([(n - 1) / 2 for n in stack.shape[1:]])
        grid = (points / half).flip(-1)[None]
        return functional.grid_sample(stack[None], grid, align_corners=True)[0]

    def smooth(self, control: int) -> torch.Tensor:
        """Smooth random field (size, size) of about unit spread."""
        noise = torch.from_numpy(self.rng.standard_normal((control, control), np.float32))
        weights = cubic_weights(self.size, control)
        return weights @ noise @ weights.T

    def field_of_view(self, shown: np.ndarray) -> np.ndarray:
        """Now and then a side of the head is not scanned."""
        if self.rng.random() > 0.15:
            return shown
        axis, rows = int(self.rng.integers(2)), np.arange(self.size)
        edge = int(self.rng.uniform(0.5, 0.9) * self.size)
        seen = rows < edge if self.rng.random() < 0.5 else rows >= self.size - edge
        return shown & (seen[:, None] if axis == 0 else seen[None])


@lru_cache(maxsize=64)
def cubic_weights(size: int, control: int) -> torch.Tensor:
    """Cubic interpolation of ``control`` points to ``size``, as a matrix: fields are cheap so."""
    unit = torch.eye(control)[:, None, :, None].expand(-1, -1, -1, 4)
    weights = functional.interpolate(unit, (size, 4), mode='bicubic', align_corners=True)
    return weights[:, 0, :, 0].T.contiguous()


def _window(stack: torch.Tensor, rows: int, columns: int, size: int) -> torch.Tensor:
    """Crop (K, size, size) from a corner; zeros beyond the edges."""
    below, right = (max(0, size - n) for n in stack.shape[1:])
    stack = functional.pad(stack, (0, right, 0, below))
    rows, columns = max(rows, 0), max(columns, 0)
    return stack[:, rows : rows + size, columns : columns + size]


def foreground_points(name: str, brain: np.ndarray, shown: np.ndarray, step: int = 8) -> np.ndarray:
    """Centres of crops: every voxel of a coarse lattice in the brain, and a part of the rest.

    Parameters
    ----------
    name : str
        For the message.
    brain : ndarray, shape (X, Y, Z), uint8
        Brain at 255.
    shown : ndarray, shape (C, X, Y, Z), uint8
        Parts that together show something, 255 in sum.

    Returns
    -------
    ndarray, shape (N, 3)

    Raises
    ------
    ValueError
        Where nothing is shown.
    """
    coarse = (slice(None, None, step),) * 3
    inside = np.argwhere(np.asarray(brain[coarse]) > 127)
    whole = np.zeros(tuple(len(range(0, n, step)) for n in brain.shape), np.int32)
    for part in shown:
        whole += part[coarse]
    rest = np.argwhere(whole > 127)
    points = np.concatenate([inside] * 3 + [rest]) * step
    if not len(points):
        raise ValueError(f'{name} shows nothing')
    return points


def check_size(size: int) -> None:
    """Refuse crops that the U-Nets cannot halve."""
    if size < 16 or size % 16:
        raise OptionError(f'crops of {size} pixels: the edge must be a multiple of 16')
