"""Networks that decode, on volumes: encode once, decode or translate to any target, fuse."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from harmony_app.engine.compute import Compute
from harmony_app.engine.slicing import ORIENTATIONS, Box, SliceGroup, slice_groups
from harmony_app.imaging.masks import head_mask
from harmony_app.imaging.volume import Volume
from harmony_app.nets.anatomy import AnatomyNets, one_hot
from harmony_app.nets.attention import fuse_anatomy
from harmony_app.nets.contrast import ContrastNets
from harmony_app.nets.fusion import FusionNet

SLAB = 32
"""Planes that the fusion network works on at once: bounds its memory."""


@dataclass(frozen=True)
class Representation:
    """Theta and eta of a scan, and how far its slices spread around them."""

    theta: tuple[float, ...]
    eta: tuple[float, ...]
    theta_spread: tuple[float, ...]


def shown_part(volume: Volume) -> np.ndarray:
    """Filled outline of what a scan shows within its field of view, bool.

    Parameters
    ----------
    volume : Volume
        Zero outside its field of view.
    """
    return head_mask(volume) & measured_part(volume.data)


def measured_part(data: np.ndarray, step: int = 4) -> np.ndarray:
    """Field of view of a scan, air included where it was kept, bool.

    Parameters
    ----------
    data : ndarray, any shape
        Volume or slice, zero where nothing was measured.
    step : int
        Edge of the blocks that are asked: dark voxels inside the field of view are part of it.

    Examples
    --------
    >>> import numpy as np
    >>> data = np.zeros((4, 12))
    >>> data[1, 2:7] = 0.1
    >>> measured_part(data).sum(axis=1)
    array([8, 8, 8, 8])
    """
    padded = np.pad(data != 0, [(0, -n % step) for n in data.shape])
    blocks = padded.reshape([m for n in padded.shape for m in (n // step, step)])
    measured = ndimage.binary_fill_holes(blocks.any(axis=tuple(range(1, 2 * data.ndim, 2))))
    for axis in range(data.ndim):
        measured = measured.repeat(step, axis=axis)
    return measured[tuple(slice(0, n) for n in data.shape)]


def represent(
    nets: ContrastNets, data: np.ndarray, mask: np.ndarray, compute: Compute, slices: int = 8
) -> Representation:
    """Theta and eta of a scan, averaged over slices of all orientations; no eta without its encoder.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z), float32
        White-matter peak at 1.
    mask : ndarray, shape (X, Y, Z), bool
        Head or brain that it shows; not empty.
    slices : int
        Slices of each orientation, evenly over those that show at least a quarter of the
        foreground of the fullest.

    Notes
    -----
    Theta sees the foreground; eta the field of view, for ghosts and noise show in the air.
    """
    thetas, etas = [], []
    eta = getattr(nets, 'eta', None)
    view = mask | measured_part(data)
    for axis in ORIENTATIONS.values():
        area = np.moveaxis(mask, axis, 0).sum(axis=(1, 2))
        full = np.flatnonzero(area >= max(1, area.max() / 4))
        chosen = np.unique(
            full[np.linspace(0, len(full) - 1, slices + 2).round().astype(int)[1:-1]]
        )
        only = np.zeros_like(view)
        index = [slice(None)] * 3
        index[axis] = chosen
        only[tuple(index)] = view[tuple(index)]
        orientation = next(name for name, a in ORIENTATIONS.items() if a == axis)
        for group in slice_groups(only, orientation, compute.batch):
            with compute.running():
                shown = compute.tensor(group.take(mask))[:, None]
                images = compute.tensor(group.take(data))[:, None]
                field = compute.tensor(group.take(view))[:, None]
                thetas.append(nets.theta(images, shown)[0].float().cpu().numpy())
                if eta is not None:
                    etas.append(eta(images, field).float().cpu().numpy())
    theta = np.concatenate(thetas)
    return Representation(
        tuple(theta.mean(0).tolist()),
        tuple(np.concatenate(etas).mean(0).tolist()) if etas else (),
        tuple(theta.std(0).tolist()),
    )


def encode_anatomy(
    nets: AnatomyNets,
    data: np.ndarray,
    mask: np.ndarray,
    compute: Compute,
    box: Box | None = None,
) -> dict[str, np.ndarray]:
    """Anatomy of a scan in every orientation.

    Parameters
    ----------
    data, mask : ndarray, shape (X, Y, Z)
        As in :func:`represent`.
    box : tuple of slice, optional
        Only slices that cross it.

    Returns
    -------
    dict of str to ndarray, shape (X, Y, Z), uint8
        Level of the anatomy of every voxel by orientation; 0 outside the mask too.
    """
    anatomy = {}
    for orientation in ORIENTATIONS:
        labels = np.zeros(data.shape, np.uint8)
        for group in slice_groups(mask, orientation, compute.batch, box):
            with compute.running():
                shown = compute.tensor(group.take(mask))[:, None]
                images = compute.tensor(group.take(data))[:, None]
                group.put(labels, nets.labels(images, shown).cpu().numpy())
        anatomy[orientation] = labels
    return anatomy


def decode_volumes(
    nets: AnatomyNets,
    anatomies: Sequence[dict[str, np.ndarray]],
    masks: Sequence[np.ndarray],
    weights: Sequence[float],
    theta: Sequence[float],
    compute: Compute,
    box: Box | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode the fused anatomy of some sources to a contrast, in every orientation.

    Parameters
    ----------
    anatomies : sequence of dict
        Of every source, by :func:`encode_anatomy`.
    masks : sequence of ndarray, bool
        What every source shows.
    weights : sequence of float
        Attention; where a source shows nothing the others share its part.
    theta : sequence of float
        Contrast to make.
    box : tuple of slice, optional
        Only slices that cross it.

    Returns
    -------
    volumes : ndarray, shape (3, X, Y, Z), float32
        In the order of :data:`harmony_app.engine.slicing.ORIENTATIONS`; zero outside the union.
    union : ndarray, shape (X, Y, Z), bool
        Voxels that a source of some weight shows.
    """
    used = [i for i, weight in enumerate(weights) if weight > 0]
    union = np.logical_or.reduce([masks[i] for i in used])
    volumes = np.zeros((len(ORIENTATIONS), *union.shape), np.float32)
    share = torch.tensor([weights[i] for i in used], dtype=torch.float32, device=compute.device)
    contrast = torch.tensor(list(theta), dtype=torch.float32, device=compute.device)
    for volume, orientation in zip(volumes, ORIENTATIONS, strict=True):
        for group in slice_groups(union, orientation, compute.batch, box):
            with compute.running():
                levels, shown = _stack(nets, anatomies, masks, used, orientation, group, compute)
                count = len(levels)
                fused, seen = fuse_anatomy(levels, share.expand(count, -1), shown)
                result = nets.decode(fused, seen, contrast.expand(count, -1))
                group.put(volume, result[:, 0].float().cpu().numpy())
    return volumes, union


def translate_volumes(
    translate: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    data: np.ndarray,
    mask: np.ndarray,
    compute: Compute,
    box: Box | None = None,
) -> np.ndarray:
    """Translate a scan slice by slice in every orientation, without an anatomy between.

    Parameters
    ----------
    translate : callable
        Slices (B, 1, H, W) of images and of their mask, float32 on the device, which its networks
        are on too. B is the batch of ``compute`` at most, H and W are multiples of 16.
    data, mask : ndarray, shape (X, Y, Z)
        As in :func:`represent`; slices without foreground are not translated.
    box : tuple of slice, optional
        Only slices that cross it.

    Returns
    -------
    ndarray, shape (3, X, Y, Z), float32
        In the order of :data:`harmony_app.engine.slicing.ORIENTATIONS`; zero outside the mask.
    """
    volumes = np.zeros((len(ORIENTATIONS), *mask.shape), np.float32)
    for volume, orientation in zip(volumes, ORIENTATIONS, strict=True):
        for group in slice_groups(mask, orientation, compute.batch, box):
            with compute.running():
                shown = compute.tensor(group.take(mask))[:, None]
                images = compute.tensor(group.take(data))[:, None]
                result = translate(images, shown) * shown
                group.put(volume, result[:, 0].float().cpu().numpy())
    return volumes


def shared_parts(masks: Sequence[np.ndarray], weights: Sequence[float]) -> list[float]:
    """Part of each source in the fused anatomy, over every eighth voxel of what they show.

    Parameters
    ----------
    masks : sequence of ndarray, bool
    weights : sequence of float
        Attention; where a source shows nothing the others share its part.

    Examples
    --------
    >>> import numpy as np
    >>> left, whole = np.zeros((4, 2, 2), bool), np.ones((4, 2, 2), bool)
    >>> left[:2] = True
    >>> shared_parts([left, whole], [0.5, 0.5])
    [0.25, 0.75]
    """
    shown = np.stack([mask[::2, ::2, ::2].ravel() for mask in masks])
    shown = shown[:, shown.any(axis=0)]
    local = np.array(weights)[:, None] * shown
    return (local / local.sum(axis=0)).mean(axis=1).tolist()


def _stack(nets, anatomies, masks, used, orientation: str, group: SliceGroup, compute: Compute):
    """One-hot anatomy (B, S, L, H, W) and masks (B, S, 1, H, W) of the sources."""
    levels, shown = [], []
    for i in used:
        mask = compute.tensor(group.take(masks[i]))[:, None]
        labels = torch.from_numpy(group.take(anatomies[i][orientation]).astype(np.int64))
        levels.append(one_hot(labels.to(compute.device), nets.config.levels) * mask)
        shown.append(mask)
    return torch.stack(levels, dim=1), torch.stack(shown, dim=1)


def fuse_volumes(
    fusion: FusionNet | None, volumes: np.ndarray, mask: np.ndarray, compute: Compute
) -> np.ndarray:
    """One volume of the three orientations: by the network, or their median without one.

    Parameters
    ----------
    volumes : ndarray, shape (3, X, Y, Z), float32
    mask : ndarray, shape (X, Y, Z), bool

    Returns
    -------
    ndarray, shape (X, Y, Z), float32
        Zero outside the mask.
    """
    if fusion is None:
        return np.median(volumes, axis=0) * mask
    result = np.zeros(mask.shape, np.float32)
    if not mask.any():
        return result
    box = tuple(
        slice(max(0, where.min() - fusion.halo), where.max() + 1 + fusion.halo)
        for where in np.nonzero(mask)
    )
    part, shown = volumes[(slice(None), *box)], mask[box]
    fused, halo = np.zeros(shown.shape, np.float32), fusion.halo
    for start in range(0, shown.shape[0], SLAB):
        first, last = max(0, start - halo), min(shown.shape[0], start + SLAB + halo)
        with compute.running():
            slab = fusion(
                compute.tensor(part[:, first:last])[None],
                compute.tensor(shown[first:last])[None, None],
            )
        end = min(start + SLAB, shown.shape[0])
        fused[start:end] = slab[0, 0, start - first : end - first].float().cpu().numpy()
    result[box] = fused
    return result
