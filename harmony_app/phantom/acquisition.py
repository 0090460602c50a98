"""From tissue fractions to scans: rendering, native grid, point spread, receive field, noise.

Coordinates: the head lies in its own RAS millimetres (those of the anatomy); a position, a
rigid 4x4 matrix, puts it into the scanner, whose RAS millimetres the affine of a scan has.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from harmony_app.phantom.anatomy import Anatomy
from harmony_app.phantom.geometry import Grid, head_position, prescribe
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES

_WM, _GM = TISSUES.index('wm'), TISSUES.index('gm')
_BRAIN = [TISSUES.index(name) for name in BRAIN_TISSUES]


class Acquired(NamedTuple):
    """A scan, where it lies, and what it would be without noise and receive field.

    ``scan`` and ``truth`` have shape (B, X, Y, Z).
    """

    scan: torch.Tensor
    affine: np.ndarray
    truth: torch.Tensor


def render(
    fractions: torch.Tensor, signals: torch.Tensor, texture: torch.Tensor | None = None
) -> torch.Tensor:
    """Mix the signals of the tissues by their fractions.

    Parameters
    ----------
    fractions : Tensor, shape (K, ...) or (B, K, ...)
        Tissue fractions of one head for all scans, or of one head each.
    signals : Tensor, shape (B, K)
        Signal of every tissue in every scan.
    texture : Tensor, shape (...) or (B, ...), optional
        Smooth variation within tissues: how far white and grey matter are moved towards
        each other's signal, and the relative variation outside the brain (see
        :func:`harmony_app.phantom.subject.draw_texture`). A property of the head, not of the scan.

    Returns
    -------
    Tensor, shape (B, ...)
    """
    space = fractions.shape[1:] if fractions.shape[0] == len(TISSUES) else fractions.shape[2:]
    flat = fractions.reshape(*fractions.shape[: fractions.ndim - len(space)], -1)
    if flat.ndim == 2:
        image = signals @ flat
    else:
        image = torch.bmm(signals[:, None], flat)[:, 0]
    if texture is not None:
        wave = texture.reshape(*texture.shape[: texture.ndim - len(space)], -1)
        towards = (signals[:, _GM] - signals[:, _WM])[:, None]
        cerebral = flat[..., _WM, :] + flat[..., _GM, :]
        brain = flat[..., _BRAIN, :].sum(-2)
        image = image * (1 + wave * (1 - brain)) + wave * cerebral * towards
    return image.reshape(-1, *space).clamp(min=0)


def sample(
    images: torch.Tensor,
    affine: np.ndarray,
    grid: Grid,
    position: np.ndarray,
    slice_profile: bool = False,
) -> torch.Tensor:
    r"""Average images over the voxels of a scan.

    Voxels larger than those of the images are averaged over as many points as they span;
    under ``slice_profile`` the third axis is weighted by a smooth slice profile whose full
    width at half maximum is the slice thickness, else by a box.

    Parameters
    ----------
    images : Tensor, shape (C, X, Y, Z)
        On the grid of the anatomy.
    affine : ndarray, shape (4, 4)
        Voxel indices of the images to head mm.
    grid : Grid
        Of the scan.
    position : ndarray, shape (4, 4)
        Head mm to scanner mm.

    Returns
    -------
    Tensor, shape (C, \*grid.shape)
    """
    to_image = np.linalg.inv(affine) @ np.linalg.inv(position) @ grid.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0).mean()
    points, weights = [], []
    for axis, zoom in enumerate(grid.zooms):
        count = max(1, math.ceil(zoom / spacing - 0.35))
        at, weight = (np.arange(count) + 0.5) / count - 0.5, np.ones(count)
        if slice_profile and axis == 2 and count > 1:
            # raised cosine edges: half a slice outside the nominal one still gives signal
            count = math.ceil(1.2 * zoom / spacing)
            at = 1.5 * ((np.arange(count) + 0.5) / count - 0.5)
            weight = 0.5 * (1 + np.cos(np.pi * np.clip(2 * np.abs(at) - 0.5, 0, 1)))
        points.append(at)
        weights.append(weight / weight.sum())
    total = torch.zeros((images.shape[0], *grid.shape), device=images.device, dtype=images.dtype)
    for i, wi in zip(points[0], weights[0], strict=True):
        for j, wj in zip(points[1], weights[1], strict=True):
            for k, wk in zip(points[2], weights[2], strict=True):
                shift = np.eye(4)
                shift[:3, 3] = i, j, k
                total += float(wi * wj * wk) * _affine_sample(images, to_image @ shift, grid.shape)
    return total


def point_spread(image: torch.Tensor, width: Sequence[float]) -> torch.Tensor:
    """Blur by the point spread of readout and filter, a Gaussian.

    Parameters
    ----------
    image : Tensor, shape (B, ...), two or three axes of space
    width : sequence of float
        Full width at half maximum along each axis of space, in voxels.
    """
    for axis, fwhm in enumerate(width, start=1):
        sigma = fwhm / 2.3548
        if sigma < 0.1:
            continue
        if sigma < 0.6:
            # so narrow a Gaussian is not seen by its samples: three taps of its variance
            radius, taps = 1, [1 - sigma**2, sigma**2 / 2]
        else:
            radius = math.ceil(2.5 * sigma)
            taps = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(radius + 1)]
        norm = taps[0] + 2 * sum(taps[1:])
        length = image.shape[axis]
        blurred = image * (taps[0] / norm)
        for step in range(1, min(radius, length - 1) + 1):
            weight = taps[step] / norm
            near, far = (
                image.narrow(axis, 0, length - step),
                image.narrow(axis, step, length - step),
            )
            blurred.narrow(axis, step, length - step).add_(near, alpha=weight)
            blurred.narrow(axis, 0, length - step).add_(far, alpha=weight)
        image = blurred
    return image


def receive_field(coordinates: torch.Tensor, shape: str) -> torch.Tensor:
    """Sensitivity of a receive coil, unscaled.

    Parameters
    ----------
    coordinates : Tensor, shape (3, ...)
        Right, front, top, in units of 90 mm from the isocentre.
    shape : str
        ``birdcage``: homogeneous but for its ends; ``dielectric``: a body coil or a corrected
        array at 3 T, brighter in the middle by the standing wave; ``array``: loops around the
        head, combined by their squares, brighter near the surface and at the back.
    """
    x, y, z = coordinates
    if shape == 'birdcage':
        return 1 / (1 + (z / 1.4) ** 4) - 0.12 * (x**2 + y**2)
    if shape == 'dielectric':
        return torch.exp(-(x**2 + y**2 + 0.6 * (z - 0.1) ** 2) / 1.1)
    if shape != 'array':
        raise ValueError(f'unknown receive field {shape!r}')
    total = torch.zeros_like(x + y + z)
    for ring in (-0.5, 0.5):
        for element in range(6):
            angle = (element + 0.5) * math.pi / 3
            distance = (
                (x - 1.5 * math.sin(angle)) ** 2
                + (y - 1.6 * math.cos(angle) + 0.15) ** 2
                + (z - ring) ** 2
            )
            total = total + 1 / (0.6 + distance) ** 2
    return total.sqrt()


def bias_field(
    shape: Sequence[int],
    affine: np.ndarray,
    kind: str,
    strength: float | torch.Tensor,
    generator: torch.Generator,
    head: torch.Tensor | None = None,
    batch: int = 1,
    randomness: float = 0.4,
) -> torch.Tensor:
    """Draw smooth receive fields.

    Parameters
    ----------
    shape : sequence of 3 int
        Grid of the scan; an axis may have length 1 (a slice).
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner mm; the centre of the grid is taken as the isocentre.
    kind : str
        See :func:`receive_field`.
    strength : float or Tensor of shape (B,)
        Largest deviation from the mean within the head, 0 to 0.9.
    generator : torch.Generator
        Draws the part of the field that differs from scan to scan; its device is the result's.
    head : Tensor, shape (X, Y, Z) or (B, X, Y, Z), bool, optional
        Where mean and strength hold; everywhere without it.
    randomness : float
        Standard deviation of the random part in terms of that of the coil's.

    Returns
    -------
    Tensor, shape (B, X, Y, Z)
        Mean 1 within the head.
    """
    device = generator.device
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    # the field is smooth: computed every 8 mm, interpolated between
    coarse = [max(1, min(n, round(n * z / 8) + 1)) for n, z in zip(shape, zooms, strict=True)]
    lines = [
        torch.linspace(-0.5, 0.5, m, device=device) * (n - 1)
        if m > 1
        else torch.zeros(1, device=device)
        for m, n in zip(coarse, shape, strict=True)
    ]
    voxels = torch.stack(torch.meshgrid(*lines, indexing='ij'))
    matrix = torch.as_tensor(affine[:3, :3] / 90, dtype=torch.float32, device=device)
    points = torch.einsum('ij,jxyz->ixyz', matrix, voxels)
    coil = receive_field(points, kind)
    coil = (coil - coil.mean()) / coil.std(correction=0).clamp(min=1e-3)

    x, y, z = points
    waves = torch.stack([x, y, z, x * y, y * z, x * z, x**2 - 0.3, y**2 - 0.3, z**2 - 0.3])
    waves = torch.cat([waves, torch.sin(2.2 * points), torch.cos(2.2 * points)])
    weights = torch.randn((batch, len(waves)), generator=generator, device=device)
    random = torch.einsum('bw,wxyz->bxyz', weights, waves)
    random = random - random.mean(dim=(1, 2, 3), keepdim=True)
    random = random / random.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp(min=1e-3)
    field = coil + randomness * random
    field = functional.interpolate(
        field[:, None], size=tuple(shape), mode='trilinear', align_corners=True
    )[:, 0]

    inside = torch.ones(tuple(shape), dtype=torch.bool, device=device) if head is None else head
    inside = inside.expand_as(field).flatten(1)
    flat = field.flatten(1)
    count = inside.sum(1, keepdim=True).clamp(min=1)
    flat = flat - (flat * inside).sum(1, keepdim=True) / count
    largest = (flat.abs() * inside).amax(1, keepdim=True).clamp(min=1e-6)
    strength = torch.as_tensor(strength, dtype=flat.dtype, device=device).reshape(-1, 1)
    return (1 + strength * flat / largest).clamp(0.05, 1.95).reshape(field.shape)


def rician_noise(
    image: torch.Tensor,
    snr: float | torch.Tensor,
    white_matter_signal: float | torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Magnitude of an image with Gaussian noise in its real and imaginary channel.

    Parameters
    ----------
    image : Tensor, shape (B, ...)
        Noise-free magnitude.
    snr : float or Tensor of shape (B,)
        White-matter signal over the standard deviation of the noise in each channel.
    white_matter_signal : float or Tensor of shape (B,)
        In the units of the image.
    generator : torch.Generator
        On the device of the image.
    """
    sigma = torch.as_tensor(white_matter_signal, device=image.device) / torch.as_tensor(
        snr, device=image.device
    )
    sigma = sigma.to(image.dtype).reshape(-1, *[1] * (image.ndim - 1))
    noise = torch.randn((2, *image.shape), generator=generator, device=image.device).mul_(sigma)
    return torch.hypot(image + noise[0], noise[1])


def acquire(
    anatomy: Anatomy,
    signals: torch.Tensor,
    protocol: Protocol,
    generator: torch.Generator,
    *,
    texture: torch.Tensor | None = None,
    position: np.ndarray | None = None,
    grid: Grid | None = None,
    receive: str = 'birdcage',
    spread: float = 1.0,
    resolution: float = 0.0,
) -> Acquired:
    """Scan a head.

    Parameters
    ----------
    anatomy : Anatomy
        The head.
    signals : Tensor, shape (K,) or (B, K)
        Of every tissue at the protocol (:func:`harmony_app.phantom.sequences.signal`); B scans
        on one grid.
    protocol : Protocol
        Grid, signal-to-noise ratio and strength of the receive field.
    generator : torch.Generator
        On the device of the anatomy.
    texture : Tensor, shape (X, Y, Z), optional
        See :func:`render`.
    position : ndarray, shape (4, 4), optional
        Head mm to scanner mm; drawn where absent.
    grid : Grid, optional
        Of the scan; prescribed where absent.
    receive : str
        Shape of the receive field.
    spread : float
        Full width at half maximum of the point spread in voxels.
    resolution : float
        Smallest voxel edge in mm.

    Returns
    -------
    Acquired
        In the units of the signals.
    """
    signals = signals.reshape(-1, len(TISSUES))
    if position is None:
        position = head_position(generator)
    if grid is None:
        grid = prescribe(anatomy, protocol, position, generator, resolution)
    image = render(anatomy.fractions, signals, texture)
    truth = sample(image, anatomy.affine, grid, position, protocol.acquisition == '2D')
    truth = point_spread(truth, spread_widths(protocol, spread))
    reference = signals[:, _WM]
    return Acquired(spoil(truth, grid, protocol, reference, generator, receive), grid.affine, truth)


def spread_widths(protocol: Protocol, spread: float) -> tuple[float, float, float]:
    """Point spread along columns, rows and slices; slices of a 2D scan have only their profile."""
    return spread, spread, 0.0 if protocol.acquisition == '2D' else spread


def spoil(
    truth: torch.Tensor,
    grid: Grid,
    protocol: Protocol,
    white_matter_signal: torch.Tensor,
    generator: torch.Generator,
    receive: str = 'birdcage',
) -> torch.Tensor:
    """Receive field and Rician noise of a protocol on noise-free scans, shape (B, X, Y, Z)."""
    head = truth > 0.05 * white_matter_signal.reshape(-1, 1, 1, 1)
    bias = bias_field(grid.shape, grid.affine, receive, protocol.bias, generator, head, len(truth))
    return rician_noise(truth * bias, protocol.snr, white_matter_signal, generator)


def _affine_sample(
    images: torch.Tensor, to_image: np.ndarray, shape: tuple[int, int, int]
) -> torch.Tensor:
    """Trilinear sampling at affine points, zero outside."""
    wanted, shape = shape, tuple(max(2, n) for n in shape)
    source = np.array(images.shape[1:], float)
    target = np.array(shape, float)
    # normalized coordinates of torch (voxel centres at the ends: -1 and 1), last axis first
    to_voxel = np.eye(4)
    to_voxel[:3, :3] = np.diag((target - 1) / 2)
    to_voxel[:3, 3] = (target - 1) / 2
    to_unit = np.eye(4)
    to_unit[:3, :3] = np.diag(2 / (source - 1))
    to_unit[:3, 3] = -1
    matrix = (to_unit @ to_image @ to_voxel)[:3]
    matrix = np.concatenate([matrix[::-1, 2::-1], matrix[::-1, 3:]], axis=1)
    theta = torch.as_tensor(matrix.copy(), dtype=images.dtype, device=images.device)
    points = functional.affine_grid(theta[None], (1, 1, *shape), align_corners=True)
    sampled = functional.grid_sample(
        images[None], points, mode='bilinear', padding_mode='zeros', align_corners=True
    )[0]
    # a grid of one slice was made of two: torch has no extent for one
    return sampled[(slice(None), *(slice(n) for n in wanted))]
