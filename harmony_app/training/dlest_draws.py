"""Draws of DLEST's autoencoder: slices of any scanner, and whole slices of brains.

Crops in all orientations teach encoder and decoder. What is made of noise are whole axial slices
near the middle of a brain without its skull, as all of the paper's are (section 3.1.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from harmony_app.methods.base import CONTRASTS
from harmony_app.training.dlest_settings import Settings
from harmony_app.training.heads import Head
from harmony_app.training.randomize import random_monotone_map
from harmony_app.training.session_slices import SessionDraw, SessionSlices
from harmony_app.training.sessions import Session
from harmony_app.training.slice_batch import Drawn
from harmony_app.training.slices import SliceDraw, SliceSampler, draw_look, silhouette_of

AXIAL = 2
"""Axis of the volume that axial slices lie across."""

MIDDLE = 10
"""Slices on either side of the middle of a brain that whole slices are taken from."""


@dataclass(frozen=True)
class Slices(Drawn):
    """Draws for one step, float32.

    Parameters
    ----------
    images, masks : Tensor, shape (B, L, H, W)
        A crop as L scanners see it, and the head or brain that each shows of it.
    whole : Tensor, shape (B, 1, *canvas)
        A whole axial slice without skull, zero around it.
    seeds : Tensor, shape (B,), int64
        Of the noise that the training adds.
    """

    images: torch.Tensor
    masks: torch.Tensor
    whole: torch.Tensor
    seeds: torch.Tensor


class PhantomSlices(SliceSampler):
    """Draws slices from heads.

    Parameters
    ----------
    heads : sequence of Head
    settings : Settings
    canvas : tuple of int
        Height and width of whole slices.
    """

    def __init__(self, heads: Sequence[Head], settings: Settings, canvas: tuple[int, int]):
        super().__init__(heads, settings.size)
        self.settings, self.canvas = settings, canvas
        self.middle = [
            middle_slab([head.fractions, head.maps[:1]], np.asarray(head.maps[0]) > 127)
            for head in self.heads
        ]

    def draw(self, rng: np.random.Generator) -> Slices:
        """Draw a batch of one example."""
        draw = SliceDraw(self, rng)
        fractions, brain = draw.tissues(int(rng.integers(len(self.heads))))
        fractions = draw.alter(fractions)
        images, masks = [], []
        for _ in range(self.settings.looks):
            stripped = rng.random() < 0.25
            shown = brain if stripped else silhouette_of(fractions)
            rim = int(rng.integers(4))
            shown = ndimage.binary_dilation(shown, iterations=rim) if rim else shown
            shown = draw.field_of_view(shown)
            look = self._look(rng)
            images.append(draw.scan(look, look.render(fractions)) * shown)
            masks.append(shown)
        return _example(images, masks, self._whole(rng), rng)

    def _look(self, rng: np.random.Generator):
        contrast = 'T1w'
        if rng.random() >= self.settings.t1w:
            contrast = CONTRASTS[int(rng.integers(len(CONTRASTS)))]
        return draw_look(contrast, rng, int(rng.integers(2**62)))

    def _whole(self, rng: np.random.Generator) -> np.ndarray:
        draw = SliceDraw(self, rng)
        draw.size = max(self.canvas)
        slab, points = self.middle[int(rng.integers(len(self.heads)))]
        stack = draw.crop([slab], points, AXIAL) / 255
        brain = ndimage.binary_fill_holes(stack[-1].numpy() > 0.5)
        look = self._look(rng)
        image = draw.scan(look, look.render(draw.alter(stack[:-1]))) * brain
        return inner(image, self.canvas).astype(np.float32)


class RealSlices:
    """Draws slices from real sessions; every crop is seen by the scanner it came from.

    Parameters
    ----------
    sessions : sequence of Session
    settings : Settings
    canvas : tuple of int
        As for :class:`PhantomSlices`.
    remapped : float
        Share of the crops that go through a random monotone map.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        settings: Settings,
        canvas: tuple[int, int],
        remapped: float = 0.3,
    ):
        self.slices = SessionSlices(sessions, settings.size, remapped=remapped)
        self.settings, self.canvas = settings, canvas

    def draw(self, rng: np.random.Generator) -> Slices:
        """Draw a batch of one example."""
        draw = SessionDraw(self.slices, rng)
        images, masks = [], []
        for _ in range(self.settings.looks):
            index = int(rng.integers(len(self.slices.sessions)))
            scans = self.slices.sessions[index].scans
            scan = scans[int(rng.integers(len(scans)))]
            (image,), (shown,), _ = draw.slices(index, [scan])
            if rng.random() < self.slices.remapped:
                image = np.interp(image, *random_monotone_map(rng.uniform(0, 0.25), rng))
            images.append(image * shown)
            masks.append(shown)
        return _example(images, masks, self._whole(rng), rng)

    def _whole(self, rng: np.random.Generator) -> np.ndarray:
        draw = SessionDraw(self.slices, rng)
        draw.size = max(self.canvas)
        index = int(rng.integers(len(self.slices.sessions)))
        session = self.slices.sessions[index]
        scan = session.scans[int(rng.integers(len(session.scans)))]
        maps = session.maps()[:1]
        slab, points = middle_slab([scan.data()[None], maps], maps[0] > 127)
        image, brain = draw.crop([slab], points, AXIAL).numpy()
        return inner(np.clip(image, 0, None) * (brain > 127), self.canvas).astype(np.float32)


def _example(images, masks, whole: np.ndarray, rng: np.random.Generator) -> Slices:
    return Slices.of(
        {
            'images': np.stack(images).astype(np.float32),
            'masks': np.stack(masks).astype(np.float32),
            'whole': whole[None],
            'seeds': rng.integers(2**62),
        }
    )


def middle_slab(volumes: Sequence[np.ndarray], brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slices around the middle of a brain, read once, and a place in each.

    Parameters
    ----------
    volumes : sequence of ndarray, shape (C, X, Y, Z)
        Of one type.
    brain : ndarray, shape (X, Y, Z), bool
        Not empty.

    Returns
    -------
    slab : ndarray, shape (C, X, Y, S)
    points : ndarray, shape (S, 3)
    """
    shown = np.flatnonzero(brain.any(axis=(0, 1)))
    middle = int(shown.mean())
    first, last = max(shown[0], middle - MIDDLE), min(shown[-1], middle + MIDDLE) + 1
    slab = np.concatenate([np.asarray(volume[..., first:last]) for volume in volumes])
    points = np.zeros((last - first, 3), int)
    points[:, :2] = np.array(brain.shape[:2]) // 2
    points[:, 2] = np.arange(last - first)
    return slab, points


def inner(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Middle of an image (H, W) that is at least as large.

    Examples
    --------
    >>> inner(np.arange(16).reshape(4, 4), (2, 4))
    array([[ 4,  5,  6,  7],
           [ 8,  9, 10, 11]])
    """
    rows, columns = ((n - m) // 2 for n, m in zip(image.shape, shape, strict=True))
    return image[rows : rows + shape[0], columns : columns + shape[1]]


def padded_inner(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """As :func:`inner`, of an image that is laid into zeros where it is smaller.

    Examples
    --------
    >>> padded_inner(np.ones((1, 4)), (3, 2)).sum(axis=1)
    array([0., 2., 0.])
    """
    missing = [max(0, m - n) for n, m in zip(image.shape, shape, strict=True)]
    return inner(np.pad(image, [(n // 2, n - n // 2) for n in missing]), shape)
