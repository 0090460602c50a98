"""Encoders of contrast (theta) and artifact level (eta) of a slice of any size."""

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.masked import MaskedConv, masked_statistics, pool_mask

MULTIPLE = 16
"""Slices have a height and width that is a multiple of this."""

DARK = 0.3
"""Where the surroundings are darker than this, white matter at 1, eta looks for air."""


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
        pooled = self.norm(masked_statistics(features, coarse))
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

    Residual stages, each half as fine as the one before, pooled over the field of view and
    over what is dark in it: ghosts, motion and noise show in the air around the head. It is
    given the slice and what a 3 x 3 and a 9 x 9 mean leave of it, where noise, ghosts and
    blur show, and the logarithm of what it pools, for artifacts multiply.

    Parameters
    ----------
    dimension : int
        Length of eta.
    widths : tuple of int
        Channels of the residual stages.
    """

    def __init__(self, dimension: int = 2, widths: tuple[int, ...] = (16, 24, 32)):
        super().__init__()
        self.stem = MaskedConv(3, widths[0], norm=False, stride=2)
        self.stages = nn.ModuleList(MaskedConv(n, n, norm=False) for n in widths)
        self.down = nn.ModuleList(
            MaskedConv(i, o, norm=False, stride=2)
            for i, o in zip(widths[:-1], widths[1:], strict=True)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(4 * sum(widths)),
            nn.Linear(4 * sum(widths), 64),
            nn.LeakyReLU(0.1),
            nn.Linear(64, dimension),
        )

    def forward(self, images: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """Encode slices.

        Parameters
        ----------
        images, view : Tensor, shape (B, 1, H, W)
            Slice, and its field of view: air included where it was measured.

        Returns
        -------
        Tensor, shape (B, dimension)
        """
        return self.read(self.pool(images, view))

    def read(self, pooled: torch.Tensor) -> torch.Tensor:
        """Eta of what :meth:`pool` gave."""
        return self.head(pooled).abs()

    def pool(self, images: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """Statistics of every channel, shape (B, 4 sum(widths)), that the last layers read eta off."""
        images = images * view
        smooth = _local_mean(images, view, 9)
        fine = 10 * (images - _local_mean(images, view, 3)) * view
        coarse = 4 * (images - smooth) * view
        dark = torch.sigmoid((DARK - smooth) / (0.2 * DARK)) * view
        mask, dark = pool_mask(view), functional.avg_pool2d(dark, 2)
        features = self.stem(torch.cat([images, fine, coarse], dim=1), mask)
        pooled = []
        for stage, widen in zip(self.stages, [*self.down, None], strict=True):
            features = features + stage(features, mask)
            pooled += [masked_statistics(features, mask), _weighted(features, dark, mask)]
            if widen is not None:
                mask, dark = pool_mask(mask), functional.avg_pool2d(dark, 2)
                features = widen(features, mask)
        return torch.log(torch.cat(pooled, dim=1).abs() + 0.03)


def compress(images: torch.Tensor) -> torch.Tensor:
    """Intensities for a network: 0 and 1 stay, the brightest fluid comes to about 2."""
    return 3 * images / (2 + images.clamp_min(0))


def expand(compressed: torch.Tensor) -> torch.Tensor:
    """Intensities of :func:`compress`, not negative and at most 18.

    Examples
    --------
    >>> expand(compress(torch.tensor([0.0, 0.5, 1.0, 4.0]))).tolist()
    [0.0, 0.5, 1.0, 4.0]
    """
    compressed = compressed.clamp(0, 2.7)
    return 2 * compressed / (3 - compressed)


def _local_mean(images: torch.Tensor, mask: torch.Tensor, edge: int) -> torch.Tensor:
    """Mean of the foreground in a square around every pixel."""
    count = functional.avg_pool2d(mask, edge, 1, edge // 2).clamp_min(1e-3)
    return functional.avg_pool2d(images, edge, 1, edge // 2) / count


def _strided(convs, features, mask):
    for conv in convs:
        mask = pool_mask(mask)
        features = conv(features, mask)
    return features, mask


def _weighted(features: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As :func:`masked_statistics` with weights (B, 1, H, W); near zero where they sum to little."""
    total = weights.sum((2, 3)) + 1e-3 * mask.sum((2, 3)) + 1e-3
    mean = (features * weights).sum((2, 3)) / total
    centred = features - mean[..., None, None]
    spread = torch.sqrt((centred.square() * weights).sum((2, 3)) / total + 1e-6)
    return torch.cat([mean, spread], dim=1)
