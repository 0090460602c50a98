"""A person: a head deformed, aged and diseased, with tissue properties of its own.

Everything that makes a person is drawn here and nothing at the scanner, so that the same
person can be scanned anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from harmony_app.phantom.acquisition import point_spread
from harmony_app.phantom.anatomy import Anatomy
from harmony_app.phantom.atrophy import apply_atrophy
from harmony_app.phantom.deformation import integrate, random_velocity, warp
from harmony_app.phantom.lesions import add_lesions
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.tissues import TissueProperties, tissue_properties, vary_properties

COARSE = 4.0
"""Grid in mm on which deformations are drawn and integrated."""


SPREAD = 0.02
"""Standard deviation of the logarithm of a person's relaxation times.

Less than the 0.05 that quantitative maps show (Rooney 2007), part of which is their own error: T1w
sequences amplify it, and with 0.05 people at one scanner differ more in grey-to-white contrast (20 %)
than scanners do, which real cohorts do not show.
"""


@dataclass(frozen=True)
class Subject:
    """A person to be scanned.

    Parameters
    ----------
    anatomy : Anatomy
        The head.
    texture : Tensor, shape (X, Y, Z)
        Variation within tissues (:func:`draw_texture`).
    seed : int
        Of the person's tissue properties: the same deviations at every field strength.
    spread : float
        Spread of the tissue properties, see
        :func:`harmony_app.phantom.tissues.vary_properties`.
    atrophy : float
        Share of the brain volume that was taken.
    lesion_volume : float
        Lesions that were added, ml.
    """

    anatomy: Anatomy
    texture: torch.Tensor
    seed: int
    spread: float = SPREAD
    atrophy: float = 0.0
    lesion_volume: float = 0.0

    def properties(self, field: float) -> TissueProperties:
        """The person's tissue properties at a field strength in tesla."""
        device = self.anatomy.fractions.device
        generator = torch.Generator(device).manual_seed(self.seed)
        return vary_properties(tissue_properties(field, device), self.spread, generator)

    def signals(self, protocols: Sequence[Protocol]) -> torch.Tensor:
        """Signal of every tissue at every protocol, shape (B, K)."""
        return torch.stack([signal(p, self.properties(p.field)) for p in protocols])


def draw_subject(
    head: Anatomy,
    generator: torch.Generator,
    *,
    deformation: float = 1.0,
    atrophy: float = 0.0,
    lesion_volume: float = 0.0,
    spread: float = SPREAD,
    texture: float = 0.05,
) -> Subject:
    """Draw a person around a head.

    Parameters
    ----------
    head : Anatomy
        Where to start from; not changed.
    generator : torch.Generator
        On the device of the head.
    deformation : float
        Size of the random deformation; 1 is the spread of adult heads, 0 keeps the head.
    atrophy : float
        Share of the brain volume that is lost, 0 to 0.15.
    lesion_volume : float
        White-matter lesions in ml.
    spread : float
        Spread of the tissue properties (log standard deviation of the relaxation times).
    texture : float
        Standard deviation of :func:`draw_texture`.

    Raises
    ------
    ValueError
        Where atrophy or lesions are impossible in this head.
    """
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
    anatomy = deform(head, generator, deformation) if deformation else head
    anatomy = apply_atrophy(anatomy, atrophy)
    anatomy = add_lesions(anatomy, lesion_volume, generator)
    return Subject(
        anatomy=anatomy,
        texture=draw_texture(anatomy, generator, texture),
        seed=seed,
        spread=spread,
        atrophy=atrophy,
        lesion_volume=lesion_volume,
    )


def draw_displacement(
    shape: Sequence[int], zoom: float, generator: torch.Generator, size: float = 1.0
) -> torch.Tensor:
    """Draw a diffeomorphic displacement: size of the head, gross and finer shape.

    Parameters
    ----------
    shape : sequence of 3 int
        Grid of the head.
    zoom : float
        Its voxel edge in mm.
    generator : torch.Generator
        Its device is the device of the result.
    size : float
        1 is the spread of adult heads.

    Returns
    -------
    Tensor, shape (3, X, Y, Z)
        In voxels; the determinant of its Jacobian is above zero everywhere.
    """
    factor = max(1.0, COARSE / zoom)
    coarse = [max(8, round(n / factor)) for n in shape]
    # a stationary velocity linear in position integrates to a scaling of each axis
    scale = 0.035 * size * torch.randn(3, generator=generator, device=generator.device)
    lines = [torch.arange(n, device=generator.device) - (n - 1) / 2 for n in coarse]
    centred = torch.stack(torch.meshgrid(*lines, indexing='ij'))
    velocity = centred * scale.clamp(-0.09, 0.09).view(3, 1, 1, 1)
    for amplitude, smoothness in ((3.0, 70.0), (1.2, 30.0)):
        velocity = velocity + random_velocity(
            coarse, zoom * factor, size * amplitude, smoothness, generator
        )
    displacement = integrate(velocity)
    ratio = torch.tensor(
        [(n - 1) / (m - 1) for n, m in zip(shape, coarse, strict=True)], device=generator.device
    )
    fine = functional.interpolate(
        displacement[None], size=tuple(shape), mode='trilinear', align_corners=True
    )[0]
    return fine * ratio.view(3, 1, 1, 1)


def deform(head: Anatomy, generator: torch.Generator, size: float = 1.0) -> Anatomy:
    """Warp a head by a random diffeomorphism; see :func:`draw_displacement`."""
    zoom = float(np.linalg.norm(head.affine[:3, :3], axis=0).mean())
    displacement = draw_displacement(head.fractions.shape[1:], zoom, generator, size)
    return head.with_fractions(warp(head.fractions, displacement).clamp_(0, 1))


def draw_texture(
    anatomy: Anatomy, generator: torch.Generator, strength: float = 0.05
) -> torch.Tensor:
    """Draw the variation within tissues that a head of a few classes lacks.

    White and grey matter differ from place to place by their myelin and iron: their signal
    is moved towards each other's. Outside the brain the signal varies by its own share.

    Parameters
    ----------
    anatomy : Anatomy
        The head.
    generator : torch.Generator
        On its device.
    strength : float
        Standard deviation.

    Returns
    -------
    Tensor, shape (X, Y, Z)
        Mean zero; its scales are 1.5 and 8 mm.
    """
    shape = anatomy.fractions.shape[1:]
    zooms = np.linalg.norm(anatomy.affine[:3, :3], axis=0)
    total = torch.zeros(shape, device=generator.device)
    for share, scale in ((0.6, 1.5), (0.8, 8.0)):
        coarse = [max(2, round(n * z / scale)) for n, z in zip(shape, zooms, strict=True)]
        wave = torch.randn((1, *coarse), generator=generator, device=generator.device)
        wave = point_spread(wave, [1.5] * 3)
        wave = functional.interpolate(
            wave[None], size=tuple(shape), mode='trilinear', align_corners=True
        )[0, 0]
        total += wave * (share / wave.std())
    return total * (strength / total.std())
