"""White-matter lesions: periventricular, juxtacortical and deep, as in multiple sclerosis.

Where they lie follows Filippi 2019, Brain 142:1858: most touch the ventricles, with their long
axis away from them, fewer lie at the cortex, the rest between.
"""

import math

import torch
from torch.nn import functional

from harmony_app.phantom.acquisition import point_spread
from harmony_app.phantom.anatomy import Anatomy
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES

SHARES = {'periventricular': 0.6, 'juxtacortical': 0.25, 'deep': 0.15}
"""Share of the lesions of each kind."""

EDGE = 0.7
"""Half-width in mm of the smooth edge of a lesion."""

_WM, _GM, _CSF = (TISSUES.index(name) for name in ('wm', 'gm', 'csf'))
_LESION = TISSUES.index('lesion')
_BRAIN = [TISSUES.index(name) for name in BRAIN_TISSUES]


def add_lesions(
    anatomy: Anatomy, volume: float, generator: torch.Generator, count: int | None = None
) -> Anatomy:
    """Replace white matter by lesions.

    Parameters
    ----------
    anatomy : Anatomy
        The head.
    volume : float
        Total volume of new lesions in ml; met within 5 %.
    generator : torch.Generator
        Draws number, places, sizes and shapes.
    count : int, optional
        Number of lesions; drawn around one per 0.5 ml where absent.

    Returns
    -------
    Anatomy
        The fractions of every voxel keep their sum.

    Raises
    ------
    ValueError
        Where the volume is negative, or more than a fifth of the white matter.
    """
    if volume == 0:
        return anatomy
    fractions = anatomy.fractions
    voxel = abs(float(torch.linalg.det(torch.as_tensor(anatomy.affine[:3, :3])))) / 1000
    if not 0 < volume <= 0.2 * float(fractions[_WM].sum()) * voxel:
        raise ValueError(f'lesion volume {volume} ml is not within 0 and a fifth of white matter')
    if count is None:
        spread = float(torch.rand(1, generator=generator, device=generator.device))
        count = max(1, round(volume * (1.2 + 1.6 * spread)))
    zoom = voxel ** (1 / 3) * 10
    centres, long_axes = _places(fractions, zoom, count, generator)
    shapes = _shapes(count, volume, generator)
    waves = torch.randn((count, 3, 3), generator=generator, device=generator.device).cpu()

    wm = fractions[_WM]
    low, high = 0.3, 3.0
    for _ in range(12):
        scale = math.sqrt(low * high)
        extent = _extent(wm, centres, long_axes, shapes * scale, waves, zoom)
        total = float((extent * wm).sum()) * voxel
        if abs(total - volume) < 0.02 * volume:
            break
        low, high = (scale, high) if total < volume else (low, scale)
    result = fractions.clone()
    result[_LESION] += extent * wm
    result[_WM] *= 1 - extent
    return anatomy.with_fractions(result)


def _places(
    fractions: torch.Tensor, zoom: float, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxel coordinates (N, 3) of the centres and unit long axes (N, 3), on the CPU."""
    step = max(1, round(2.0 / zoom))
    size = step * zoom

    def coarse(image):
        return functional.avg_pool3d(image[None, None], step)[0]

    def smooth(image, sigma):
        return point_spread(image, [2.3548 * sigma / size] * 3)[0]

    wm, gm, csf = (coarse(fractions[i]) for i in (_WM, _GM, _CSF))
    inside = smooth(coarse(fractions[_BRAIN].sum(0)) + csf, 9.0)
    ventricles = smooth(csf * (inside > 0.93), 4.0)
    # stem and cerebellum, in the lower third of the brain, have few
    profile = inside.sum((0, 1)).cumsum(0)
    seldom = torch.where(profile < 0.33 * profile[-1], 0.05, 1.0)
    white = wm[0] * (wm[0] > 0.7) * seldom
    maps = {
        'periventricular': white * ventricles**2,
        'juxtacortical': white * (inside > 0.6) * smooth(gm, 2.0),
        'deep': white * (inside > 0.93),
    }
    gradient = torch.stack(torch.gradient(ventricles))
    share = torch.tensor(list(SHARES.values()), device=generator.device)
    kinds = torch.multinomial(share, count, replacement=True, generator=generator).tolist()
    centres, axes = [], []
    for kind in kinds:
        weight = maps[list(SHARES)[kind]]
        if not bool(weight.sum() > 0):
            weight = white
        # multinomial takes no more than 2^24 categories: draw by the cumulative sum
        cumulative = weight.flatten().double().cumsum(0)
        drawn = torch.rand(1, generator=generator, device=generator.device).double()
        index = int(torch.searchsorted(cumulative, drawn.to(cumulative.device) * cumulative[-1]))
        place = torch.tensor(
            [
                index // (weight.shape[1] * weight.shape[2]),
                index // weight.shape[2] % weight.shape[1],
                index % weight.shape[2],
            ]
        )
        jitter = torch.rand(3, generator=generator, device=generator.device).cpu()
        centres.append((place + jitter) * step - 0.5)
        axis = gradient[:, place[0], place[1], place[2]].cpu()
        random = torch.randn(3, generator=generator, device=generator.device).cpu()
        axis = axis / axis.norm().clamp(min=1e-9) if kind == 0 else torch.zeros(3)
        axis = axis + 0.35 * random
        axes.append(axis / axis.norm().clamp(min=1e-6))
    return torch.stack(centres), torch.stack(axes)


def _shapes(count: int, volume: float, generator: torch.Generator) -> torch.Tensor:
    """Half-axes (N, 2) in mm, along and across; their ellipsoids have the volume together."""
    normal = torch.randn((count, 2), generator=generator, device=generator.device).cpu()
    across = torch.exp(0.4 * normal[:, 0])
    along = across * (1.2 + 0.5 * normal[:, 1].abs())
    total = float((4 / 3 * math.pi * along * across**2).sum()) / 1000
    return torch.stack([along, across], dim=1) * (volume / total) ** (1 / 3)


def _extent(
    like: torch.Tensor,
    centres: torch.Tensor,
    axes: torch.Tensor,
    shapes: torch.Tensor,
    waves: torch.Tensor,
    zoom: float,
) -> torch.Tensor:
    """How much of every voxel the lesions fill, 0 to 1."""
    extent = torch.zeros_like(like)
    for centre, axis, (along, across), wave in zip(centres, axes, shapes, waves, strict=True):
        reach = (float(along) * 1.5 + 3 * EDGE) / zoom
        box = [
            (max(0, math.floor(c - reach)), min(n, math.ceil(c + reach) + 1))
            for c, n in zip(centre.tolist(), like.shape, strict=True)
        ]
        if any(a >= b for a, b in box):
            continue
        offset = torch.stack(
            torch.meshgrid(
                *(
                    (torch.arange(a, b, device=like.device) - float(c)) * zoom
                    for (a, b), c in zip(box, centre, strict=True)
                ),
                indexing='ij',
            )
        )
        lengthwise = torch.einsum('c,cxyz->xyz', axis.to(like.device), offset)
        sideways = ((offset**2).sum(0) - lengthwise**2).clamp(min=0)
        radius = torch.sqrt((lengthwise / along) ** 2 + sideways / across**2)
        # lobes: the outline follows three random waves about as long as the lesion
        phase = torch.einsum('wc,cxyz->wxyz', wave.to(like.device), offset) / across
        radius = radius * (1 + 0.12 * torch.sin(phase + 1.0).sum(0).clamp(-2, 2))
        filled = torch.sigmoid((1 - radius) * 2 * across / EDGE)
        part = extent[tuple(slice(a, b) for a, b in box)]
        torch.maximum(part, filled, out=part)
    return extent
