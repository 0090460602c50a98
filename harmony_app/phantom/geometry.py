"""Where a head lies in the scanner, and the grid that a protocol lays over it."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from harmony_app.phantom.anatomy import Anatomy
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES

AXES = {
    'axial': ((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
    'sagittal': ((0, -1, 0), (0, 0, 1), (1, 0, 0)),
    'coronal': ((-1, 0, 0), (0, 0, 1), (0, 1, 0)),
}
"""Directions (RAS) of columns, rows and slices as DICOM converters store them: LAS, PSR, LSA."""

_BRAIN = [TISSUES.index(name) for name in BRAIN_TISSUES]


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a scan lie.

    Parameters
    ----------
    shape : tuple of 3 int
        Columns, rows, slices.
    affine : ndarray, shape (4, 4)
        Voxel indices to RAS mm of the scanner.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm."""
        return tuple(float(z) for z in np.linalg.norm(self.affine[:3, :3], axis=0))


def head_position(
    generator: torch.Generator, rotation: float = 3.0, translation: float = 4.0
) -> np.ndarray:
    """Draw how a head lies in the scanner.

    Parameters
    ----------
    rotation : float
        Standard deviation of each of three angles, degrees (cut at two of them).
    translation : float
        Standard deviation of each of three shifts, mm (cut at two of them).

    Returns
    -------
    ndarray, shape (4, 4)
        Head mm to scanner mm.
    """
    drawn = torch.randn(6, generator=generator, device=generator.device).clamp(-2, 2)
    drawn = drawn.cpu().double().numpy()
    position = np.eye(4)
    position[:3, :3] = _rotation(drawn[:3] * rotation)
    position[:3, 3] = drawn[3:] * translation
    return position


def prescribe(
    anatomy: Anatomy,
    protocol: Protocol,
    position: np.ndarray,
    generator: torch.Generator | None = None,
    resolution: float = 0.0,
    margin: float = 6.0,
) -> Grid:
    """Lay the field of view of a protocol over a head as a radiographer does.

    3D scans are straight and cover the head down to 50 mm under the brain; 2D scans cover
    the brain, and their slices are tilted by some degrees.

    Parameters
    ----------
    anatomy : Anatomy
        The head.
    protocol : Protocol
        Its plane, acquisition and zooms.
    position : ndarray, shape (4, 4)
        Head mm to scanner mm.
    generator : torch.Generator, optional
        Draws the tilt; straight slices without.
    resolution : float
        Smallest voxel edge in mm: finer protocols are made coarser, for tests and demos.
    margin : float
        Air left around the head, mm.
    """
    axes = np.array(AXES[protocol.plane], float).T
    if protocol.acquisition == '2D' and generator is not None:
        tilt = torch.randn(3, generator=generator, device=generator.device).clamp(-2, 2)
        axes = _rotation(tilt.cpu().double().numpy() * (5.0, 1.0, 1.0)) @ axes
    zooms = np.maximum(protocol.zooms, resolution)

    head, brain = (_corners(m, anatomy.affine, position, axes) for m in _masks(anatomy))
    low, high = head.min(0) - margin, head.max(0) + margin
    for axis in range(3):
        up = axes[2, axis]
        if abs(up) > 0.7:
            # never scan the shoulders: the lowest point is under the brain
            below = 14.0 if protocol.acquisition == '2D' else 50.0
            if up > 0:
                low[axis] = max(low[axis], brain[:, axis].min() - below)
            else:
                high[axis] = min(high[axis], brain[:, axis].max() + below)
        elif protocol.acquisition == '2D' and axis == 2:
            low[axis] = max(low[axis], brain[:, axis].min() - 10)
            high[axis] = min(high[axis], brain[:, axis].max() + 10)
    shape = np.maximum(np.ceil((high - low) / zooms).astype(int), 1)
    shape[:2] += shape[:2] % 2
    centre = (low + high) / 2
    affine = np.eye(4)
    affine[:3, :3] = axes * zooms
    affine[:3, 3] = axes @ centre - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(tuple(int(n) for n in shape), affine)


def coarser(protocol: Protocol, resolution: float) -> Protocol:
    """The protocol with no voxel edge under ``resolution`` mm."""
    return replace(protocol, zooms=tuple(max(z, resolution) for z in protocol.zooms))


def _rotation(degrees: np.ndarray) -> np.ndarray:
    """Rotation about right, front and top, in that order."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix


def _masks(anatomy: Anatomy, step: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Head and brain on every fourth voxel: enough to lay a field of view."""
    coarse = anatomy.fractions[:, ::step, ::step, ::step]
    return coarse.sum(0) > 0.5, coarse[_BRAIN].sum(0) > 0.5


def _corners(
    mask: torch.Tensor, affine: np.ndarray, position: np.ndarray, axes: np.ndarray, step: int = 4
) -> np.ndarray:
    """Coordinates along the axes of a scan of all voxels of a mask, shape (N, 3)."""
    voxels = mask.nonzero().cpu().double().numpy() * step
    to_scanner = position @ affine
    return (voxels @ to_scanner[:3, :3].T + to_scanner[:3, 3]) @ axes
