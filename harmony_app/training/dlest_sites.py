"""Draws for the energy of a site: slices of it, and sources to be led there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harmony_app.engine.anatomy import shown_part
from harmony_app.engine.slicing import ORIENTATIONS
from harmony_app.methods.base import Scan
from harmony_app.phantom.protocol import Protocol
from harmony_app.training.crops import CropDraw
from harmony_app.training.dlest_settings import EnergySettings
from harmony_app.training.heads import Head
from harmony_app.training.randomize import random_monotone_map
from harmony_app.training.sessions import Session
from harmony_app.training.slice_batch import Drawn
from harmony_app.training.slices import SliceDraw, SliceSampler, blur, draw_look

LEAST = 0.25
"""Slices show at least this share of the foreground of the fullest of their volume."""


@dataclass(frozen=True)
class Translations(Drawn):
    """Draws for one step, float32 and (B, 1, H, W) unless said.

    Parameters
    ----------
    source, source_mask : Tensor
        A slice to be led to the site, and the head or brain in it.
    target, target_mask : Tensor
        A slice of the site, of anyone.
    truth : Tensor
        The source as it is at the site, where that is known.
    known : Tensor, shape (B,)
        1 where it is, else 0.
    kind : Tensor, shape (B,), int64
        Which energy is meant, where there are several.
    seeds : Tensor, shape (B,), int64
        Of the noise of the chain.
    """

    source: torch.Tensor
    source_mask: torch.Tensor
    target: torch.Tensor
    target_mask: torch.Tensor
    truth: torch.Tensor
    known: torch.Tensor
    kind: torch.Tensor
    seeds: torch.Tensor


@dataclass(frozen=True)
class Shown:
    """A volume and what it shows, both (X, Y, Z)."""

    data: np.ndarray
    mask: np.ndarray


def shown_scans(scans: Sequence[Scan]) -> list[Shown]:
    """Preprocessed scans on the working grid."""
    return [Shown(scan.working.data, shown_part(scan.working)) for scan in scans]


def shown_sessions(sessions: Sequence[Session], contrast: str) -> list[Shown]:
    """Scans of a contrast of sessions of the cache."""
    return [
        Shown(scan.data(), scan.shown() > 127)
        for session in sessions
        for scan in session.scans
        if scan.contrast == contrast
    ]


class Planes:
    """Slices of some volumes, as many of each orientation and volume, evenly over what they show.

    Parameters
    ----------
    volumes : sequence of Shown
        At least one.
    count : int
        Slices of all of them, about.

    Raises
    ------
    ValueError
        Where nothing is shown.
    """

    def __init__(self, volumes: Sequence[Shown], count: int):
        each = max(1, round(count / (len(ORIENTATIONS) * max(1, len(volumes)))))
        self.planes: list[np.ndarray] = []
        self.points: list[np.ndarray] = []
        for volume in volumes:
            for axis in ORIENTATIONS.values():
                area = np.moveaxis(volume.mask, axis, 0).sum(axis=(1, 2))
                full = np.flatnonzero(area >= max(1, LEAST * area.max()))
                places = np.linspace(0, len(full) - 1, each + 2).round().astype(int)[1:-1]
                for index in full[places] if len(full) else ():
                    data, mask = (
                        np.take(np.asarray(x), index, axis=axis).astype(np.float32)
                        for x in (volume.data, volume.mask)
                    )
                    self.planes.append(np.stack([np.clip(data, 0, None), mask])[..., None])
                    inside = np.argwhere(mask[::8, ::8] > 0) * 8
                    if not len(inside):
                        inside = np.argwhere(mask > 0)
                    self.points.append(np.pad(inside, ((0, 0), (0, 1))))
        if not self.planes:
            raise ValueError('the volumes show nothing')

    def crop(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask (bool) of a random, mildly deformed crop, shape (size, size)."""
        index = int(rng.integers(len(self.planes)))
        draw = CropDraw(size, rng)
        image, mask = draw.crop([self.planes[index]], self.points[index], 2).numpy()
        mask = mask > 0.5
        return image * mask, mask


class SiteSlices:
    """Draws slices of sites, and sources for each.

    A source is a slice of another site, or a slice of the site itself through a random smooth
    monotone map that keeps fluid at the bottom and white matter at 1, whose truth is known.

    Parameters
    ----------
    sites : sequence of Planes
        Of every energy that is trained.
    others : sequence of (Planes or None)
        Slices of other sites in the contrast of each.
    settings : EnergySettings
    """

    def __init__(
        self,
        sites: Sequence[Planes],
        others: Sequence[Planes | None],
        settings: EnergySettings,
    ):
        self.sites, self.others, self.settings = list(sites), list(others), settings

    def draw(self, rng: np.random.Generator) -> Translations:
        """Draw a batch of one example."""
        settings, size = self.settings, self.settings.size
        kind = int(rng.integers(len(self.sites)))
        site, others = self.sites[kind], self.others[kind]
        target, target_mask = site.crop(size, rng)
        known = others is None or rng.random() >= settings.unpaired
        truth, mask = (site if known else others).crop(size, rng)
        source = remapped(truth, settings.remap, rng) if known else truth
        return _example(source, mask, target, target_mask, truth, known, kind, rng)


class PhantomSites(SliceSampler):
    """Draws slices of protocols of the phantom, and sources of any scanner, their truth known.

    Parameters
    ----------
    heads : sequence of Head
    protocols : sequence of Protocol
        Of every energy that is trained.
    settings : EnergySettings
    """

    def __init__(
        self, heads: Sequence[Head], protocols: Sequence[Protocol], settings: EnergySettings
    ):
        super().__init__(heads, settings.size)
        self.protocols, self.settings = list(protocols), settings

    def draw(self, rng: np.random.Generator) -> Translations:
        """Draw a batch of one example."""
        kind = int(rng.integers(len(self.protocols)))
        protocol = self.protocols[kind]
        draw = SliceDraw(self, rng)
        images, masks, truth = [], [], None
        for at_site in (False, True):
            fractions, mask = draw.shown()
            person = int(rng.integers(2**62))
            look = draw_look(protocol.contrast, rng, person, protocol if at_site else None)
            images.append(draw.scan(look, look.render(fractions)) * mask)
            masks.append(mask)
            if truth is None:
                there = draw_look(protocol.contrast, rng, person, protocol)
                truth = blur(there.render(fractions), 0.3) * mask
        return _example(images[0], masks[0], images[1], masks[1], truth, True, kind, rng)


def remapped(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """An image as no scanner may have made it: a random monotone map, and white matter a bit off."""
    mapped = np.interp(image, *random_monotone_map(rng.uniform(0, strength), rng))
    return mapped * rng.uniform(0.97, 1.03)


def _example(source, mask, target, target_mask, truth, known, kind, rng) -> Translations:
    images: Mapping[str, np.ndarray] = {
        'source': source,
        'source_mask': mask,
        'target': target,
        'target_mask': target_mask,
        'truth': truth,
    }
    return Translations.of(
        {name: np.asarray(image, np.float32)[None] for name, image in images.items()}
        | {'known': np.float32(known), 'kind': np.int64(kind), 'seeds': rng.integers(2**62)}
    )
