"""Encoders of contrast (theta) and artifact level (eta) of a slice of any size."""

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.masked import MaskedConv, masked_mean, pool_mask

MULTIPLE = 16
"""Slices have a height and width that is a multiple of this."""


class ThetaEncoder(nn.Module):
    """Contrast representation: mean and log variance of a small normal variable.

    Four strided convolutions, pooled over the foreground, beside the histogram of the
    foreground. They are not normalised, other than in the paper: scans come with their
    white matter at 1, and the level of the other tissues, which normalisation would remove,
    is what theta has to tell. A histogram knows no place, so it cannot carry anatomy.

    Parameters
    ----------
    dimension : int
        Length of theta.
    widths : tuple of 4 int
        Channels of the convolutions.
    bins : int
        Of the histogram, over compressed intensities of 0 to 2.25.
    """

    def __init__(
        self, dimension: int = 2, widths: tuple[int, ...] = (16, 32, 32, 64), bins: int = 24
    ):
        super().__init__()
        inputs = (1, *widths[:-1])
        self.convs = nn.ModuleList(
            MaskedConv(i, o, norm=False, stride=2, kernel=5 if n == 0 else 3)
            for n, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.norm = nn.LayerNorm(2 * widths[-1])
        self.head = nn.Sequential(
            nn.Linear(2 * widths[-1] + bins, 48), nn.LeakyReLU(0.1), nn.Linear(48, 2 * dimension)
        )
        # starts out nearly certain: noise would hide what tells contrasts apart
        nn.init.constant_(self.head[-1].bias[dimension:], -4.0)
        self.dimension = dimension
        self.bins = bins

    def forward(
        self, images: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode slices.

        Parameters
        ----------
        images, mask : Tensor, shape (B, 1, H, W)
            Slice, zero outside its foreground, and the foreground.

        Returns
        -------
        mean, log_variance : Tensor, shape (B, dimension)
        """
        images = compress(images) * mask
        histogram = self._histogram(images, mask)
        features, coarse = _strided(self.convs, images, mask)
        pooled = self.norm(_pooled(features, coarse))
        mean, log_variance = self.head(torch.cat([pooled, histogram], dim=1)).split(
            self.dimension, dim=1
        )
        return mean, log_variance.clamp(-10, 4)

    def _histogram(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Share of the foreground in every bin times the number of bins, shape (B, bins)."""
        step = 2.25 / (self.bins - 1)
        centres = torch.arange(self.bins, device=images.device, dtype=images.dtype) * step
        # every other pixel of every other line is enough, but the same ones in any crop
        values, shown = images[:, :, ::2, ::2], mask[:, :, ::2, ::2]
        weights = (1 - (values - centres[:, None, None]).abs() / step).clamp_min(0) * shown
        return self.bins * weights.sum((2, 3)) / shown.sum((2, 3)).clamp_min(1)


class EtaEncoder(nn.Module):
    """Artifact representation: non-negative, near zero for a clean slice, grows with severity.

    A residual network with four convolutional layers and a pooling over the foreground. It
    is given the slice and what a 3 x 3 and a 9 x 9 mean leave of it, where noise, ghosts
    and blur show, and the logarithm of what it pools, for artifacts multiply.

    Parameters
    ----------
    dimension : int
        Length of eta.
    widths : tuple of 2 int
        Channels of the two residual stages.
    """

    def __init__(self, dimension: int = 2, widths: tuple[int, int] = (16, 24)):
        super().__init__()
        first, second = widths
        self.stem = MaskedConv(3, first, norm=False, stride=2)
        self.first = MaskedConv(first, first, norm=False)
        self.widen = MaskedConv(first, second, norm=False, stride=2)
        self.second = MaskedConv(second, second, norm=False)
        self.head = nn.Sequential(
            nn.Linear(2 * (first + second), 32), nn.LeakyReLU(0.1), nn.Linear(32, dimension)
        )

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Encode slices (B, 1, H, W) with their foreground to eta, shape (B, dimension)."""
        half = pool_mask(mask)
        quarter = pool_mask(half)
        images = images * mask
        fine = 10 * (images - _local_mean(images, mask, 3)) * mask
        coarse = 4 * (images - _local_mean(images, mask, 9)) * mask
        features = self.stem(torch.cat([images, fine, coarse], dim=1), half)
        features = features + self.first(features, half)
        wide = self.widen(features, quarter)
        wide = wide + self.second(wide, quarter)
        pooled = torch.cat([_pooled(features, half), _pooled(wide, quarter)], dim=1)
        return self.head(torch.log(pooled.abs() + 0.03)).abs()


def compress(images: torch.Tensor) -> torch.Tensor:
    """Intensities for a network: 0 and 1 stay, the brightest fluid comes to about 2."""
    return 3 * images / (2 + images.clamp_min(0))


def _local_mean(images: torch.Tensor, mask: torch.Tensor, edge: int) -> torch.Tensor:
    """Mean of the foreground in a square around every pixel."""
    count = functional.avg_pool2d(mask, edge, 1, edge // 2).clamp_min(1e-3)
    return functional.avg_pool2d(images, edge, 1, edge // 2) / count


def _strided(convs, features, mask):
    for conv in convs:
        mask = pool_mask(mask)
        features = conv(features, mask)
    return features, mask


def _pooled(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over the foreground, shape (B, 2 C)."""
    mean = masked_mean(features, mask)
    centred = (features - mean[..., None, None]) * mask
    spread = torch.sqrt(masked_mean(centred.square(), mask) + 1e-6)
    return torch.cat([mean, spread], dim=1)
