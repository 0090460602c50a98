"""The networks of DLEST (Wu 2024, sections 3.2.2 to 3.2.5) and their named widths.

The paper codes a slice by one vector of 512 numbers, and says what that costs: anatomy gets lost
(section 5.6). Here a code is by default a map at a quarter of the resolution, which the paper
names as future work; ``latent: global`` is the paper's own.
"""

from dataclasses import asdict, dataclass, field

import torch
from torch import nn

from harmony_app.nets.contrast import ContrastNets
from harmony_app.nets.energy import ChainConfig, EnergyNet, langevin
from harmony_app.nets.latent import (
    GlobalDecoder,
    GlobalEncoder,
    GlobalMapping,
    LatentDiscriminator,
    SpatialDecoder,
    SpatialEncoder,
    SpatialMapping,
)
from harmony_app.nets.masked import masked_mean

LATENTS = ('spatial', 'global')
"""What a code is: a map, or one vector."""

SHARED = 'shared'
"""Key of the energy of no site, for all contrasts, that those of new sites begin as."""


@dataclass(frozen=True)
class DlestConfig:
    """Hyper-parameters that fix the shapes of all weights, and the chain.

    Parameters
    ----------
    variant : str
        Name of the widths.
    latent : str
        One of :data:`LATENTS`.
    channels : int
        Of a code.
    widths : tuple of int
        Of the autoencoder: the one width of a spatial code, that of every level of a global one.
    blocks : int
        Residual blocks of encoder and decoder, each, of a spatial code.
    canvas : tuple of int
        Height and width of the slices that are made from noise; a global code has room for
        squares of the first alone.
    noise, mapping_width, discriminator_width : int
        Of the networks F and D.
    energy_width, energy_kernel : int
        Of an energy network.
    pooled : bool
        Whether an energy sees the statistics of the slice.
    told : bool
        Whether it sees those of the site's slices too.
    chain : ChainConfig
        The Langevin dynamics.
    """

    variant: str
    latent: str = 'spatial'
    channels: int = 24
    widths: tuple[int, ...] = (48,)
    blocks: int = 2
    canvas: tuple[int, int] = (160, 192)
    noise: int = 64
    mapping_width: int = 48
    discriminator_width: int = 48
    energy_width: int = 48
    energy_kernel: int = 3
    pooled: bool = True
    told: bool = False
    chain: ChainConfig = field(default_factory=ChainConfig)

    def __post_init__(self):
        if self.latent not in LATENTS:
            raise ValueError(f'latent {self.latent!r} is none of {", ".join(LATENTS)}')

    @property
    def theta(self) -> int:
        """Numbers of :meth:`DlestNets.theta`."""
        return self.channels

    def to_dict(self) -> dict:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> 'DlestConfig':
        """Inverse of :meth:`to_dict`; TypeError where a field is unknown."""
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**fields | {'chain': ChainConfig(**fields['chain'])})


VARIANTS = {
    # 24 numbers for the 16 pixels of a cell, so that a code loses no detail
    'compact': DlestConfig('compact', told=True),
    # seven blocks of 64 to 256 filters, 512 numbers for 256 x 256 pixels, wide fully connected
    # networks (sections 3.2.2 to 3.2.5)
    'paper': DlestConfig(
        'paper',
        latent='global',
        channels=512,
        widths=(64, 64, 128, 128, 256, 256, 256),
        canvas=(256, 256),
        noise=512,
        mapping_width=512,
        discriminator_width=512,
        energy_width=2048,
        energy_kernel=1,
        pooled=False,
    ),
}
"""Widths by name."""


class DlestNets(ContrastNets):
    """Site-invariant generation (F, G, E and D) and an energy for each target style.

    Parameters
    ----------
    config : DlestConfig
        Widths.
    targets : iterable of str
        Keys of the energies: :func:`energy_key` of a site or style and its contrast.
    """

    def __init__(self, config: DlestConfig, targets: tuple[str, ...] = ()):
        super().__init__()
        self.config = config
        spatial = config.latent == 'spatial'
        if spatial:
            self.encoder = SpatialEncoder(config.channels, config.widths[0], config.blocks)
            self.decoder = SpatialDecoder(config.channels, config.widths[0], config.blocks)
            cells = tuple(n // 4 for n in config.canvas)
            self.mapping = SpatialMapping(
                config.noise, config.mapping_width, config.channels, cells
            )
        else:
            shape = (config.channels, config.widths, config.canvas[0])
            self.encoder, self.decoder = GlobalEncoder(*shape), GlobalDecoder(*shape)
            self.mapping = GlobalMapping(config.noise, config.mapping_width, config.channels)
        self.discriminator = LatentDiscriminator(
            config.channels, config.discriminator_width, spatial
        )
        self.energies = nn.ModuleDict()
        for key in targets:
            self.add_energy(key)

    def add_energy(self, key: str, like: str | None = None) -> EnergyNet:
        """A new energy: by chance, or beginning as another of the model."""
        config = self.config
        energy = EnergyNet(
            config.channels,
            config.energy_width,
            config.energy_kernel,
            config.pooled,
            config.told,
        )
        if like is not None:
            energy.load_state_dict(self.energies[like].state_dict())
        self.energies[key] = energy.to(next(self.parameters()).device)
        return self.energies[key]

    def beginning(self, contrast: str) -> str | None:
        """Key of the energy that one of a new site and this contrast begins as, if there is any."""
        if SHARED in self.energies:
            return SHARED
        return next((key for key in self.energies if key.startswith(f'{contrast}:')), None)

    def encode(self, images: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes of slices (B, 1, H, W) and the mask of their cells."""
        return self.encoder(images, mask)

    def decode(
        self,
        code: torch.Tensor,
        cells: torch.Tensor,
        mask: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Slices (B, 1, H, W) of codes, not negative, zero outside their mask.

        Parameters
        ----------
        noise : Tensor, optional
            Gaussian, of the shape that broadcasts to the decoder's first features: G is
            stochastic in training (equation 1), and always the same without.
        """
        return self.decoder(code, cells, mask, noise)

    def theta(self, images: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor]:
        """Mean of the code over the foreground, shape (B, channels): what tables show of a style."""
        return (masked_mean(*self.encode(images, mask)),)

    def translate(
        self,
        images: torch.Tensor,
        mask: torch.Tensor,
        key: str,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Slices brought to a target: encoded, led to lower energy, decoded.

        Parameters
        ----------
        images, mask : Tensor, shape (B, 1, H, W)
        key : str
            Of the energy.
        generator : torch.Generator, optional
            Of the chain's noise; without it the chain only descends.
        """
        code, cells = self.encode(images, mask)
        moved = langevin(self.energies[key], code, cells, self.config.chain, generator)
        return self.decode(moved, cells, mask)

    def synthesize(self, count: int, key: str, generator: torch.Generator) -> torch.Tensor:
        """New slices (B, 1, *canvas) of a target's style, of noise (section 3.2.4)."""
        code = self.mapping(self.mapping.draw(count, generator))
        cells = torch.ones_like(code[:, :1])
        moved = langevin(self.energies[key], code, cells, self.config.chain, generator)
        mask = torch.ones((count, 1, *self.config.canvas), device=code.device)
        return self.decode(moved, cells, mask)


def energy_key(name: str, contrast: str) -> str:
    """Key of the energy of a style or site for a contrast, as a module may be named.

    Examples
    --------
    >>> energy_key('Siemens Prisma 3.0T', 'T1w')
    'T1w:Siemens Prisma 3-0T'
    """
    return f'{contrast}:{name.replace(".", "-")}'
