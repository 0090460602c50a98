"""The networks of MISPEL (Torbati 2023, section 2.3 and Figure 2) and their named widths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from harmony_app.nets.unet import MaskedUNet, UNetConfig

VARIANTS = {
    # two poolings and these widths are those of the authors' first paper (Torbati 2021b)
    'paper': UNetConfig((32, 64, 128), (2, 2, 2), norm=False, reduce_first=False),
    'compact': UNetConfig((8, 16, 32), (2, 2, 2), norm=False),
}
"""U-Nets of the encoders by name. Nothing is normalised: scans come with their white matter at 1,
and the levels of their tissues, which normalisation would remove, are what the units differ in."""


@dataclass(frozen=True)
class MispelConfig:
    """Hyper-parameters that fix the shapes of all weights.

    Parameters
    ----------
    variant : str
        Name of the widths.
    encoder : UNetConfig
        Widths of the U-Net of every unit.
    units : tuple of (str, str)
        Contrast and scanner of each unit; a scanner is named by the site label of its scans.
    embeddings : int
        Latent embeddings (L of the paper).
    """

    variant: str
    encoder: UNetConfig
    units: tuple[tuple[str, str], ...]
    embeddings: int = 6

    def __post_init__(self):
        if not self.units or len(set(self.units)) != len(self.units):
            raise ValueError('a model has units, and one for each contrast of a scanner')

    @classmethod
    def of(cls, variant: str, units: Sequence[tuple[str, str]]) -> 'MispelConfig':
        """Config of named widths; KeyError for an unknown name."""
        return cls(variant, VARIANTS[variant], tuple(units))

    @property
    def scanners(self) -> tuple[str, ...]:
        """Scanners that have a unit of some contrast, by name."""
        return tuple(sorted({scanner for _, scanner in self.units}))

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Contrasts of the units, in their order."""
        return tuple(dict.fromkeys(contrast for contrast, _ in self.units))

    def to_dict(self) -> dict:
        """Plain types for JSON."""
        return {
            'variant': self.variant,
            'encoder': dict(vars(self.encoder)),
            'units': [{'contrast': c, 'scanner': s} for c, s in self.units],
            'embeddings': self.embeddings,
        }

    @classmethod
    def from_dict(cls, fields: Mapping) -> 'MispelConfig':
        """Inverse of :meth:`to_dict`; KeyError or TypeError where a field is absent or unknown."""
        fields = dict(fields)
        unet = {k: tuple(v) if isinstance(v, list) else v for k, v in fields['encoder'].items()}
        units = tuple((unit['contrast'], unit['scanner']) for unit in fields['units'])
        return cls(**fields | {'encoder': UNetConfig(**unet), 'units': units})


class Unit(nn.Module):
    """Encoder and decoder of one scanner (Enc and Dec of section 2.3.1).

    The decoder is a linear function of the embeddings, pixel by pixel and without an offset: it
    cannot move an edge.

    Parameters
    ----------
    encoder : UNetConfig
    embeddings : int
    """

    def __init__(self, encoder: UNetConfig, embeddings: int):
        super().__init__()
        self.encoder = MaskedUNet(1, embeddings, encoder)
        self.decoder = nn.Conv2d(embeddings, 1, 1, bias=False)

    def encode(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, L, H, W) of slices (B, 1, H, W), both zero outside the mask."""
        return self.encoder(images * mask, mask)

    def decode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Slices (B, 1, H, W) of embeddings; may be below 0, where training needs a gradient."""
        return self.decoder(embeddings)

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Slices in the contrast of the unit's decoder, at least 0."""
        return self.decode(self.encode(images, mask)).clamp_min(0)


class MispelNets(nn.Module):
    """The units of all scanners.

    They start from the same weights: their embeddings are alike before anything is learned.

    Parameters
    ----------
    config : MispelConfig
    """

    def __init__(self, config: MispelConfig):
        super().__init__()
        self.config = config
        self.units = nn.ModuleList(Unit(config.encoder, config.embeddings) for _ in config.units)
        for unit in self.units[1:]:
            unit.load_state_dict(self.units[0].state_dict())

    def unit(self, contrast: str, scanner: str) -> Unit:
        """The unit of a contrast and a scanner; KeyError where there is none."""
        try:
            return self.units[self.config.units.index((contrast, scanner))]
        except ValueError:
            raise KeyError((contrast, scanner)) from None

    def with_unit(self, contrast: str, scanner: str, like: str) -> 'MispelNets':
        """These networks and one unit more, which starts as that of a known scanner.

        Parameters
        ----------
        contrast, scanner : str
            Of the new unit, which comes last.
        like : str
            The known scanner.
        """
        start = self.unit(contrast, like)
        units = (*self.config.units, (contrast, scanner))
        grown = MispelNets(MispelConfig(self.config.variant, self.config.encoder, units,
                                        self.config.embeddings))  # fmt: skip
        for new, old in zip(grown.units, (*self.units, start), strict=True):
            new.load_state_dict(old.state_dict())
        return grown
