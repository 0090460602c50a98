"""The U-Net of the anatomy encoder and of the decoder, on the foreground only."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.masked import MaskedConv, pool_mask


@dataclass(frozen=True)
class UNetConfig:
    """Widths and depth of a U-Net.

    Parameters
    ----------
    widths : tuple of int
        Channels of every level, finest first; one pooling between neighbours.
    convs : tuple of int
        Convolutions of every level on the way down; on the way up as many, without the
        coarsest.
    norm : bool
        Foreground normalisation after every convolution (but see ``norm_finest``).
    norm_finest : bool
        Whether the finest level is normalised too; its memory traffic costs the most.
    reduce_first : bool
        Bring coarse features to the width of the finer level by a pointwise convolution
        before they are upsampled, where it is four times cheaper than after.
    """

    widths: tuple[int, ...]
    convs: tuple[int, ...]
    norm: bool = True
    norm_finest: bool = True
    reduce_first: bool = True

    def __post_init__(self):
        if len(self.widths) != len(self.convs):
            raise ValueError('a U-Net has as many numbers of convolutions as it has widths')

    @property
    def multiple(self) -> int:
        """Height and width of a slice must be multiples of this."""
        return 2 ** (len(self.widths) - 1)

    def norm_at(self, level: int) -> bool:
        """Whether a level is normalised."""
        return self.norm and (level > 0 or self.norm_finest)


class MaskedUNet(nn.Module):
    """U-Net whose results do not depend on empty margins.

    Parameters
    ----------
    inputs, outputs : int
        Channels in and out; no activation at the end.
    config : UNetConfig
        Widths.
    condition : int
        Length of a vector that modulates every convolution (0 for none).
    """

    def __init__(self, inputs: int, outputs: int, config: UNetConfig, condition: int = 0):
        super().__init__()
        self.config = config
        widths, levels = config.widths, range(len(config.widths))
        self.down = nn.ModuleList(
            _block(
                inputs if not i else widths[i - 1], widths[i], config.convs[i], config.norm_at(i)
            )
            for i in levels
        )
        self.reduce = nn.ModuleList(
            nn.Conv2d(widths[i + 1], widths[i], 1)
            if config.reduce_first
            else MaskedConv(widths[i + 1], widths[i], config.norm_at(i))
            for i in levels[:-1]
        )
        self.up = nn.ModuleList(
            _block(2 * widths[i], widths[i], config.convs[i], config.norm_at(i))
            for i in levels[:-1]
        )
        self.head = nn.Conv2d(widths[0], outputs, 1)
        self.modulated = [
            conv for blocks in (self.down, self.up) for block in blocks for conv in block
        ]
        self.modulator = None
        if condition:
            channels = sum(conv.conv.out_channels for conv in self.modulated)
            self.modulator = nn.Sequential(
                nn.Linear(condition, 32),
                nn.SiLU(),
                nn.Linear(32, 32),
                nn.SiLU(),
                nn.Linear(32, 2 * channels),
            )
            # starts as an unconditional network, whatever the scale of the condition
            nn.init.zeros_(self.modulator[-1].bias)
            self.modulator[-1].weight.data.mul_(0.1)

    def forward(
        self, images: torch.Tensor, mask: torch.Tensor, condition: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), zero outside the mask.

        Parameters
        ----------
        images : Tensor
            Zero outside the mask; H and W are multiples of ``config.multiple``.
        mask : Tensor, shape (B, 1, H, W)
            Foreground, 0 or 1.
        condition : Tensor, shape (B, condition), optional
            As declared.
        """
        modulation = self._modulation(condition)
        masks, skips, features = [mask], [], images
        for level, block in enumerate(self.down):
            if level:
                skips.append(features)
                masks.append(pool_mask(masks[-1]))
                features = functional.max_pool2d(features, 2)
            features = _run(block, features, masks[level], modulation)
        for level in reversed(range(len(self.up))):
            reduce = self.reduce[level]
            if self.config.reduce_first:
                features = functional.interpolate(reduce(features), scale_factor=2, mode='nearest')
            else:
                features = functional.interpolate(features, scale_factor=2, mode='nearest')
                features = reduce(features * masks[level], masks[level])
            features = torch.cat([skips[level], features * masks[level]], dim=1)
            features = _run(self.up[level], features, masks[level], modulation)
        return self.head(features) * mask

    def _modulation(self, condition: torch.Tensor | None) -> dict:
        if self.modulator is None:
            return {}
        values = self.modulator(condition)
        sizes = [2 * conv.conv.out_channels for conv in self.modulated]
        parts = values.split(sizes, dim=1)
        return {
            conv: part.chunk(2, dim=1) for conv, part in zip(self.modulated, parts, strict=True)
        }


def _block(inputs: int, outputs: int, convs: int, norm: bool) -> nn.ModuleList:
    return nn.ModuleList(
        MaskedConv(inputs if not i else outputs, outputs, norm) for i in range(convs)
    )


def _run(block: nn.ModuleList, features, mask, modulation: dict) -> torch.Tensor:
    for conv in block:
        features = conv(features, mask, modulation.get(conv))
    return features
