"""Scores of slices against their truth, and the held-out examples that are judged."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional


def slice_scores(
    result: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
) -> list[dict[str, float]]:
    """L1, SSIM and PSNR of every slice inside its mask; nothing where the mask is empty.

    Parameters
    ----------
    result, target, mask : Tensor, shape (B, 1, H, W)
    """
    scale = target.flatten(1).quantile(0.995, dim=1).clamp_min(0.5)
    error = (result - target).abs() * mask
    pixels = mask.sum((1, 2, 3)).clamp_min(1)
    l1 = error.sum((1, 2, 3)) / pixels
    mse = error.square().sum((1, 2, 3)) / pixels
    psnr = 10 * torch.log10(scale.square() / mse.clamp_min(1e-9))
    ssim = structural_similarity(result, target, mask, scale)
    return [
        {'l1': float(l1[i]), 'ssim': float(ssim[i]), 'psnr': float(psnr[i])}
        if mask[i].any()
        else {}
        for i in range(len(result))
    ]


class Tally:
    """Values by name, and their means."""

    def __init__(self):
        self.values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Note a value."""
        self.values.setdefault(name, []).append(float(value))

    def add_scores(self, scores: Mapping[str, float], contrast: str, same: bool) -> None:
        """Note the scores of a slice of a contrast, with those of all and of its group.

        Parameters
        ----------
        scores : mapping
            Of :func:`slice_scores`.
        contrast : str
            Of the slice.
        same : bool
            Whether the contrast was given: group ``same``, and ``other`` where it was not.
        """
        for group in ('all', contrast, 'same' if same else 'other'):
            for name, value in scores.items():
                self.add(f'{name}_{group}', value)

    def means(self) -> dict[str, float]:
        """Mean of each name, by name in order.

        Examples
        --------
        >>> tally = Tally()
        >>> tally.add_scores({'l1': 0.25}, 'T1w', same=True)
        >>> tally.add_scores({'l1': 0.75}, 'T2w', same=True)
        >>> tally.means()
        {'l1_T1w': 0.25, 'l1_T2w': 0.75, 'l1_all': 0.5, 'l1_same': 0.5}
        """
        return {name: float(np.mean(values)) for name, values in sorted(self.values.items())}


def structural_similarity(
    image: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Mean SSIM (Wang 2004; Gaussian window of 1.5 pixels) inside a mask.

    Parameters
    ----------
    image, target, mask : Tensor, shape (B, 1, H, W)
    scale : Tensor, shape (B,)
        Data range.

    Returns
    -------
    Tensor, shape (B,)
    """
    offsets = torch.arange(-5, 6, device=image.device, dtype=image.dtype)
    taps = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    taps = taps / taps.sum()
    kernel = (taps[:, None] * taps[None])[None, None]

    def local(values):
        return functional.conv2d(values, kernel, padding=5)

    mean_x, mean_y = local(image), local(target)
    var_x = local(image.square()) - mean_x.square()
    var_y = local(target.square()) - mean_y.square()
    covariance = local(image * target) - mean_x * mean_y
    one, two = (((k * scale) ** 2)[:, None, None, None] for k in (0.01, 0.03))
    ssim = ((2 * mean_x * mean_y + one) * (2 * covariance + two)) / (
        (mean_x.square() + mean_y.square() + one) * (var_x + var_y + two)
    )
    return (ssim * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)


def draw_checks(source: object, batches: int, batch: int, device: str = 'cpu') -> list:
    """Examples for validation, the same each time: batches of what the source draws."""
    drawn = [
        [source.draw(np.random.default_rng([9000, i, j])) for j in range(batch)]
        for i in range(batches)
    ]
    return [type(examples[0]).join(examples).to(device) for examples in drawn]
