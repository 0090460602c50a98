"""The module of sites of ImUnity (Cackowski 2023, section 2.2.2), and the scans that it learns from.

A site is told from what many scans have in common, and a step draws a few. So the module keeps
scans of past steps: some of them are encoded anew in every step, all of them standardise what the
module reads, and it learns from all of them.
"""

from collections.abc import Sequence

import torch
from torch import nn

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.imunity import CELL
from harmony_app.nets.masked import masked_statistics, pool_mask
from harmony_app.training.distributed import joint
from harmony_app.training.imunity_draws import NOBODY, Pair

FEW = 8
"""Scans of a contrast below which their spread is not known and the module reads nothing of it."""


class SiteModule(nn.Module):
    """Tells the site of a scan from statistics of the latent of its slices.

    It reads means and spreads over the foreground of the channels of the latent, spreads of
    mixtures of them (channels of a cell hold its pixels, so a mixture tells noise and
    sharpness), and spreads of the differences of neighbouring cells; each standardised over
    the scans of its contrast that are kept. The paper says of its module only that it is a
    classifier connected to what the encoders give; what it reads, and the store, are ours.

    Parameters
    ----------
    latent : int
        Channels of the latent.
    sites : int
        Sites to tell.
    size, slices : int
        Edge of the slices, and how many of a scan are read together.
    theta : int
        Length of the contrast representation where it is read too, else 0.
    kept : int
        Scans that are kept.
    width : int
        Channels of the hidden layer.
    """

    def __init__(
        self,
        latent: int,
        sites: int,
        size: int,
        slices: int = 1,
        theta: int = 0,
        kept: int = 256,
        width: int = 64,
    ):
        super().__init__()
        mixtures = torch.cat([_rotation(latent), _rotation(latent)])
        self.register_buffer('mixtures', mixtures)
        features = latent + 2 * (latent + len(mixtures)) + theta
        self.head = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, sites))
        shape = (kept, slices, 1, size, size)
        self.register_buffer('images', torch.zeros(shape, dtype=torch.float16))
        self.register_buffer('masks', torch.zeros(shape, dtype=torch.bool))
        self.register_buffer('contrasts', torch.zeros(kept, dtype=torch.int64))
        self.register_buffer('sites', torch.full((kept,), NOBODY))
        self.register_buffer('read', torch.zeros(kept, features))
        self.register_buffer('added', torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> int:
        """Scans that are kept by now."""
        return min(int(self.added), len(self.sites))

    def forward(self, read: torch.Tensor, contrasts: torch.Tensor) -> torch.Tensor:
        """Logits of the sites, shape (n, sites).

        Parameters
        ----------
        read : Tensor, shape (n, features)
            Of :meth:`statistics`.
        contrasts : Tensor, shape (n,), int64
            Of the scans. Where fewer than :data:`FEW` are kept of one, nothing is read of it.
        """
        standard = torch.zeros_like(read)
        kept, known = self.read[: self.filled], self.contrasts[: self.filled]
        for contrast in range(len(CONTRASTS)):
            of = known == contrast
            if int(of.sum()) < FEW:
                continue
            spread, mean = torch.std_mean(kept[of], dim=0)
            chosen = (contrasts == contrast)[:, None]
            standard = torch.where(chosen, (read - mean) / (spread + 1e-3), standard)
        return self.head(standard.clamp(-5, 5))

    def statistics(
        self, latent: torch.Tensor, mask: torch.Tensor, theta: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What is read of latents (B, C, H / 4, W / 4) in masks (B, 1, H, W), and of thetas.

        Returns
        -------
        Tensor, shape (n, features)
            Means over the slices of each scan, which are neighbours in the batch.
        """
        cells, slices = pool_mask(mask, CELL), self.images.shape[1]
        mixed = torch.einsum('mc,bchw->bmhw', self.mixtures.to(latent.dtype), latent)
        whole = torch.cat([latent, mixed], dim=1)
        channels = latent.shape[1]
        means, spreads = masked_statistics(whole, cells).chunk(2, dim=1)
        steps, both = whole[..., 1:] - whole[..., :-1], cells[..., 1:] * cells[..., :-1]
        rough = masked_statistics(steps * both, both).chunk(2, dim=1)[1]
        read = [means[:, :channels], spreads.clamp_min(1e-3).log(), rough.clamp_min(1e-3).log()]
        if theta is not None:
            read.append(theta)
        return torch.cat(read, dim=1).float().unflatten(0, (-1, slices)).mean(1)

    @torch.no_grad()
    def add(self, batch: Pair) -> torch.Tensor:
        """Keep the scans of a batch, and of those of other processes, whose site is named.

        Returns
        -------
        Tensor, shape (n,)
            Where they are kept, in the place of the oldest.
        """
        slices = self.images.shape[1]
        images, masks = (joint(v.unflatten(0, (-1, slices))) for v in (batch.source, batch.mask))
        contrasts, sites = (joint(v[::slices]) for v in (batch.contrast, batch.site))
        named = (sites != NOBODY).nonzero()[:, 0][: len(self.sites)]
        places = (int(self.added) + torch.arange(len(named), device=sites.device)) % len(self.sites)
        self.images[places] = images[named].half()
        self.masks[places] = masks[named] > 0
        self.contrasts[places], self.sites[places] = contrasts[named], sites[named]
        self.added += len(named)
        return places

    def choose(self, fresh: torch.Tensor, count: int, seeds: Sequence[int]) -> torch.Tensor:
        """Where ``count`` scans are kept: those just added, and others by chance."""
        generator = torch.Generator().manual_seed(sum(seeds) % 2**62)
        order = torch.randperm(self.filled, generator=generator).to(fresh.device)
        others = order[~torch.isin(order, fresh)]
        return torch.cat([fresh, others[: max(0, count - len(fresh))]])


def _rotation(edge: int) -> torch.Tensor:
    """Orthonormal directions by chance, shape (edge, edge)."""
    return torch.linalg.qr(torch.randn(edge, edge))[0]
