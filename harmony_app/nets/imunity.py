"""The networks of ImUnity (Cackowski 2023, Figure 1, section 2.2) and their named widths.

The generator is a variational autoencoder of two slices. An anatomy encoder of convolutions alone
gives a map (the latent), a contrast encoder that ends in dense layers gives a vector (theta); both
joined are decoded by transposed convolutions. No skip connection goes around the latent. The
discriminator and the modules of sites and of biology serve training alone.
"""

from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.contrast import ContrastNets
from harmony_app.nets.encoders import ThetaEncoder, compress, expand
from harmony_app.nets.masked import SLOPE, MaskedConv, masked_statistics, pool_mask

CELL = 4
"""Edge in pixels of a cell of the latent: its height and width are those of the slice by this."""

NOISELESS = -8.0
"""Log variance of the latent at the start: noise would hide detail before any is learned."""


@dataclass(frozen=True)
class ImUnityConfig:
    """Hyper-parameters that fix the shapes of all weights; the paper gives none of them.

    Parameters
    ----------
    variant : str
        Name of the widths.
    latent : int
        Channels of the latent. A cell holds 16 pixels: with fewer channels than that detail
        cannot pass.
    theta : int
        Length of the contrast representation.
    anatomy_width, anatomy_blocks : int
        Channels and residual blocks of the anatomy encoder, at the resolution of the latent.
    decoder_width, decoder_blocks : int
        The same of the decoder.
    fine : tuple of two int
        Channels of the decoder at half and at full resolution.
    theta_widths : tuple of int
        Channels of the contrast encoder, each half as fine as the last.
    levels : int
        Soft levels of anatomy with one intensity each that the decoder adds to its image: ours;
        0 for none.
    modulated : bool
        Whether theta, which is joined to the latent as in the paper, also scales and shifts the
        channels of every layer of the decoder: ours.
    fusion_width : int
        Channels of a fusion network.
    """

    variant: str
    latent: int = 32
    theta: int = 8
    anatomy_width: int = 64
    anatomy_blocks: int = 2
    decoder_width: int = 64
    decoder_blocks: int = 3
    fine: tuple[int, int] = (32, 12)
    theta_widths: tuple[int, ...] = (16, 32, 32, 64)
    levels: int = 5
    modulated: bool = True
    fusion_width: int = 8

    def to_dict(self) -> dict:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> 'ImUnityConfig':
        """Inverse of :meth:`to_dict`; TypeError where a field is unknown."""
        fields = dict(fields)
        for name in ('fine', 'theta_widths'):
            fields[name] = tuple(fields[name])
        return cls(**fields)


VARIANTS = {
    # theta is joined to the latent and goes nowhere else
    'paper': ImUnityConfig(
        'paper',
        theta=16,
        anatomy_width=128,
        anatomy_blocks=4,
        decoder_width=128,
        decoder_blocks=4,
        fine=(64, 32),
        theta_widths=(32, 64, 128, 128),
        levels=0,
        modulated=False,
    ),
    'compact': ImUnityConfig('compact'),
}
"""Widths by name."""


class Residual(nn.Module):
    """Two convolutions whose result is added to what they were given.

    Parameters
    ----------
    width : int
        Channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = MaskedConv(width, width, norm=False)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.second.weight.data.mul_(0.3)  # a block begins as a small change

    def forward(
        self,
        features: torch.Tensor,
        mask: torch.Tensor,
        modulation: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Map (B, width, H, W) to the same shape, zero outside the mask (B, 1, H, W)."""
        return features + self.second(self.first(features, mask, modulation)) * mask


class AnatomyEncoder(nn.Module):
    """Latent of a slice: mean and log variance of a normal variable in every cell.

    Convolutions alone, so that place is kept. The pixels of a cell become its channels first:
    nothing is lost, and all width is spent where there are few places. The mean is a linear map
    of them, which begins with the pixels as they are, and what the residual blocks add to it: so
    training begins with images that are sharp. Nothing is normalised, for a crop and the slice
    that it is of are to have one latent.

    Parameters
    ----------
    latent, width, blocks : int
        As in :class:`ImUnityConfig`.
    """

    def __init__(self, latent: int, width: int, blocks: int):
        super().__init__()
        self.stem = MaskedConv(CELL * CELL, width, norm=False)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(blocks))
        self.linear = nn.Conv2d(CELL * CELL, latent, 1, bias=False)
        nn.init.eye_(self.linear.weight.data[:, :, 0, 0])
        self.head = nn.Conv2d(width, 2 * latent, 1)
        # channels that begin as pixels are changed little at first
        self.head.weight.data[: CELL * CELL].mul_(0.1)
        self.head.weight.data[latent:].mul_(0.1)
        nn.init.zeros_(self.head.bias)
        nn.init.constant_(self.head.bias[latent:], NOISELESS)

    def forward(
        self, images: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode slices (B, 1, H, W) inside their masks; H and W are multiples of 4.

        Returns
        -------
        mean, log_variance : Tensor, shape (B, latent, H / 4, W / 4)
            Zero outside the mask of the cells.
        """
        pixels = functional.pixel_unshuffle(compress(images) * mask, CELL)
        mask = pool_mask(mask, CELL)
        features = self.stem(pixels, mask)
        for block in self.blocks:
            features = block(features, mask)
        added, log_variance = (self.head(features) * mask).chunk(2, dim=1)
        return self.linear(pixels) + added, log_variance.clamp(-12, 4)


class Upsampling(nn.Module):
    """Transposed convolution to twice the resolution, and a convolution there.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        self.conv = MaskedConv(outputs, outputs, norm=False)

    def forward(
        self,
        features: torch.Tensor,
        mask: torch.Tensor,
        modulation: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2 H, 2 W), zero outside the mask of the result."""
        return self.conv(functional.leaky_relu(self.up(features), SLOPE) * mask, mask, modulation)


class Decoder(nn.Module):
    """Slices of a latent and a theta.

    Residual blocks, told by theta, and transposed convolutions give features at full resolution.
    What a slice shows is the sum of three: an intensity for each of a few soft levels, which a
    small network reads off theta; what one transposed convolution makes of the latent, which
    begins with the pixels that the linear map of the encoder began with; and a linear map of the
    features.

    Parameters
    ----------
    config : ImUnityConfig
    """

    def __init__(self, config: ImUnityConfig):
        super().__init__()
        width, (half, full) = config.decoder_width, config.fine
        self.stem = MaskedConv(config.latent + config.theta, width, norm=False)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(config.decoder_blocks))
        self.middle = Upsampling(width, half)
        self.last = Upsampling(half, full)
        self.head = nn.Conv2d(full, 1, 1)
        self.head.weight.data.mul_(0.1)
        nn.init.zeros_(self.head.bias)
        self.linear = nn.ConvTranspose2d(config.latent, 1, CELL, stride=CELL, bias=False)
        nn.init.eye_(self.linear.weight.data.view(config.latent, CELL * CELL))
        self.levels, self.lookup = None, None
        if config.levels:
            self.linear.weight.data.mul_(0.5)  # the levels give the other half
            self.levels = nn.Conv2d(full, config.levels, 1)
            self.lookup = nn.Sequential(
                nn.Linear(config.theta, 32), nn.SiLU(), nn.Linear(32, config.levels)
            )
            nn.init.constant_(self.lookup[-1].bias, 0.25)
        self.channels = [*[width] * (1 + config.decoder_blocks), half, full]
        self.modulator = None
        if config.modulated:
            self.modulator = nn.Sequential(
                nn.Linear(config.theta, 48), nn.SiLU(), nn.Linear(48, 2 * sum(self.channels))
            )
            # starts as a decoder to which theta is joined and no more
            nn.init.zeros_(self.modulator[-1].bias)
            self.modulator[-1].weight.data.mul_(0.1)

    def forward(
        self, latent: torch.Tensor, mask: torch.Tensor, theta: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Decode.

        Parameters
        ----------
        latent : Tensor, shape (B, latent, H / 4, W / 4)
        mask : Tensor, shape (B, 1, H, W)
            Foreground of the slice.
        theta : Tensor, shape (B, theta)

        Returns
        -------
        image : Tensor, shape (B, 1, H, W)
            Not negative, zero outside the mask.
        logits : Tensor, shape (B, levels, H, W), or None
            Of the soft levels; None for a decoder without them.
        """
        half, cells = pool_mask(mask), pool_mask(mask, CELL)
        stem, *blocks, middle, last = self._modulations(theta)
        latent = latent * cells
        spread = theta[:, :, None, None].to(latent.dtype) * cells
        features = self.stem(torch.cat([latent, spread], dim=1), cells, stem)
        for block, modulation in zip(self.blocks, blocks, strict=True):
            features = block(features, cells, modulation)
        features = self.last(self.middle(features, half, middle), mask, last)
        image, logits = self.linear(latent) + self.head(features), None
        if self.levels is not None:
            logits = self.levels(features)
            shown = torch.softmax(logits, dim=1)
            image = image + torch.einsum('blhw,bl->bhw', shown, self.lookup(theta))[:, None]
        return expand(functional.softplus(image, beta=20)) * mask, logits

    def _modulations(self, theta: torch.Tensor) -> list:
        """Scale and shift of the channels of every layer; None without a modulator."""
        if self.modulator is None:
            return [None] * len(self.channels)
        parts = self.modulator(theta).split([2 * n for n in self.channels], dim=1)
        return [part.chunk(2, dim=1) for part in parts]


class ImUnityNets(ContrastNets):
    """The generator: encoders of anatomy and contrast, and the decoder.

    Parameters
    ----------
    config : ImUnityConfig
        Widths.
    """

    def __init__(self, config: ImUnityConfig):
        super().__init__()
        self.config = config
        self.anatomy = AnatomyEncoder(config.latent, config.anatomy_width, config.anatomy_blocks)
        self.theta = ThetaEncoder(config.theta, config.theta_widths)
        self.decoder = Decoder(config)

    def decode(self, latent: torch.Tensor, mask: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """Image of :class:`Decoder`."""
        return self.decoder(latent, mask, theta)[0]

    def translate(
        self, images: torch.Tensor, mask: torch.Tensor, theta: torch.Tensor
    ) -> torch.Tensor:
        """Slices (B, 1, H, W) brought to the contrasts theta (B, theta), without any noise."""
        return self.decode(self.anatomy(images, mask)[0], mask, theta)


class LatentModule(nn.Module):
    """Reads labels off a latent: the module of biology (Figure 1).

    A strided convolution, means and standard deviations over the foreground, and dense layers.

    Parameters
    ----------
    inputs : int
        Channels of the latent.
    outputs : int
        One number for each biological feature.
    width : int
        Channels of its hidden layers.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 32):
        super().__init__()
        self.conv = MaskedConv(inputs, width, norm=False, stride=2)
        self.head = nn.Sequential(
            nn.Linear(2 * (inputs + width), width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, outputs),
        )

    def forward(self, latent: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Read (B, outputs) off latents (B, inputs, H / 4, W / 4) in masks (B, 1, H, W)."""
        cells = pool_mask(mask, CELL)
        coarse = pool_mask(cells)
        read = [
            masked_statistics(latent, cells),
            masked_statistics(self.conv(latent, coarse), coarse),
        ]
        return self.head(torch.cat(read, dim=1))
