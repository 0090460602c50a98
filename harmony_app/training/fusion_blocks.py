"""Blocks of heads and of real sessions, decoded in three orientations, and what they should be."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from harmony_app.engine.anatomy import (
    decode_volumes,
    encode_anatomy,
    represent,
    translate_volumes,
)
from harmony_app.engine.compute import Compute
from harmony_app.engine.slicing import Box
from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.anatomy import AnatomyNets
from harmony_app.nets.contrast import ContrastNets
from harmony_app.training.heads import Head
from harmony_app.training.sessions import Session
from harmony_app.training.slices import draw_looks

EDGE = 64
"""Edge of a block in voxels: slices that cross it are decoded whole, so a large one is dear."""


@dataclass(frozen=True)
class Block:
    """A decoded part of a head.

    Parameters
    ----------
    decoded : ndarray, shape (3, X, Y, Z), float32
        Axial, coronal and sagittal result.
    truth : ndarray, shape (X, Y, Z), float32
        Noise-free scan at the target.
    mask : ndarray, shape (X, Y, Z), bool
        What the sources show.
    """

    decoded: np.ndarray
    truth: np.ndarray
    mask: np.ndarray


def draw_block(
    nets: ContrastNets,
    head: Head,
    rng: np.random.Generator,
    compute: Compute,
    edge: int = EDGE,
    contrast: str | None = None,
) -> Block:
    """Scan a head in two contrasts and decode a cube of it to a third or to one of them.

    Slices that cross the cube are decoded whole: networks take what they normalize by from all of
    a slice.

    Networks without attention are given the first of both alone, and those that keep the contrast
    (which have no one-hot anatomy) one at another site than that to reach.

    Parameters
    ----------
    nets : ContrastNets
        Trained.
    head : Head
        Fractions on the working grid.
    rng : numpy.random.Generator
        Draws place, protocols and noise.
    edge : int
        Of the cube; a multiple of 16.
    contrast : str, optional
        To decode to; any without.
    """
    cube = _draw_cube(head.maps[0], rng, edge)
    fractions = torch.from_numpy(head.fractions.astype(np.float32) / 255)
    mask = ndimage.binary_fill_holes(fractions.sum(0).numpy() > 0.3)

    order, place = [CONTRASTS[i] for i in rng.permutation(4)], int(rng.integers(3))
    if contrast is not None:
        here = order.index(contrast)
        order[here], order[place] = order[place], contrast
    if not isinstance(nets, AnatomyNets):
        order = [contrast or order[0]] * 3
    looks = draw_looks(order[:3], rng)
    wanted = looks[place if isinstance(nets, AnatomyNets) else 2]
    scans = []
    for look in looks[:2]:
        scan = look.render(fractions)
        scan = ndimage.gaussian_filter(scan, rng.uniform(0.3, 0.7))
        noise = rng.standard_normal((2, *scan.shape), np.float32) / np.float32(look.snr)
        scans.append((np.hypot(scan + noise[0], noise[1]) * mask).astype(np.float32))
    truth = wanted.render(fractions) * mask
    return _decoded(nets, scans, truth, mask, cube, compute, blur=0.3)


def draw_session_block(
    nets: ContrastNets,
    session: Session,
    rng: np.random.Generator,
    compute: Compute,
    edge: int = EDGE,
    contrast: str | None = None,
) -> Block:
    """Decode a cube of a real session to the contrast of one of its scans, which is the truth.

    Networks without attention are given one scan alone; those that keep the contrast are given
    the very one.

    Parameters
    ----------
    nets : ContrastNets
        Trained.
    session : Session
        From the cache.
    rng : numpy.random.Generator
        Draws place and scans.
    edge : int
        Of the cube; a multiple of 16.
    contrast : str, optional
        To decode to, one of the session's; any without.

    Raises
    ------
    ValueError
        Where its scans show nothing together.
    """
    scans = [session.scans[i] for i in rng.permutation(len(session.scans))[:3]]
    cube = _draw_cube(session.maps()[0], rng, edge)
    mask = np.logical_and.reduce([np.asarray(scan.shown()) > 127 for scan in scans])
    if not mask[cube].any():
        raise ValueError(f'the scans of {session.name} show nothing together')
    images = [np.asarray(scan.data(), np.float32) * mask for scan in scans]
    truths = [
        i for i, s in zip(images, scans, strict=True) if contrast is None or s.contrast == contrast
    ]
    if not truths:
        raise ValueError(f'no scan of {contrast} among those drawn of {session.name}')
    truth = truths[int(rng.integers(len(truths)))]
    given = images[:2] if isinstance(nets, AnatomyNets) else [truth]
    return _decoded(nets, given, truth, mask, cube, compute)


def _draw_cube(brain: np.ndarray, rng: np.random.Generator, edge: int) -> Box:
    """A cube around a voxel of the brain, within the volume; ValueError where there is none."""
    points = np.argwhere(np.asarray(brain[::8, ::8, ::8]) > 127) * 8
    if not len(points):
        raise ValueError('there is no brain')
    centre = points[int(rng.integers(len(points)))]
    corner = [
        int(np.clip(c - edge // 2, 0, max(0, n - edge)))
        for c, n in zip(centre, brain.shape, strict=True)
    ]
    return tuple(slice(c, c + edge) for c in corner)


def _decoded(
    nets: ContrastNets,
    scans: Sequence[np.ndarray],
    truth: np.ndarray,
    mask: np.ndarray,
    cube: Box,
    compute: Compute,
    blur: float = 0.0,
) -> Block:
    """Decode a cube of scans in three orientations to the style of the truth."""
    style = represent(nets, truth, mask, compute, slices=3)
    if blur:
        truth = ndimage.gaussian_filter(truth, blur) * mask
    if not isinstance(nets, AnatomyNets):
        theta = torch.tensor([style.theta], dtype=torch.float32, device=compute.device)
        decoded = translate_volumes(
            lambda images, shown: nets.translate(images, shown, theta.expand(len(images), -1)),
            scans[0],
            mask,
            compute,
            cube,
        )
        return _block(decoded, truth, mask, cube)
    attention = getattr(nets, 'attention', None)
    if attention is None:
        scans, weights = scans[:1], [1.0]
    else:
        found = [represent(nets, scan, mask, compute, slices=3) for scan in scans]
        with compute.running():
            weights = attention(
                torch.tensor([[*style.theta, *style.eta]], device=compute.device),
                torch.tensor([[[*f.theta, *f.eta] for f in found]], device=compute.device),
                torch.ones((1, len(scans)), dtype=torch.bool, device=compute.device),
            )[0].tolist()
    anatomies = [encode_anatomy(nets, scan, mask, compute, cube) for scan in scans]
    masks = [mask] * len(scans)
    decoded, _ = decode_volumes(nets, anatomies, masks, weights, style.theta, compute, cube)
    return _block(decoded, truth, mask, cube)


def _block(decoded: np.ndarray, truth: np.ndarray, mask: np.ndarray, cube: Box) -> Block:
    """The cube alone, in memory of its own."""
    part = decoded[(slice(None), *cube)].copy()
    return Block(part, truth[cube].astype(np.float32), mask[cube].copy())
