"""Smooth diffeomorphic deformations by stationary velocity fields (Arsigny 2006, MICCAI)."""

from collections.abc import Sequence

import torch
from torch.nn import functional

SQUARINGS = 6
"""Doublings from a sixty-fourth of the velocity to the whole flow."""


def random_velocity(
    shape: Sequence[int],
    zooms: float,
    amplitude: float,
    smoothness: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw a smooth stationary velocity field.

    Parameters
    ----------
    shape : sequence of 3 int
        Grid of the field (X, Y, Z).
    zooms : float
        Voxel edge of the grid in mm.
    amplitude : float
        Standard deviation of each component in mm.
    smoothness : float
        Distance between independent control points in mm.
    generator : torch.Generator
        Its device is the device of the field.

    Returns
    -------
    Tensor, shape (3, X, Y, Z)
        Velocity in voxels of the grid.
    """
    control = [max(4, round(n * zooms / smoothness) + 3) for n in shape]
    noise = torch.randn((1, 3, *control), generator=generator, device=generator.device)
    field = functional.interpolate(noise, size=tuple(shape), mode='trilinear', align_corners=True)
    # linear interpolation leaves kinks at the control points; a box filter of their
    # distance makes the field differentiable
    width = max(3, int(smoothness / zooms) // 2 * 2 + 1)
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = width, width // 2
        field = functional.avg_pool3d(
            field, kernel, stride=1, padding=padding, count_include_pad=False
        )
    field = field / field.std().clamp(min=1e-6)
    return field[0] * (amplitude / zooms)


def integrate(velocity: torch.Tensor, squarings: int = SQUARINGS) -> torch.Tensor:
    """Flow of a stationary velocity field after unit time, by scaling and squaring.

    Parameters
    ----------
    velocity : Tensor, shape (3, X, Y, Z)
        In voxels.

    Returns
    -------
    Tensor, shape (3, X, Y, Z)
        Displacement in voxels; a point x of the result shows what lay at x + displacement.
    """
    displacement = velocity / 2**squarings
    for _ in range(squarings):
        displacement = displacement + warp(displacement, displacement, padding='border')
    return displacement


def warp(image: torch.Tensor, displacement: torch.Tensor, padding: str = 'zeros') -> torch.Tensor:
    """Sample an image at displaced points.

    Parameters
    ----------
    image : Tensor, shape (C, X, Y, Z)
        Any channels.
    displacement : Tensor, shape (3, X, Y, Z)
        In voxels.
    padding : str
        ``zeros`` or ``border``: what lies outside the image.
    """
    shape = image.shape[1:]
    identity = torch.stack(
        torch.meshgrid(
            *(torch.arange(n, device=image.device, dtype=torch.float32) for n in shape),
            indexing='ij',
        )
    )
    size = torch.tensor(shape, device=image.device, dtype=torch.float32).view(3, 1, 1, 1)
    points = 2 * (identity + displacement) / (size - 1) - 1
    # grid_sample wants the last axis of the image first
    grid = points.flip(0).permute(1, 2, 3, 0)[None]
    return functional.grid_sample(
        image[None], grid, mode='bilinear', padding_mode=padding, align_corners=True
    )[0]


def jacobian_determinant(displacement: torch.Tensor) -> torch.Tensor:
    """Volume change of a deformation, by central differences.

    Parameters
    ----------
    displacement : Tensor, shape (3, X, Y, Z)
        In voxels.

    Returns
    -------
    Tensor, shape (X, Y, Z)
        Above zero wherever the deformation does not fold.
    """
    rows = [torch.stack(torch.gradient(component), dim=0) for component in displacement]
    matrix = torch.stack(rows).permute(2, 3, 4, 0, 1)
    return torch.linalg.det(matrix + torch.eye(3, device=displacement.device))
