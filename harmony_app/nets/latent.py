"""Encoders and decoders between a slice and its latent code: a map, or one vector of all of it."""

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.encoders import compress
from harmony_app.nets.masked import MaskedConv, pool_mask

CELL = 4
"""Edge in pixels of the cells that a spatial code has one vector for."""


class ResidualBlock(nn.Module):
    """Two convolutions, their result added to what came in; hardly anything at the start.

    Parameters
    ----------
    width : int
        Channels in and out.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = MaskedConv(width, width, norm=False)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.normal_(self.second.weight, std=1e-3)
        nn.init.zeros_(self.second.bias)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, width, h, w), zero outside the mask (B, 1, h, w), to the same."""
        return features + self.second(self.first(features, mask)) * mask


class SpatialEncoder(nn.Module):
    """A code with a place for every cell of 4 by 4 pixels, so that a person's anatomy stays.

    Pixels of a cell become channels at once, and all convolutions work at a quarter of the
    resolution: those at the full one would cost the most. Nothing is normalised, for the level
    of the tissues is what a site's style is.

    Parameters
    ----------
    channels : int
        Of the code.
    width, blocks : int
        Channels and residual blocks between.
    """

    def __init__(self, channels: int, width: int, blocks: int):
        super().__init__()
        self.stem = MaskedConv(2 * CELL**2, width, norm=False)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.head = nn.Conv2d(width, channels, 1)

    def forward(
        self, images: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Code (B, channels, H / 4, W / 4) of slices (B, 1, H, W), and its mask."""
        cells = pool_mask(mask, CELL)
        pixels = torch.cat([compress(images) * mask, mask], dim=1)
        features = self.stem(functional.pixel_unshuffle(pixels, CELL), cells)
        for block in self.blocks:
            features = block(features, cells)
        return self.head(features) * cells, cells


class SpatialDecoder(nn.Module):
    """Slices of a spatial code, with no way past the code.

    Parameters
    ----------
    channels, width, blocks : int
        As for :class:`SpatialEncoder`.
    finest : int
        Channels at full resolution.
    """

    def __init__(self, channels: int, width: int, blocks: int, finest: int = 8):
        super().__init__()
        self.stem = MaskedConv(channels, width, norm=False)
        # strength of the noise eta of equation 1; the paper's G is stochastic
        self.strength = nn.Parameter(torch.full((width,), 0.01))
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.spread = nn.Conv2d(width, finest * CELL**2, 1)
        self.head = nn.Conv2d(finest, 1, 3, padding=1)
        nn.init.constant_(self.head.bias, 0.3)

    def forward(
        self,
        code: torch.Tensor,
        cells: torch.Tensor,
        mask: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Slices (B, 1, H, W), zero outside their mask, of codes (B, channels, H / 4, W / 4)."""
        features = self.stem(code, cells)
        if noise is not None:
            features = features + self.strength[:, None, None] * noise * cells
        for block in self.blocks:
            features = block(features, cells)
        pixels = functional.pixel_shuffle(self.spread(features), CELL) * mask
        image = self.head(functional.leaky_relu(pixels, 0.1))
        return functional.softplus(image, beta=10) * mask


class GlobalEncoder(nn.Module):
    """One vector of a whole slice: the latent autoencoder of the paper.

    The slice is laid into the middle of a square canvas first. A vector of all of it keeps what
    people have in common and loses what is one person's (section 5.6).

    Parameters
    ----------
    channels : int
        Length of the vector.
    widths : tuple of int
        Channels of the blocks, each half as fine as the last.
    canvas : int
        Edge of the square.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], canvas: int):
        super().__init__()
        self.canvas = canvas
        self.convs = nn.ModuleList(
            MaskedConv(i, o, norm=False, stride=2)
            for i, o in zip((1, *widths[:-1]), widths, strict=True)
        )
        self.head = nn.Linear(widths[-1] * (canvas >> len(widths)) ** 2, channels)

    def forward(
        self, images: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Code (B, channels, 1, 1) of slices (B, 1, H, W), and a mask of ones for it."""
        features, mask = (centred(x, self.canvas) for x in (compress(images) * mask, mask))
        for conv in self.convs:
            mask = pool_mask(mask)
            features = conv(features, mask)
        code = self.head(features.flatten(1))[..., None, None]
        return code, torch.ones_like(code[:, :1])


class GlobalDecoder(nn.Module):
    """Slices of one vector each; parameters as of :class:`GlobalEncoder`."""

    def __init__(self, channels: int, widths: tuple[int, ...], canvas: int):
        super().__init__()
        self.canvas, self.coarse = canvas, canvas >> len(widths)
        self.spread = nn.Linear(channels, widths[-1] * self.coarse**2)
        self.strength = nn.Parameter(torch.full((widths[-1],), 0.01))
        outputs = (*widths[-2::-1], widths[0])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o in zip(widths[::-1], outputs, strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)
        nn.init.constant_(self.head.bias, 0.3)

    def forward(
        self,
        code: torch.Tensor,
        cells: torch.Tensor,
        mask: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Slices (B, 1, H, W), zero outside their mask, of codes (B, channels, 1, 1)."""
        features = self.spread(code.flatten(1)).unflatten(1, (-1, self.coarse, self.coarse))
        if noise is not None:
            features = features + self.strength[:, None, None] * noise
        for conv in self.convs:
            features = functional.interpolate(features, scale_factor=2, mode='nearest')
            features = functional.leaky_relu(conv(features), 0.1)
        height, width = mask.shape[2:]
        top, left = (self.canvas - height) // 2, (self.canvas - width) // 2
        image = self.head(features)[:, :, top : top + height, left : left + width]
        return functional.softplus(image, beta=10) * mask


def centred(images: torch.Tensor, edge: int) -> torch.Tensor:
    """Images (B, C, H, W) in the middle of squares of zeros.

    Raises
    ------
    ValueError
        Where they are larger than the squares.

    Examples
    --------
    >>> centred(torch.ones(1, 1, 1, 2), 4)[0, 0].sum(0).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    height, width = images.shape[2:]
    if max(height, width) > edge:
        raise ValueError(f'a slice of {height} x {width} pixels does not fit a canvas of {edge}')
    top, left = (edge - height) // 2, (edge - width) // 2
    return functional.pad(images, (left, edge - width - left, top, edge - height - top))


class SpatialMapping(nn.Module):
    """F for a spatial code: noise to the code of a whole slice.

    A vector of noise goes through eight fully connected layers, as in the paper, and then tells a
    learned coarse map what to become; finer noise gives detail at every level.

    Parameters
    ----------
    noise, width : int
        Length of the vector and of the layers.
    channels : int
        Of the code.
    shape : tuple of int
        Height and width of the code, multiples of 8.
    layers : int
        Fully connected ones.
    """

    def __init__(
        self, noise: int, width: int, channels: int, shape: tuple[int, int], layers: int = 8
    ):
        super().__init__()
        self.noise, self.shape = noise, tuple(shape)
        self.layers = _perceptron(noise, width, layers)
        self.coarse = nn.Parameter(torch.randn(width, shape[0] // 8, shape[1] // 8))
        self.convs = nn.ModuleList(MaskedConv(width, width, norm=True, kernel=3) for _ in range(4))
        self.strength = nn.Parameter(torch.full((4, width), 0.05))
        self.modulations = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(4))
        self.head = nn.Conv2d(width, channels, 1)

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Gaussian noise for some codes: vectors (B, noise) and maps (B, 4, h, w)."""
        device = self.coarse.device
        vectors = torch.randn((count, self.noise), generator=generator, device=device)
        maps = torch.randn((count, 4, *self.shape), generator=generator, device=device)
        return vectors, maps

    def forward(self, noise: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Codes (B, channels, h, w) of what :meth:`draw` gives."""
        vectors, maps = noise
        style = self.layers(_unit(vectors))
        features = self.coarse.expand(len(vectors), -1, -1, -1)
        for level, (conv, modulation) in enumerate(zip(self.convs, self.modulations, strict=True)):
            if level:
                features = functional.interpolate(features, scale_factor=2, mode='nearest')
            height, width = features.shape[2:]
            detail = maps[:, level : level + 1, :height, :width]
            features = features + self.strength[level][:, None, None] * detail
            ones = torch.ones_like(features[:, :1])
            features = conv(features, ones, modulation(style).chunk(2, dim=1))
        return self.head(features)


class GlobalMapping(nn.Module):
    """F of the paper: eight fully connected layers; parameters as of :class:`SpatialMapping`."""

    def __init__(self, noise: int, width: int, channels: int, layers: int = 8):
        super().__init__()
        self.noise = noise
        self.layers = _perceptron(noise, width, layers)
        self.head = nn.Linear(width, channels)

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor]:
        """Gaussian noise for some codes."""
        device = self.head.weight.device
        return (torch.randn((count, self.noise), generator=generator, device=device),)

    def forward(self, noise: tuple[torch.Tensor]) -> torch.Tensor:
        """Codes (B, channels, 1, 1) of what :meth:`draw` gives."""
        return self.head(self.layers(_unit(noise[0])))[..., None, None]


class LatentDiscriminator(nn.Module):
    """D: tells codes of real slices from those of synthetic ones; three layers, as in the paper.

    Parameters
    ----------
    channels, width : int
    spatial : bool
        Strided convolutions for maps; fully connected for vectors.
    """

    def __init__(self, channels: int, width: int, spatial: bool):
        super().__init__()
        self.spatial = spatial
        shape = {'stride': 2, 'kernel': 3} if spatial else {'stride': 1, 'kernel': 1}
        self.convs = nn.ModuleList(
            MaskedConv(i, width, norm=False, **shape) for i in (channels, width, width)
        )
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, code: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Logits (B,) of codes (B, channels, h, w) under masks (B, 1, h, w), above 0 for real."""
        for conv in self.convs:
            if self.spatial:
                cells = pool_mask(cells)
            code = conv(code, cells)
        return (self.head(code) * cells).sum((1, 2, 3)) / cells.sum((1, 2, 3)).clamp_min(1)


def _perceptron(inputs: int, width: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for layer in range(layers):
        linear = nn.Linear(width if layer else inputs, width)
        nn.init.kaiming_normal_(linear.weight, a=0.2)
        nn.init.zeros_(linear.bias)
        parts += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*parts)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of unit mean square: their direction alone counts."""
    return vectors * torch.rsqrt(vectors.square().mean(1, keepdim=True) + 1e-8)
