"""The networks of HACA3 (Zuo 2023) and their named widths."""

from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.anatomy import AnatomyNets
from harmony_app.nets.attention import Attention, fuse_anatomy
from harmony_app.nets.encoders import EtaEncoder, ThetaEncoder, compress
from harmony_app.nets.unet import MaskedUNet, UNetConfig


@dataclass(frozen=True)
class Haca3Config:
    """Hyper-parameters that fix the shapes of all weights.

    Parameters
    ----------
    variant : str
        Name of the widths.
    beta, decoder : UNetConfig
        Widths of the two U-Nets.
    levels : int
        Levels of the one-hot anatomy.
    theta, eta : int
        Length of the contrast and of the artifact representation.
    theta_widths, eta_widths : tuple of int
        Channels of these encoders.
    fusion_width : int
        Channels of the fusion network.
    """

    variant: str
    beta: UNetConfig
    decoder: UNetConfig
    levels: int = 5
    theta: int = 2
    eta: int = 2
    theta_widths: tuple[int, ...] = (16, 32, 32, 64)
    eta_widths: tuple[int, ...] = (16, 24, 32)
    fusion_width: int = 8

    def to_dict(self) -> dict:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> 'Haca3Config':
        """Inverse of :meth:`to_dict`; TypeError where a field is unknown."""
        fields = dict(fields)
        for name in ('beta', 'decoder'):
            unet = {k: tuple(v) if isinstance(v, list) else v for k, v in fields[name].items()}
            fields[name] = UNetConfig(**unet)
        for name in ('theta_widths', 'eta_widths'):
            fields[name] = tuple(fields[name])
        return cls(**fields)


VARIANTS = {
    # U-Nets of the published code: base 8 and 16, doubled within the first block
    'paper': Haca3Config(
        'paper',
        beta=UNetConfig((16, 32, 64, 128, 256), (2,) * 5, reduce_first=False),
        decoder=UNetConfig((32, 64, 128, 256, 512), (2,) * 5, reduce_first=False),
    ),
    'compact': Haca3Config(
        'compact',
        beta=UNetConfig((8, 16, 32, 48, 64), (1, 2, 2, 2, 2), norm_finest=False),
        decoder=UNetConfig((12, 24, 48, 64, 64), (1, 2, 2, 2, 2), norm=False),
    ),
}
"""Widths by name."""


class Haca3Nets(AnatomyNets):
    """Encoders, attention and decoder; the fusion network is trained after them.

    Parameters
    ----------
    config : Haca3Config
        Widths.
    """

    def __init__(self, config: Haca3Config):
        super().__init__()
        self.config = config
        self.beta = MaskedUNet(1, config.levels, config.beta)
        self.theta = ThetaEncoder(config.theta, config.theta_widths)
        self.eta = EtaEncoder(config.eta, config.eta_widths)
        self.attention = Attention(config.theta + config.eta)
        self.decoder = MaskedUNet(config.levels, 1, config.decoder, condition=config.theta)
        # what the decoder adds to: one intensity for each level of the anatomy
        self.lookup = nn.Sequential(
            nn.Linear(config.theta, 32), nn.SiLU(), nn.Linear(32, config.levels)
        )
        nn.init.constant_(self.lookup[-1].bias, 0.5)

    def logits(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of the levels of the anatomy, shape (B, L, H, W)."""
        return self.beta(compress(images) * mask, mask)

    def decode(
        self, anatomy: torch.Tensor, mask: torch.Tensor, theta: torch.Tensor
    ) -> torch.Tensor:
        """Slices of a contrast.

        Parameters
        ----------
        anatomy : Tensor, shape (B, L, H, W)
            Fused anatomy, 0 outside the mask.
        mask : Tensor, shape (B, 1, H, W)
            Union of the foregrounds.
        theta : Tensor, shape (B, theta)
            Contrast to make.

        Returns
        -------
        Tensor, shape (B, 1, H, W)
            Not negative, zero outside the mask.
        """
        plain = torch.einsum('blhw,bl->bhw', anatomy, self.lookup(theta))[:, None]
        return functional.softplus(plain + self.decoder(anatomy, mask, theta), beta=10) * mask

    def fuse(self, betas, weights, masks):
        """See :func:`harmony_app.nets.attention.fuse_anatomy`."""
        return fuse_anatomy(betas, weights, masks)
