"""Thin slices for a scan of thick ones, learnt from the planes of the scan itself.

The planes of the slices are sharp. Blurred along one of their axes by the profile of the slices,
they show what thick slices would have made of them, beside what is there: pairs that a small
network learns from. It is then used where it is needed, on the planes that hold the slice axis
(SMORE: Zhao 2021, IEEE Trans Med Imaging 40:805; Remedios 2023, SASHIMI). No other head is learnt
from, so none can be drawn into the scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from harmony_app.engine.compute import one_thread
from harmony_app.imaging.denoise import noise_level
from harmony_app.imaging.slice_profile import respacing_matrix, spline_matrix, thickening_matrix
from harmony_app.imaging.volume import Volume
from harmony_app.nets.super_resolution import SliceNetwork

MARGIN = 2
"""Rows and thick slices at the border of a plane that are not learnt from."""

AIR = 0.1
"""Share of the bright intensities below which a voxel is taken for air."""

NOISE_ALLOWED = 2.0
"""Standard deviations of the noise that a thickened result may differ from the scan by."""


@dataclass(frozen=True)
class FitSettings:
    """How the network is fitted to a scan.

    Parameters
    ----------
    steps : int
        Steps of Adam; 0 leaves the B-spline.
    batch : int
        Planes of a step.
    size : tuple of int
        Of a plane: values along the plane of the slices, thick slices.
    rate : float
        Learning rate at its highest; it rises over a tenth of the steps and falls by a cosine.
    seed : int
        Of the weights and the planes.
    rounds : int
        Times that the result is made consistent with the scan.
    """

    steps: int = 400
    batch: int = 16
    size: tuple[int, int] = (48, 12)
    rate: float = 2e-3
    seed: int = 0
    rounds: int = 2


DEFAULT = FitSettings()


@dataclass(frozen=True)
class _Planes:
    """Blurred planes of one axis, and what the B-spline through them lacks.

    ``thick`` has shape (P, A, N), ``residual`` (P, A, N * factor); ``noise`` is what the thick
    slices of the scan have and these have not.
    """

    thick: np.ndarray
    residual: np.ndarray
    noise: float


def super_resolve(volume: Volume, factor: int, settings: FitSettings = DEFAULT) -> Volume:
    """Divide the thick slices of a scan into thin ones.

    Runs on one thread of the CPU, so that the result is the same bit for bit on any number.

    Parameters
    ----------
    volume : Volume
        Scan, its bias field taken off. The axis of the longest voxel edge is that of the slices.
    factor : int
        Thin slices in a thick one
        (:func:`harmony_app.imaging.slice_profile.thin_factor`).
    settings : FitSettings

    Returns
    -------
    Volume
        On the same field of view, with ``factor`` times as many slices, within the range of the
        scan. Thickened again it gives the scan, but for noise.
    """
    axis = int(np.argmax(volume.zooms))
    scan = np.ascontiguousarray(np.moveaxis(volume.data, axis, 2), np.float32)
    zooms = [z for i, z in enumerate(volume.zooms) if i != axis] + [volume.zooms[axis]]
    thin = scan @ spline_matrix(scan.shape[2], factor).T
    bright = scan[scan > scan.mean()]
    if bright.size:
        level = float(bright.mean())
        head = scan > AIR * level
        box = _head_box(head)
        part = scan[box] / level
        noise = noise_level(Volume(scan / level, np.diag([*zooms, 1.0])), _even(scan, head))
        with one_thread():
            network = fit_network(part, zooms, factor, noise, settings)
            thin[box] += level * apply_network(network, part, factor)
        thin = make_consistent(thin, scan, factor, level * noise, settings.rounds)
    np.clip(thin, scan.min(), scan.max(), out=thin)
    step = np.eye(4)
    step[axis, axis], step[axis, 3] = 1 / factor, 0.5 / factor - 0.5
    return Volume(np.moveaxis(thin, 2, axis), volume.affine @ step)


def fit_network(
    scan: np.ndarray,
    zooms: Sequence[float],
    factor: int,
    noise: float,
    settings: FitSettings = DEFAULT,
) -> SliceNetwork:
    """Let a network learn from the planes of the slices.

    Parameters
    ----------
    scan : ndarray, shape (X, Y, N), float32
        N thick slices, of intensities around 1.
    zooms : sequence of 3 float
        Voxel edges in mm.
    factor : int
        Thin slices in a thick one.
    noise : float
        Standard deviation of the noise of the scan.
    settings : FitSettings
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = SliceNetwork(factor)
    planes = [_degrade(scan, axis, zooms, factor, noise) for axis in (0, 1)]
    planes = [found for found in planes if found is not None]
    if not planes:
        return network
    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.rate, fused=True)
    edge = MARGIN * factor
    for step in range(settings.steps):
        rise = (step + 1) / (0.1 * settings.steps + 1)
        fall = 0.5 * (1 + np.cos(np.pi * step / settings.steps))
        optimizer.param_groups[0]['lr'] = settings.rate * min(rise, fall)
        thick, residual = _draw(planes[step % len(planes)], factor, rng, settings)
        difference = network(thick) - residual
        loss = difference[:, MARGIN:-MARGIN, edge:-edge].abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network


@torch.inference_mode()
def apply_network(
    network: SliceNetwork, scan: np.ndarray, factor: int, batch: int = 8
) -> np.ndarray:
    """What a network adds to the B-spline: the mean over both kinds of planes with the slice axis.

    Parameters
    ----------
    network : SliceNetwork
    scan : ndarray, shape (X, Y, N), float32
        N thick slices.
    factor : int
        Thin slices in a thick one.
    batch : int
        Planes computed at once.

    Returns
    -------
    ndarray, shape (X, Y, N * factor), float32
    """
    total = np.zeros((*scan.shape[:2], scan.shape[2] * factor), np.float32)
    edge = MARGIN * factor
    for axis in (0, 1):
        planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(scan, axis, 0)))
        # as in training, no value lies at the border of what the network sees
        padded = functional.pad(planes[:, None], (MARGIN,) * 4, mode='replicate')[:, 0]
        view = np.moveaxis(total, axis, 0)
        for start in range(0, len(planes), batch):
            found = network(padded[start : start + batch])
            view[start : start + batch] += found[:, MARGIN:-MARGIN, edge:-edge].numpy() / 2
    return total


def make_consistent(
    thin: np.ndarray, scan: np.ndarray, factor: int, noise: float, rounds: int
) -> np.ndarray:
    """Iterative back projection: what the scan shows and the thin slices lack is given to them.

    Differences within the noise are left, else the noise that the network took off came back.

    Parameters
    ----------
    thin : ndarray, shape (X, Y, N * factor)
        Thin slices.
    scan : ndarray, shape (X, Y, N)
        Thick ones.
    factor : int
        Thin slices in a thick one.
    noise : float
        Standard deviation of the noise of the scan.
    rounds : int
        How often.
    """
    count = scan.shape[2]
    thicken, spline = thickening_matrix(count, factor), spline_matrix(count, factor)
    allowed = np.float32(NOISE_ALLOWED * noise)
    for _ in range(rounds):
        lacking = scan - thin @ thicken.T
        lacking = np.sign(lacking) * np.maximum(np.abs(lacking) - allowed, 0)
        thin = thin + lacking @ spline.T
    return thin


def _head_box(head: np.ndarray, margin: int = 6) -> tuple[slice, slice]:
    """Rows and columns of the planes that show the head."""
    box = []
    for axis in (0, 1):
        found = np.flatnonzero(head.mean(axis=(1 - axis, 2)) > 0.002)
        low, high = (found[0], found[-1] + 1) if found.size else (0, head.shape[axis])
        box.append(slice(max(0, low - margin), min(head.shape[axis], high + margin)))
    return box[0], box[1]


def _even(scan: np.ndarray, head: np.ndarray, share: float = 0.25) -> np.ndarray:
    """The part of the head where intensities change least: there noise is what changes them."""
    slope = ndimage.gaussian_gradient_magnitude(scan, (1.5, 1.5, 0))
    return head & (slope <= np.quantile(slope[head], share))


def _degrade(
    scan: np.ndarray, axis: int, zooms: Sequence[float], factor: int, noise: float
) -> _Planes | None:
    """Planes of the slices, blurred along an axis as slices are; None where the axis is too short."""
    length, zoom, thickness = scan.shape[axis], zooms[axis], zooms[2]
    count = int(length * zoom / thickness)
    lines = np.moveaxis(scan, axis, 2).swapaxes(0, 1)
    if min(count, lines.shape[1]) <= 2 * MARGIN:
        return None
    respace = respacing_matrix(length, thickness / factor / zoom, count * factor)
    thicken = thickening_matrix(count, factor)
    thin = lines @ respace.T
    thick = thin @ thicken.T
    left = float(((thicken @ respace) ** 2).sum(axis=1).mean())
    residual = thin - thick @ spline_matrix(count, factor).T
    return _Planes(thick, residual, noise * max(0.0, 1 - left) ** 0.5)


def _draw(
    planes: _Planes, factor: int, rng: np.random.Generator, settings: FitSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random parts of planes, mirrored at random; of three each the one that lacks most."""
    kinds, rows, columns = planes.thick.shape
    height, width = min(settings.size[0], rows), min(settings.size[1], columns)
    thick, residual = [], []
    for _ in range(settings.batch):
        parts = []
        for _ in range(3):
            plane, row, column = (
                int(rng.integers(n)) for n in (kinds, rows - height + 1, columns - width + 1)
            )
            part = plane, slice(row, row + height)
            near, far = (slice(n * column, n * (column + width)) for n in (1, factor))
            parts.append((planes.thick[*part, near], planes.residual[*part, far]))
        best = max(parts, key=lambda part: float(np.abs(part[1]).mean()))
        flips = tuple(slice(None, None, int(rng.choice((1, -1)))) for _ in range(2))
        thick.append(best[0][flips])
        residual.append(best[1][flips])
    noisy = np.stack(thick)
    noisy = noisy + np.float32(planes.noise) * rng.standard_normal(noisy.shape, np.float32)
    return torch.from_numpy(noisy), torch.from_numpy(np.stack(residual))
