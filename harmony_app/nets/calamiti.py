"""The networks of CALAMITI (Zuo 2021, section 2.1 and Figure 4) and their named widths."""

from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.anatomy import AnatomyNets
from harmony_app.nets.discriminator import Discriminator
from harmony_app.nets.encoders import ThetaEncoder, compress
from harmony_app.nets.masked import MaskedConv
from harmony_app.nets.unet import MaskedUNet, UNetConfig


@dataclass(frozen=True)
class CalamitiConfig:
    """Hyper-parameters that fix the shapes of all weights.

    Parameters
    ----------
    variant : str
        Name of the widths.
    beta, decoder : UNetConfig
        Widths of the U-Nets of the anatomy encoder and of the decoder.
    levels : int
        Channels of the one-hot anatomy.
    theta : int
        Length of the contrast representation.
    theta_widths, discriminator_widths : tuple of int
        Channels of the contrast encoder and of the discriminator, each half as fine as the last.
    lookup : bool
        Whether the decoder adds to one intensity for each level of the anatomy.
    fusion_width : int
        Channels of the fusion networks.
    """

    variant: str
    beta: UNetConfig
    decoder: UNetConfig
    levels: int = 4
    theta: int = 2
    theta_widths: tuple[int, ...] = (16, 32, 32, 64)
    discriminator_widths: tuple[int, ...] = (16, 32, 32)
    lookup: bool = True
    fusion_width: int = 8

    def to_dict(self) -> dict:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> 'CalamitiConfig':
        """Inverse of :meth:`to_dict`; TypeError where a field is unknown."""
        fields = dict(fields)
        for name in ('beta', 'decoder'):
            unet = {k: tuple(v) if isinstance(v, list) else v for k, v in fields[name].items()}
            fields[name] = UNetConfig(**unet)
        for name in ('theta_widths', 'discriminator_widths'):
            fields[name] = tuple(fields[name])
        return cls(**fields)


VARIANTS = {
    # four levels; twice the channels in the decoder; where all of it is normalised, a theta that
    # is the same everywhere would not survive its first layer, so the finest level is not
    'paper': CalamitiConfig(
        'paper',
        beta=UNetConfig((16, 32, 64, 128), (2,) * 4, reduce_first=False),
        decoder=UNetConfig((32, 64, 128, 256), (2,) * 4, norm_finest=False, reduce_first=False),
        theta_widths=(32, 64, 128, 128),
        discriminator_widths=(16, 64, 64),
        lookup=False,
    ),
    # one more level of anatomy: heads come with skull and scalp, which four levels do not tell
    'compact': CalamitiConfig(
        'compact',
        beta=UNetConfig((8, 16, 32, 48, 64), (1, 2, 2, 2, 2), norm_finest=False),
        decoder=UNetConfig((12, 24, 48, 64, 64), (1, 2, 2, 2, 2), norm=False),
        levels=5,
    ),
}
"""Widths by name."""


class OutputBlock(nn.Module):
    """Last layers of the anatomy encoder: what is fitted to a new site.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = MaskedConv(inputs, inputs, norm=False)
        self.head = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), zero outside the mask."""
        return self.head(self.conv(features, mask)) * mask


class CalamitiNets(AnatomyNets):
    """Encoders of anatomy (beta) and contrast (theta), decoder, and discriminator of beta.

    The discriminator tells whether an anatomy comes from Site A. It serves training and the
    adaptation to a new site; at use it is idle.

    Parameters
    ----------
    config : CalamitiConfig
        Widths.
    """

    def __init__(self, config: CalamitiConfig):
        super().__init__()
        self.config = config
        width = config.beta.widths[0]
        self.beta = MaskedUNet(1, width, config.beta)
        self.beta_output = OutputBlock(width, config.levels)
        self.theta = ThetaEncoder(config.theta, config.theta_widths)
        self.decoder = MaskedUNet(config.levels + config.theta, 1, config.decoder)
        self.discriminator = Discriminator(config.levels, config.discriminator_widths)
        self.lookup = None
        if config.lookup:
            self.lookup = nn.Sequential(
                nn.Linear(config.theta, 32), nn.SiLU(), nn.Linear(32, config.levels)
            )
            nn.init.constant_(self.lookup[-1].bias, 0.5)

    def logits(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of the levels of the anatomy, shape (B, L, H, W)."""
        return self.beta_output(self.beta(compress(images) * mask, mask), mask)

    def decode(
        self, anatomy: torch.Tensor, mask: torch.Tensor, theta: torch.Tensor
    ) -> torch.Tensor:
        """Slices of a contrast: theta goes beside the anatomy, the same everywhere.

        Parameters
        ----------
        anatomy : Tensor, shape (B, L, H, W)
            Zero outside the mask.
        mask : Tensor, shape (B, 1, H, W)
            Foreground.
        theta : Tensor, shape (B, theta)
            Contrast to make.

        Returns
        -------
        Tensor, shape (B, 1, H, W)
            Not negative, zero outside the mask.
        """
        spread = theta[:, :, None, None].to(anatomy.dtype) * mask
        image = self.decoder(torch.cat([anatomy, spread], dim=1), mask)
        if self.lookup is not None:
            image = image + torch.einsum('blhw,bl->bhw', anatomy, self.lookup(theta))[:, None]
        return functional.softplus(image, beta=10) * mask
