"""Artifacts of real scans, each with a severity from 0 (none) to 1 (unusable).

Every function takes a batch of slices (B, H, W) or volumes (B, X, Y, Z) of non-negative
magnitudes and gives the same shape. Severity is a number or one per batch entry; at zero the
image comes back unchanged. What is random comes from the generator (on the device of the image);
one state of the generator gives one pattern at every severity.

The first axis of space is the phase-encoding direction unless said otherwise.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from harmony_app.phantom.acquisition import point_spread, rician_noise

Severity = float | torch.Tensor


def motion(image: torch.Tensor, severity: Severity, generator: torch.Generator) -> torch.Tensor:
    """Movement between groups of phase-encoding lines: ghosts and blur.

    The head jumps between a few positions during the scan; the lines of k-space acquired
    after a jump belong to the shifted head. Shifts are in the plane of the two first axes
    (up to 4 % of the field of view at severity 1), and act as phase ramps; the centre of
    k-space keeps the first position. A piecewise model as in Shaw 2019, MIDL.
    """
    severity = _severity(severity, image)
    batch, lines = image.shape[:2]
    jumps = 6
    bounds = torch.rand((batch, jumps), generator=generator, device=image.device)
    shifts = torch.randn((batch, jumps, 2), generator=generator, device=image.device).clamp(-2, 2)
    frequency = torch.fft.fftfreq(lines, device=image.device)
    # order of acquisition: from the centre outwards, both sides alternately
    order = frequency.abs() * 2
    where = [torch.zeros_like(order).expand(batch, lines) for _ in range(2)]
    for jump in range(jumps):
        # never within the central 4 %: that would only move the whole image
        after = order[None] > 0.04 + 0.7 * bounds[:, jump : jump + 1]
        where = [
            torch.where(after, shifts[:, jump, axis : axis + 1], w) for axis, w in enumerate(where)
        ]
    space = image.ndim - 1
    spectrum = torch.fft.fftn(image, dim=(1, 2))
    phase = torch.zeros((batch, lines, image.shape[2]), device=image.device)
    across = torch.fft.fftfreq(image.shape[2], device=image.device)
    size = 0.022 * severity.reshape(-1, 1)
    phase = phase + (where[0] * size * lines * frequency)[:, :, None]
    phase = phase + (where[1] * size * image.shape[2])[:, :, None] * across[None, None]
    ramp = torch.exp(-2j * math.pi * phase)
    spectrum = spectrum * ramp.reshape(*ramp.shape, *[1] * (space - 2))
    return _keep(image, torch.fft.ifftn(spectrum, dim=(1, 2)).abs(), severity)


def ghosting(image: torch.Tensor, severity: Severity, generator: torch.Generator) -> torch.Tensor:
    """Periodic modulation of phase-encoding lines: faint copies of the head along the phase axis."""
    severity = _severity(severity, image)
    batch, lines = image.shape[:2]
    period = 2 + torch.randint(3, (batch, 1), generator=generator, device=image.device)
    offset = torch.rand((batch, 1), generator=generator, device=image.device)
    index = torch.arange(lines, device=image.device)[None]
    wave = torch.cos(2 * math.pi * (index / period + offset))
    frequency = torch.fft.fftfreq(lines, device=image.device).abs()[None]
    # the few central lines carry the mean: left alone, as restoring them is common practice
    modulation = 1 - 0.7 * severity.reshape(-1, 1) * wave * (frequency > 0.012)
    spectrum = torch.fft.fft(image, dim=1) * modulation.reshape(
        batch, lines, *[1] * (image.ndim - 2)
    )
    return _keep(image, torch.fft.ifft(spectrum, dim=1).abs(), severity)


def spikes(image: torch.Tensor, severity: Severity, generator: torch.Generator) -> torch.Tensor:
    """Stray points in k-space (arcing, loose metal): stripes over the whole image."""
    severity = _severity(severity, image)
    batch, space = image.shape[0], image.ndim - 1
    axes = tuple(range(1, image.ndim))
    position = torch.rand((batch, 3, space), generator=generator, device=image.device)
    angle = torch.rand((batch, 3), generator=generator, device=image.device)
    mean = image.mean(dim=axes).clamp(min=1e-9)
    stripes = torch.zeros(image.shape, dtype=torch.complex64, device=image.device)
    for point in range(3):
        phase = torch.zeros_like(image) + 2 * math.pi * angle[:, point].reshape(-1, *[1] * space)
        for axis, size in enumerate(image.shape[1:]):
            cycles = torch.round((0.04 + 0.3 * position[:, point, axis]) * size)
            line = torch.arange(size, device=image.device) / size
            shape = [1] * space
            shape[axis] = size
            phase = phase + 2 * math.pi * (
                cycles.reshape(-1, *[1] * space) * line.reshape(1, *shape)
            )
        stripes += torch.exp(1j * phase)
    height = (0.4 * severity * mean).reshape(-1, *[1] * space)
    return _keep(image, (image + height * stripes).abs(), severity)


def noise(image: torch.Tensor, severity: Severity, generator: torch.Generator) -> torch.Tensor:
    """Rician noise; at severity 1 its deviation is a quarter of the bright tissue."""
    severity = _severity(severity, image)
    level = _bright(image)
    snr = 1 / (0.25 * severity.clamp(min=1e-6))
    return _keep(image, rician_noise(image, snr, level, generator), severity)


def bias(image: torch.Tensor, severity: Severity, generator: torch.Generator) -> torch.Tensor:
    """Residual smooth intensity field; at severity 1 its logarithm has a deviation of 0.45."""
    severity = _severity(severity, image)
    batch, space = image.shape[0], image.ndim - 1
    control = torch.randn((batch, 1, *[4] * space), generator=generator, device=image.device)
    mode = 'bicubic' if space == 2 else 'trilinear'
    field = functional.interpolate(
        control, size=tuple(image.shape[1:]), mode=mode, align_corners=True
    )[:, 0]
    axes = tuple(range(1, image.ndim))
    field = field - field.mean(dim=axes, keepdim=True)
    field = field / field.std(dim=axes, keepdim=True).clamp(min=1e-6)
    weight = (0.45 * severity).reshape(-1, *[1] * space)
    return _keep(image, image * torch.exp(weight * field), severity)


def anisotropy(image: torch.Tensor, severity: Severity, generator: torch.Generator) -> torch.Tensor:
    """Thick slices along one axis, put back on the grid: blocks smoothed by interpolation.

    The axis is drawn for the batch (the last or the first of space); the slice thickness
    grows from 1 to 8 voxels.
    """
    severity = _severity(severity, image)
    first = bool(torch.rand(1, generator=generator, device=image.device) < 0.5)
    axis = 1 if first else image.ndim - 1
    moved = image.movedim(axis, -1)
    flat = moved.reshape(image.shape[0], -1, moved.shape[-1])
    rows = []
    for row, strength in zip(flat, severity.tolist(), strict=True):
        thickness = 1 + 7 * strength
        length = row.shape[-1]
        thick = max(2, round(length / thickness))
        if thick < length:
            width = 0.9 * math.sqrt((length / thick) ** 2 - 1)
            row = point_spread(row[None], [0.0, width])[0]
            row = functional.interpolate(row[None], size=thick, mode='linear', align_corners=False)
            row = functional.interpolate(row, size=length, mode='linear', align_corners=False)[0]
        rows.append(row)
    result = torch.stack(rows).reshape(moved.shape).movedim(-1, axis)
    return _keep(image, result, severity)


def gibbs(image: torch.Tensor, severity: Severity, generator: torch.Generator) -> torch.Tensor:
    """Truncation of k-space along the two first axes: ringing beside edges.

    From all of k-space at severity 0 to its central 30 % at severity 1, without a filter.
    Nothing in it is random; the generator is there for one interface.
    """
    severity = _severity(severity, image)
    spectrum = torch.fft.fftn(image, dim=(1, 2))
    kept = 1 - 0.7 * severity.reshape(-1, 1)
    for axis in (1, 2):
        frequency = 2 * torch.fft.fftfreq(image.shape[axis], device=image.device).abs()[None]
        # a soft last line makes truncation continuous in severity
        step = 2 / image.shape[axis]
        window = ((kept + step - frequency) / step).clamp(0, 1)
        shape = [image.shape[0], *[1] * (image.ndim - 1)]
        shape[axis] = image.shape[axis]
        spectrum = spectrum * window.reshape(shape)
    return _keep(image, torch.fft.ifftn(spectrum, dim=(1, 2)).abs(), severity)


ARTIFACTS: dict[str, Callable[[torch.Tensor, Severity, torch.Generator], torch.Tensor]] = {
    'motion': motion,
    'ghosting': ghosting,
    'spikes': spikes,
    'noise': noise,
    'bias': bias,
    'anisotropy': anisotropy,
    'gibbs': gibbs,
}
"""Every artifact by name."""


def _severity(severity: Severity, image: torch.Tensor) -> torch.Tensor:
    """One severity per batch entry, shape (B,)."""
    if image.ndim not in (3, 4):
        raise ValueError(f'slices (B, H, W) or volumes (B, X, Y, Z), not {image.ndim} axes')
    values = torch.as_tensor(severity, dtype=torch.float32, device=image.device).reshape(-1)
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f'severity is within 0 and 1, not {severity}')
    return values.expand(image.shape[0])


def _keep(before: torch.Tensor, after: torch.Tensor, severity: torch.Tensor) -> torch.Tensor:
    """Severity 0 is the identity to the last bit, not only up to a Fourier transform."""
    untouched = (severity == 0).reshape(-1, *[1] * (before.ndim - 1))
    return torch.where(untouched, before, after.to(before.dtype))


def _bright(image: torch.Tensor) -> torch.Tensor:
    """Mean of what is brighter than the mean of all, (B,): near white matter in T1w."""
    flat = image.flatten(1)
    above = flat > flat.mean(1, keepdim=True)
    return ((flat * above).sum(1) / above.sum(1).clamp(min=1)).clamp(min=1e-9)
