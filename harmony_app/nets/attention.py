"""Attention: how much of the anatomy of each source goes into the fused anatomy."""

import math

import torch
from torch import nn


class Attention(nn.Module):
    """Similarity of the target's theta and eta (query) to those of each source (keys).

    Parameters
    ----------
    dimension : int
        Length of theta and eta together.
    width, key : int
        Hidden width, and length of keys and queries.
    """

    def __init__(self, dimension: int = 4, width: int = 64, key: int = 16):
        super().__init__()
        self.query = _mlp(dimension, width, key)
        self.key = _mlp(dimension, width, key)
        self.scale = 1 / math.sqrt(key)

    def forward(
        self, target: torch.Tensor, sources: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """Weight of every source; exactly 0 for an absent one, 1 in sum.

        Parameters
        ----------
        target : Tensor, shape (B, dimension)
            Theta and eta of the target.
        sources : Tensor, shape (B, S, dimension)
            Theta and eta of the sources.
        present : Tensor, shape (B, S), bool
            At least one source of every row is present.

        Returns
        -------
        Tensor, shape (B, S)
        """
        scores = torch.einsum('bk,bsk->bs', self.query(target), self.key(sources)) * self.scale
        return torch.softmax(scores.masked_fill(~present, -math.inf), dim=1)


def fuse_anatomy(
    betas: torch.Tensor, weights: torch.Tensor, masks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted average of the anatomy of the sources that see a voxel.

    Parameters
    ----------
    betas : Tensor, shape (B, S, L, H, W)
        One-hot anatomy of each source.
    weights : Tensor, shape (B, S)
        Attention; 0 for absent sources.
    masks : Tensor, shape (B, S, 1, H, W)
        Foreground of each source.

    Returns
    -------
    fused : Tensor, shape (B, L, H, W)
        Sums to 1 over L inside the union of the foregrounds of present sources, 0 outside.
    union : Tensor, shape (B, 1, H, W)
        That union, 0 or 1.
    """
    local = weights[:, :, None, None, None] * masks
    total = local.sum(1)
    union = (total > 0).to(betas.dtype)
    share = local / torch.where(total > 0, total, 1.0)[:, None]
    return (share * betas).sum(1), union


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LeakyReLU(0.1),
        nn.Linear(width, outputs),
        nn.LayerNorm(outputs),
    )
