"""A pool of subjects on the 2 mm grid, drawn once from the heads and then shared.

Every subject is a head, smoothly deformed, with lesions in some, and with the registered
maps displaced a little more, since registration is never exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from harmony_app.phantom.deformation import integrate, random_velocity, warp
from harmony_app.phantom.tissues import TISSUES
from harmony_app.training.heads import Head
from harmony_app.training.randomize import smooth_field

ZOOMS = 2.0
"""Voxel edge of the pool in mm."""


@dataclass(frozen=True)
class Subject:
    """A subject at 2 mm.

    Parameters
    ----------
    fractions : ndarray, shape (K, 96, 112, 96), uint8
        Tissue fractions, 255 is all of a voxel.
    maps : ndarray, shape (4, 96, 112, 96), uint8
        Brain mask and registered GM, WM, CSF maps.
    """

    fractions: np.ndarray
    maps: np.ndarray


def halve(volumes: np.ndarray) -> torch.Tensor:
    """Average uint8 volumes over cubes of 2 x 2 x 2 voxels.

    Parameters
    ----------
    volumes : ndarray, shape (C, X, Y, Z), uint8
        Full at 255.

    Returns
    -------
    Tensor, shape (C, X / 2, Y / 2, Z / 2), float32
        Full at 1.
    """
    return torch.cat(
        [
            functional.avg_pool3d(torch.from_numpy(np.array(v, np.float32))[None, None], 2)[0]
            for v in volumes
        ]
    ) / 255.0  # fmt: skip


def plain_subject(head: Head) -> Subject:
    """A head as it is."""
    return _pack(halve(head.fractions), halve(head.maps))


def draw_subject(head: Head, rng: np.random.Generator) -> Subject:
    """Deform a head, sometimes with lesions and a wider ventricle, and displace its maps."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    fractions, maps = halve(head.fractions), halve(head.maps)
    shape = fractions.shape[1:]
    coarse = random_velocity(shape, ZOOMS, rng.uniform(0.5, 3.5), 60.0, generator)
    fine = random_velocity(shape, ZOOMS, rng.uniform(0.0, 1.0), 24.0, generator)
    displacement = integrate(coarse + fine)
    fractions, maps = warp(fractions, displacement), warp(maps, displacement)
    error = random_velocity(shape, ZOOMS, rng.uniform(0.0, 1.2), 40.0, generator)
    maps = warp(maps, integrate(error))
    if rng.random() < 0.5:
        fractions = _with_lesions(fractions, rng)
    return _pack(fractions, maps)


def _with_lesions(fractions: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Let smooth blobs of white matter be lesion, 0.1 to 3 % of it."""
    wm, lesion = TISSUES.index('wm'), TISSUES.index('lesion')
    field = torch.from_numpy(smooth_field(tuple(fractions.shape[1:]), 24, rng))
    sure = fractions[wm] > 0.5
    threshold = np.quantile(field[sure][::7].numpy(), 1 - rng.uniform(0.001, 0.03))
    share = ((field - float(threshold)) * 4).clamp(0, 1)
    moved = share * fractions[wm]
    fractions = fractions.clone()
    fractions[lesion] += moved
    fractions[wm] -= moved
    return fractions


def _pack(fractions: torch.Tensor, maps: torch.Tensor) -> Subject:
    return Subject(
        (fractions * 255).round().clamp(0, 255).byte().numpy(),
        (maps * 255).round().clamp(0, 255).byte().numpy(),
    )


def draw_pool(heads: Sequence[Head], each: int, seed: int) -> list[Subject]:
    """Draw ``each`` subjects of every head; the same seed gives the same pool."""
    rng = np.random.default_rng(seed)
    return [draw_subject(head, rng) for _ in range(each) for head in heads]
