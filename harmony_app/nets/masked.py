"""Layers that see the foreground only.

A slice comes with a mask of what its scan shows. Statistics are taken inside the mask and
every feature map is multiplied by it, so that neither empty margins nor a crop of them
changes a single result: the outside is zero, as a padded convolution takes it to be.
"""

import torch
from torch import nn
from torch.nn import functional

SLOPE = 0.1
"""Slope of the leaky rectifiers for negative values."""


def pool_mask(mask: torch.Tensor, factor: int = 2) -> torch.Tensor:
    """Mask of a coarser level: a cell is seen where any of its pixels is.

    Parameters
    ----------
    mask : Tensor, shape (B, 1, H, W)
        0 or 1; H and W are multiples of ``factor``.
    """
    return functional.max_pool2d(mask, factor)


def masked_mean(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the foreground of every channel; 0 for an empty foreground.

    Parameters
    ----------
    features : Tensor, shape (B, C, H, W)
        Zero outside the mask.
    mask : Tensor, shape (B, 1, H, W)
        0 or 1.

    Returns
    -------
    Tensor, shape (B, C)
    """
    return features.sum((2, 3)) / mask.sum((2, 3)).clamp_min(1.0)


def masked_statistics(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over the foreground of every channel, shape (B, 2 C).

    Parameters
    ----------
    features, mask : Tensor
        As for :func:`masked_mean`.
    """
    mean = masked_mean(features, mask)
    centred = (features - mean[..., None, None]) * mask
    spread = torch.sqrt(masked_mean(centred.square(), mask) + 1e-6)
    return torch.cat([mean, spread], dim=1)


class ForegroundNorm(nn.Module):
    """Instance normalisation by foreground statistics.

    Parameters
    ----------
    channels : int
        Channels of its input.
    eps : float
        Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-4):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, H, W), zero outside the mask (B, 1, H, W), and keep it so."""
        count = mask.sum((2, 3), keepdim=True).clamp_min(1.0)
        mean = features.sum((2, 3), keepdim=True) / count
        centred = (features - mean) * mask
        variance = centred.square().sum((2, 3), keepdim=True) / count
        scale = self.weight[:, None, None] * torch.rsqrt(variance + self.eps)
        return centred * scale + self.bias[:, None, None] * mask


class MaskedConv(nn.Module):
    """Convolution, optional foreground normalisation, modulation and leaky rectifier.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    norm : bool
        Normalise by foreground statistics.
    stride : int
        The mask that is given belongs to the output.
    kernel : int
        Odd edge of the kernel.
    """

    def __init__(self, inputs: int, outputs: int, norm: bool, stride: int = 1, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=not norm
        )
        nn.init.kaiming_normal_(self.conv.weight, a=SLOPE, nonlinearity='leaky_relu')
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.norm = ForegroundNorm(outputs) if norm else None

    def forward(
        self,
        features: torch.Tensor,
        mask: torch.Tensor,
        modulation: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride), zero outside the mask.

        Parameters
        ----------
        features : Tensor
            Zero outside its own mask.
        mask : Tensor, shape (B, 1, H / stride, W / stride)
            Foreground of the output.
        modulation : tuple of two Tensor, shape (B, outputs), optional
            Scale (around 0, for unchanged) and shift of every channel.
        """
        features = self.conv(features)
        if self.norm is not None:
            features = self.norm(features * mask, mask)
        if modulation is not None:
            scale, shift = modulation
            features = features * (1 + scale[..., None, None]) + shift[..., None, None]
        return functional.leaky_relu(features, SLOPE) * mask
