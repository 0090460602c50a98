"""Phantom draws on slices: source contrasts, target, and a theta slice of the target's volume.

Only what a step needs is drawn, on crops: two source contrasts, the target and one other
slice at the target's protocol. Physics, and what physics does not give (monotone maps,
class factors, residual bias, texture, blur, crops, missing skull), so that a model that
learned here still sees the style of a real scan.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from harmony_app.methods.base import CONTRASTS
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES, tissue_properties, vary_properties
from harmony_app.training.crops import CropDraw, foreground_points
from harmony_app.training.heads import Head
from harmony_app.training.randomize import (
    random_class_factors,
    random_monotone_map,
    random_protocol,
)
from harmony_app.training.slice_batch import ANATOMY, LEVELS, Batch
from harmony_app.training.spoiled import corrupt, draw_kind, draw_severities

AIR = 0.9
"""Share of the draws of whole heads in which the air around the head was measured and kept."""

_WM, _GM, _LESION = (TISSUES.index(name) for name in ('wm', 'gm', 'lesion'))
_BRAIN = [TISSUES.index(name) for name in BRAIN_TISSUES]
_LEVELS = [TISSUES.index(name) for name in LEVELS]
_OUTSIDE = [i for i, name in enumerate(TISSUES) if name not in (*BRAIN_TISSUES, 'csf')]


@dataclass(frozen=True)
class Look:
    """What a protocol and a scanner make of each tissue: signals, then a monotone map."""

    contrast: str
    signals: torch.Tensor
    curve: tuple[np.ndarray, np.ndarray] | None
    snr: float
    bias: float

    def render(self, fractions: torch.Tensor) -> np.ndarray:
        """Noise-free image, white matter at 1, of fractions (K, ...)."""
        image = torch.tensordot(self.signals, fractions, dims=1).numpy()
        return image if self.curve is None else np.interp(image, *self.curve).astype(np.float32)

    def levels(self, alter: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """Intensity of :data:`LEVELS`, bright ones compressed, shape (8,).

        Parameters
        ----------
        alter : callable, optional
            What becomes of the intensities afterwards.
        """
        values = self.signals[_LEVELS].numpy()
        values = values if self.curve is None else np.interp(values, *self.curve)
        values = values if alter is None else alter(values)
        return (3 * values / (2 + values)).astype(np.float32)


def draw_looks(
    contrasts: Sequence[str],
    rng: np.random.Generator,
    protocols: Mapping[str, Protocol] | None = None,
) -> list[Look]:
    """Draw how contrasts look for one person, each on some scanner, or all at one site.

    Parameters
    ----------
    contrasts : sequence of str
        Each may be named more than once.
    rng : numpy.random.Generator
        Draws everything.
    protocols : mapping of str to Protocol, optional
        The site's, by contrast; a random one for each scan without, and random maps of the
        intensities with it.
    """
    person = int(rng.integers(2**62))
    return [draw_look(c, rng, person, protocols[c] if protocols else None) for c in contrasts]


def draw_look(
    contrast: str, rng: np.random.Generator, person: int, protocol: Protocol | None = None
) -> Look:
    """Draw how a contrast looks for one person.

    Parameters
    ----------
    contrast : str
        One of :data:`harmony_app.methods.base.CONTRASTS`.
    rng : numpy.random.Generator
        Draws what belongs to the scan.
    person : int
        Seed of what belongs to the person.
    protocol : Protocol, optional
        A random one, and now and then a random map of the intensities, without.
    """
    given = protocol is not None
    protocol = protocol if given else random_protocol(contrast, rng)
    generator = torch.Generator().manual_seed(person)
    properties = vary_properties(tissue_properties(protocol.field), 0.05, generator)
    factors = random_class_factors(len(TISSUES), 0.03, rng)
    if not given:
        factors[_OUTSIDE] *= random_class_factors(len(_OUTSIDE), 0.2, rng)
    signals = signal(protocol, properties) * torch.from_numpy(factors)
    signals = (signals / signals[_WM]).clamp(max=5.0)
    curve = None
    if not given and rng.random() < 0.5:
        curve = random_monotone_map(rng.uniform(0, 0.3), rng)
    return Look(contrast, signals, curve, protocol.snr, protocol.bias)


class SliceSampler:
    """Draws slices from heads.

    Parameters
    ----------
    heads : sequence of Head
        Read where needed; memory-mapped heads stay on disk.
    size : int
        Height and width of the crops; a multiple of 16.
    artifacts : bool
        Whether sources may have artifacts and missing parts.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        size: int = 128,
        artifacts: bool = True,
    ):
        self.heads = list(heads)
        self.size = size
        self.artifacts = artifacts
        self.inside = [
            foreground_points(head.name, head.maps[0], head.fractions) for head in self.heads
        ]

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw a batch of one example."""
        return Batch.of(self.sample(rng))

    def sample(
        self, rng: np.random.Generator, protocols: Mapping[str, Protocol] | None = None
    ) -> dict[str, np.ndarray]:
        """Fields of a batch of one example by name, without their first axis.

        Parameters
        ----------
        protocols : mapping of str to Protocol, optional
            As for :func:`draw_looks`.
        """
        return _Draw(self, rng, protocols).sample()


class SliceDraw(CropDraw):
    """What an example of the phantom is made of, all from one generator.

    Parameters
    ----------
    sampler : SliceSampler
    rng : numpy.random.Generator
        Draws everything.
    """

    def __init__(self, sampler: SliceSampler, rng: np.random.Generator):
        super().__init__(sampler.size, rng)
        self.heads, self.artifacts, self.inside = sampler.heads, sampler.artifacts, sampler.inside

    def tissues(self, person: int, axis: int | None = None) -> tuple[torch.Tensor, np.ndarray]:
        """Fractions (K, size, size) and brain mask of a random, mildly deformed crop.

        Parameters
        ----------
        person : int
            Which head.
        axis : int, optional
            That the plane lies across; drawn without.
        """
        head = self.heads[person]
        stack = self.crop([head.fractions, head.maps[:1]], self.inside[person], axis) / 255
        return stack[:-1], ndimage.binary_fill_holes(stack[-1].numpy() > 0.5)

    def alter(self, fractions: torch.Tensor) -> torch.Tensor:
        """Texture within tissues, and now and then lesions in the white matter."""
        rng = self.rng
        fractions = fractions.clone()
        wave = 0.06 * self.smooth(int(rng.integers(8, 40))) + 0.04 * torch.from_numpy(
            rng.standard_normal((self.size,) * 2, np.float32)
        )
        # white and grey matter take a little of each other: texture that every contrast shows
        exchanged = wave.abs() * torch.where(wave > 0, fractions[_WM], fractions[_GM])
        fractions[_GM] += torch.sign(wave) * exchanged
        fractions[_WM] -= torch.sign(wave) * exchanged
        if rng.random() < 0.3:
            seeds = np.argwhere(fractions[_WM].numpy() > 0.7)
            for _ in range(int(rng.integers(1, 8)) if len(seeds) else 0):
                row, column = seeds[int(rng.integers(len(seeds)))]
                radius = np.exp(rng.uniform(np.log(1.5), np.log(7)))
                rows, columns = np.ogrid[: self.size, : self.size]
                distance = np.hypot(rows - row, (columns - column) * np.exp(rng.normal(0, 0.4)))
                inside = torch.from_numpy(
                    np.clip(radius - distance + 0.5, 0, 1).astype(np.float32) * rng.uniform(0.5, 1)
                ).float()
                moved = inside * fractions[_WM]
                fractions[_WM] -= moved
                fractions[_LESION] += moved
        return fractions

    def shown(self) -> tuple[torch.Tensor, np.ndarray]:
        """Altered fractions of a crop of some head, and what a scan shows of it: head or brain."""
        rng = self.rng
        fractions, brain = self.tissues(int(rng.integers(len(self.heads))))
        fractions = self.alter(fractions)
        mask = brain if rng.random() < 0.25 else silhouette_of(fractions)
        rim = int(rng.integers(4))
        mask = ndimage.binary_dilation(mask, iterations=rim) if rim else mask
        return fractions, self.field_of_view(mask)

    def scan(self, look: Look, image: np.ndarray) -> np.ndarray:
        """Blur, residual bias, noise and a white-matter peak that is slightly off."""
        rng = self.rng
        image = blur(image, rng.uniform(0, 0.8))
        if rng.random() < 0.25:
            image = ndimage.gaussian_filter1d(
                image, rng.uniform(0.5, 2.2), axis=int(rng.integers(2))
            )
        field = self.smooth(4).numpy()
        image = image * np.exp(0.3 * look.bias * field) * np.float32(rng.uniform(0.95, 1.05))
        noisy = rician(image, 1 / look.snr, rng)
        if rng.random() < 0.5:
            noisy = blur(noisy, rng.uniform(0.2, 0.6))  # resampling smooths the noise too
        return np.clip(noisy, 0, 6)


class _Draw(SliceDraw):
    """One example of the phantom."""

    def __init__(
        self,
        sampler: SliceSampler,
        rng: np.random.Generator,
        protocols: Mapping[str, Protocol] | None,
    ):
        super().__init__(sampler, rng)
        self.protocols = protocols

    def sample(self) -> dict[str, np.ndarray]:
        """Fields of the batch by name."""
        rng = self.rng
        person = int(rng.integers(len(self.heads)))
        stripped = rng.random() < 0.25
        fractions, brain = self.tissues(person)
        fractions = self.alter(fractions)
        silhouette = brain if stripped else silhouette_of(fractions)
        if stripped:
            fractions = fractions * torch.from_numpy(brain.astype(np.float32))

        first, second = (CONTRASTS[i] for i in rng.choice(4, 2, replace=False))
        wanted = CONTRASTS[int(rng.integers(4))]
        *looks, target = draw_looks((first, second, wanted), rng, self.protocols)
        if wanted in (first, second) and rng.random() < 0.3:
            target = looks[(first, second).index(wanted)]

        rim = int(rng.integers(4))
        shown = ndimage.binary_dilation(silhouette, iterations=rim) if rim else silhouette
        # in a volume that is stripped, defaced or cut out the air is zero
        airy = not stripped and rng.random() < AIR
        severities = draw_severities(rng) if self.artifacts else (0.0, 0.0)
        sources, masks, views = [], [], []
        for look, severity in zip(looks, severities, strict=True):
            seen = np.ones_like(shown)
            if self.artifacts:
                seen = self.field_of_view(seen)
            mask = shown & seen
            view = seen if airy else mask
            image = self.scan(look, look.render(fractions))
            if severity:
                kind, seed = draw_kind(rng)
                image = corrupt(image, kind, severity, seed)
            sources.append(image * view)
            masks.append(mask)
            views.append(view)

        other = person
        if rng.random() < 0.3 or len(self.heads) == 1:
            other = int(rng.integers(len(self.heads)))
        style_fractions, style_brain = self.tissues(other)
        style_fractions = self.alter(style_fractions)
        style_mask = style_brain if stripped else silhouette_of(style_fractions)
        style_view = np.ones_like(style_mask) if airy else style_mask
        if stripped:
            style_fractions = style_fractions * torch.from_numpy(style_brain.astype(np.float32))
        plain = target.render(style_fractions)
        style = self.scan(target, plain)
        clean = style
        if rng.random() < 0.5:
            clean = rician(plain, 0.004 + 0.012 * rng.random(), rng)
        kind, seed = draw_kind(rng)
        severity = np.sort(rng.random(2)).astype(np.float32)
        mild, severe = (corrupt(clean, kind, float(s), seed) for s in severity)
        return {
            'sources': np.stack(sources).astype(np.float32),
            'source_masks': np.stack(masks).astype(np.float32),
            'views': np.stack([*views, style_view]).astype(np.float32),
            'target': (blur(target.render(fractions), 0.3) * shown)[None].astype(np.float32),
            'anatomy': anatomy_of(fractions),
            'style': (style * style_view)[None].astype(np.float32),
            'style_mask': style_mask[None].astype(np.float32),
            'clean': (clean * style_view)[None].astype(np.float32),
            'mild': (mild * style_view)[None].astype(np.float32),
            'severe': (severe * style_view)[None].astype(np.float32),
            'severity': severity,
            'source_severity': np.array(severities, np.float32),
            'levels': np.stack([look.levels() for look in (*looks, target)]),
            'contrasts': np.array([CONTRASTS.index(c) for c in (first, second, wanted)]),
            'present': np.ones(2, bool),
            'known': np.float32(1),
            'seeds': rng.integers(2**62),
        }


def silhouette_of(fractions: torch.Tensor) -> np.ndarray:
    """Filled outline of the head, bool."""
    return ndimage.binary_fill_holes(fractions.sum(0).numpy() > 0.3)


def anatomy_of(fractions: torch.Tensor) -> np.ndarray:
    """Fractions (K, H, W) summed by level, shape (5, H, W)."""
    levels = [fractions[[TISSUES.index(name) for name in names]].sum(0) for names in ANATOMY]
    levels[0] = levels[0] + (1 - fractions.sum(0)).clamp_min(0)
    return torch.stack(levels).numpy()


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of an image; none where its standard deviation is below a quarter pixel."""
    return image if sigma < 0.25 else ndimage.gaussian_filter(image, sigma, truncate=3)


def rician(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of an image with noise of standard deviation sigma in both channels."""
    real, imaginary = rng.standard_normal((2, *image.shape), np.float32) * np.float32(sigma)
    return np.hypot(image + real, imaginary)
