"""Training examples of the transfer network: one subject at two sites, and a target's style."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harmony_app.imaging.curves import apply_curve, calibration_curve
from harmony_app.imaging.profile import TissueProfile, measure_profile_coarse
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.transfer_features import condition_vector, volume_features
from harmony_app.phantom.anatomy import blur
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.subject import SPREAD
from harmony_app.phantom.tissues import TISSUES, tissue_properties, vary_properties
from harmony_app.training.heads import render
from harmony_app.training.randomize import (
    random_class_factors,
    random_monotone_map,
    random_protocol,
    smooth_field,
)
from harmony_app.training.subjects import Subject
from harmony_app.training.transfer_settings import DrawSettings

POINTS = 32_000
"""Voxels of a volume at which the loss is taken."""

SITE_SHARE = 0.3
"""Share of the examples whose target style is averaged over three people, as that of a site is."""

HIGHEST = 6.0
"""Intensities above this many white-matter peaks are clipped."""

DEFAULT = DrawSettings()

_WM = TISSUES.index('wm')
_TRUE = [TISSUES.index(name) for name in ('gm', 'wm', 'csf')]


@dataclass(frozen=True)
class RealScan:
    """A real preprocessed scan at 2 mm whose licence allows training.

    Parameters
    ----------
    contrast : str
        Its contrast.
    data : ndarray, shape (96, 112, 96), float32
        White-matter peak at 1.
    brain : ndarray of bool
        Brain mask.
    tissues : ndarray, shape (3, 96, 112, 96), float32
        Registered GM, WM, CSF maps.
    """

    contrast: str
    data: np.ndarray
    brain: np.ndarray
    tissues: np.ndarray


@dataclass(frozen=True)
class Example:
    """One training example.

    Parameters
    ----------
    features : Tensor, shape (6, 48, 56, 48)
        Of the source.
    condition : Tensor, shape (CONDITION,)
        Styles of source and target.
    points : Tensor, shape (N, 3)
        Voxel coordinates on the working grid at 1 mm; cube by cube where ``cube`` is over 1.
    source, base, truth : Tensor, shape (N,)
        Intensities there; ``base`` is the source after the map of its tissue medians.
    scale : float
        Range of the truth in the brain; the loss is divided by it.
    inside : Tensor, shape (N,), bool
        In the brain.
    cube : int
        Edge in voxels of 2 mm of the cubes that the points fill.
    """

    features: torch.Tensor
    condition: torch.Tensor
    points: torch.Tensor
    source: torch.Tensor
    base: torch.Tensor
    truth: torch.Tensor
    scale: float
    inside: torch.Tensor
    cube: int = 1


@dataclass(frozen=True)
class Look:
    """What a site does to a contrast: protocol physics, and what physics does not give."""

    protocol: Protocol
    factors: np.ndarray
    curve: tuple[np.ndarray, np.ndarray]


def random_look(contrast: str, rng: np.random.Generator, settings: DrawSettings = DEFAULT) -> Look:
    """Draw a site's look of a contrast."""
    factors = np.ones(len(TISSUES), np.float32)
    if settings.factors and rng.random() < 0.6:
        factors = random_class_factors(len(TISSUES), rng.uniform(0.02, 0.2), rng)
    strength = rng.uniform(0.0, 0.35) if settings.curves and rng.random() < 0.6 else 0.0
    return Look(random_protocol(contrast, rng), factors, random_monotone_map(strength, rng))


def look_signals(look: Look, person: int, spread: float = SPREAD) -> torch.Tensor:
    """Signals of one person's tissues under a look, white matter at 1, shape (K,)."""
    generator = torch.Generator().manual_seed(person)
    tissues = vary_properties(tissue_properties(look.protocol.field), spread, generator)
    signals = signal(look.protocol, tissues) * torch.from_numpy(look.factors)
    return signals / signals[_WM]


def apply_look(image: torch.Tensor, look: Look) -> torch.Tensor:
    """Map intensities by the part of a look that is no physics."""
    x, y = look.curve
    return torch.from_numpy(np.interp(image.numpy(), x, y).astype(np.float32)).clamp(max=HIGHEST)


def degrade(
    image: torch.Tensor, protocol: Protocol, rng: np.random.Generator, bias: float
) -> torch.Tensor:
    """Residual bias, a small error of the white-matter peak, and Rician noise."""
    field = torch.from_numpy(smooth_field(tuple(image.shape), 5, rng))
    image = image * torch.exp(bias * field + rng.normal(0, 0.015))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    # eight voxels of 1 mm averaged have noise smaller by their square root
    sigma = 1 / protocol.snr / np.sqrt(8)
    real, imaginary = (sigma * torch.randn((2, *image.shape), generator=generator)).unbind()
    return torch.sqrt((image + real) ** 2 + imaginary**2)


class TransferDraws:
    """Endless examples from a pool of subjects and, where given, real scans.

    Parameters
    ----------
    subjects : sequence of Subject
        The pool.
    real : sequence of RealScan
        Scans that serve as source and truth under two random intensity maps.
    real_share : float
        Share of the examples drawn from them.
    settings : DrawSettings
        How examples are drawn.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        real: Sequence[RealScan] = (),
        real_share: float = 0.2,
        settings: DrawSettings = DEFAULT,
    ):
        self.settings = settings
        self.subjects = subjects
        self.real = real
        self.real_share = real_share if real else 0.0

    def draw(self, rng: np.random.Generator) -> Example:
        """Draw one example; drawn again where a tissue cannot be seen."""
        while True:
            try:
                if rng.random() < self.real_share:
                    return self._draw_real(rng)
                return self._draw_phantom(rng)
            except ValueError:
                continue

    def _draw_phantom(self, rng: np.random.Generator) -> Example:
        contrast = CONTRASTS[rng.integers(len(CONTRASTS))]
        settings = self.settings
        here = random_look(contrast, rng, settings)
        there = here if rng.random() < 0.08 else random_look(contrast, rng, settings)
        subject, other = (self.subjects[i] for i in rng.integers(len(self.subjects), size=2))
        person, stranger = (int(n) for n in rng.integers(2**31, size=2))
        if rng.random() < 0.2:
            other, stranger = subject, person

        fractions, sigma = _fractions(subject), _point_spread(rng)
        texture = torch.from_numpy(smooth_field(tuple(fractions.shape[1:]), 20, rng))
        texture = 1 + rng.uniform(0, 0.03) * texture
        keep = _field_of_view(subject, rng)
        source = _image(fractions, here, person, sigma, texture)
        source = degrade(source, here.protocol, rng, rng.uniform(0, 0.06)) * keep
        truth = _image(fractions, there, person, sigma, texture) * keep

        strangers = [(other, stranger)]
        if rng.random() < SITE_SHARE:
            strangers += [
                (self.subjects[i], int(n))
                for i, n in zip(
                    rng.integers(len(self.subjects), size=2),
                    rng.integers(2**31, size=2),
                    strict=True,
                )
            ]
        target = TissueProfile.average(
            [
                _reference(other, there, stranger, rng, settings.labels)
                for other, stranger in strangers
            ]
        )
        profile = measure_profile_coarse(
            source.numpy(), *_brain_and_tissues(subject, settings.labels)
        )
        brain, tissues = _brain_and_tissues(subject)
        return self._example(contrast, source, truth, brain, tissues, profile, target, rng)

    def _draw_real(self, rng: np.random.Generator) -> Example:
        scan = self.real[rng.integers(len(self.real))]
        image = torch.from_numpy(scan.data)
        looks = [random_monotone_map(rng.uniform(0, 0.4), rng) for _ in range(2)]
        source, truth = (
            torch.from_numpy(np.interp(scan.data, *curve).astype(np.float32)) for curve in looks
        )
        field = torch.from_numpy(smooth_field(tuple(image.shape), 5, rng))
        source = source * torch.exp(rng.uniform(0, 0.05) * field + rng.normal(0, 0.01))
        profile, target = (
            measure_profile_coarse(image.numpy(), scan.brain, scan.tissues)
            for image in (source, truth)
        )
        return self._example(
            scan.contrast, source, truth, scan.brain, scan.tissues, profile, target, rng
        )

    def _example(
        self,
        contrast: str,
        source: torch.Tensor,
        truth: torch.Tensor,
        brain: np.ndarray,
        tissues: np.ndarray,
        profile: TissueProfile,
        target: TissueProfile,
        rng: np.random.Generator,
    ) -> Example:
        mask, maps = torch.from_numpy(brain), torch.from_numpy(tissues)
        seen = (source > 0.02) & (truth > 0)
        inside = torch.nonzero(seen & mask)
        outside = torch.nonzero(seen & ~mask)
        cube = self.settings.cube
        count = POINTS // cube**3
        chosen = [_some(inside, 3 * count // 4, rng)]
        if len(outside):
            chosen.append(_some(outside, count // 4, rng))
        points = _cubes(torch.cat(chosen), cube, source.shape)
        x, y, z = points.unbind(dim=1)
        values = source[x, y, z]
        base = apply_curve(values.numpy(), calibration_curve(profile, target))
        return Example(
            features=volume_features(source, mask, maps, 2),
            condition=condition_vector(profile, target, contrast),
            points=points * 2 + 0.5,
            source=values,
            base=torch.from_numpy(base),
            truth=truth[x, y, z],
            scale=float(max(1.0, np.percentile(truth[mask].numpy()[::5], 99))),
            inside=mask[x, y, z],
            cube=cube,
        )


def _reference(
    subject: Subject, look: Look, person: int, rng: np.random.Generator, labels: bool
) -> TissueProfile:
    """Style of a look, measured on one person's scan."""
    image = _image(_fractions(subject), look, person, _point_spread(rng), torch.ones(()))
    image = degrade(image, look.protocol, rng, rng.uniform(0, 0.04))
    image = image * _field_of_view(subject, rng)
    return measure_profile_coarse(image.numpy(), *_brain_and_tissues(subject, labels))


def _brain_and_tissues(subject: Subject, labels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Registered maps, or the true ones, in the registered brain."""
    brain = subject.maps[0] > 252
    if labels:
        return brain, subject.fractions[_TRUE].astype(np.float32) / 255
    return brain, subject.maps[1:].astype(np.float32) / 255


def _fractions(subject: Subject) -> torch.Tensor:
    return torch.from_numpy(subject.fractions).float() / 255


def _point_spread(rng: np.random.Generator) -> list[float]:
    """Standard deviations in voxels; thick slices in half of the draws."""
    sigma = [0.0, 0.0, 0.0]
    if rng.random() < 0.5:
        sigma[rng.integers(3)] = rng.uniform(0.4, 1.1)
    return sigma


def _image(
    fractions: torch.Tensor, look: Look, person: int, sigma: list[float], texture: torch.Tensor
) -> torch.Tensor:
    """Noise-free image of a person under a look.

    The point spread is linear, so blurring the image once is blurring all fractions.
    """
    image = render(fractions, look_signals(look, person))
    return apply_look(blur(image[None, None], sigma)[0, 0] * texture, look)


def _field_of_view(subject: Subject, rng: np.random.Generator) -> torch.Tensor:
    """Where the scan shows something: whole heads, brains alone, defaced and cropped ones."""
    shape = subject.maps.shape[1:]
    keep = torch.ones(shape)
    kind = rng.random()
    if kind < 0.25:
        keep = torch.from_numpy((subject.maps[0] > 127).astype(np.float32))
    elif kind < 0.45:
        y, z = torch.meshgrid(
            torch.linspace(-1, 1, shape[1]), torch.linspace(-1, 1, shape[2]), indexing='ij'
        )
        face = (y - z * rng.uniform(0.4, 1.2)) > rng.uniform(0.55, 0.9)
        keep = (~face).float().expand(shape).clone()
        keep[torch.from_numpy(subject.maps[0] > 127)] = 1
    if rng.random() < 0.25:
        keep[:, :, : int(rng.integers(1, 24))] = 0
    if rng.random() < 0.1:
        keep[:, :, -int(rng.integers(1, 20)) :] = 0
    return keep


def _some(points: torch.Tensor, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Rows drawn with replacement."""
    if not len(points):
        raise ValueError('no voxel to draw')
    return points[torch.from_numpy(rng.integers(len(points), size=count))]


def _cubes(corners: torch.Tensor, edge: int, shape: Sequence[int]) -> torch.Tensor:
    """Voxels of the cubes that begin at some voxels, moved to lie inside, cube by cube."""
    if edge == 1:
        return corners
    steps = torch.cartesian_prod(*[torch.arange(edge)] * 3)
    corners = torch.minimum(corners, torch.tensor(shape) - edge)
    return (corners[:, None] + steps).reshape(-1, 3)
