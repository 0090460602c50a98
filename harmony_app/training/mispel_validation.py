"""How alike MISPEL makes matched slices that it has not seen, in numbers and in a picture."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.mispel import MispelNets
from harmony_app.training.matched_draws import MatchedBatch
from harmony_app.training.mispel_losses import (
    coupling_loss,
    harmonization_loss,
    reconstruction_loss,
)
from harmony_app.training.mispel_settings import Settings
from harmony_app.training.slice_scores import Tally, structural_similarity


def embed(nets: MispelNets, batch: MatchedBatch) -> torch.Tensor:
    """Embeddings (B, M, L, H, W) of matched slices, 0 where a person was not scanned.

    M are the scanners of the networks, as in the batch.
    """
    count, slots, height, width = batch.images.shape
    embeddings = batch.images.new_zeros(count, slots, nets.config.embeddings, height, width)
    for rows, slot, unit in _units_in(nets, batch):
        images, seen = (v[rows, slot][:, None] for v in (batch.images, batch.seen))
        embeddings[rows, slot] = unit.encode(images, seen).to(embeddings.dtype)
    return embeddings


def decode(nets: MispelNets, batch: MatchedBatch, embeddings: torch.Tensor) -> torch.Tensor:
    """Slices (B, M, H, W) of embeddings, each by the decoder of its own scanner."""
    outputs = torch.zeros_like(batch.images)
    for rows, slot, unit in _units_in(nets, batch):
        outputs[rows, slot] = unit.decode(embeddings[rows, slot])[:, 0].to(outputs.dtype)
    return outputs


def _units_in(nets: MispelNets, batch: MatchedBatch):
    """Examples (indices), slot and unit of all that the batch holds something of."""
    there = batch.seen.flatten(2).any(2)
    scanners = nets.config.scanners
    for (contrast, scanner), unit in zip(nets.config.units, nets.units, strict=True):
        slot = scanners.index(scanner)
        rows = torch.nonzero(there[:, slot] & (batch.contrast == CONTRASTS.index(contrast)))[:, 0]
        if len(rows):
            yield rows, slot, unit


@torch.no_grad()
def validate(
    nets: MispelNets, batches: Sequence[MatchedBatch], settings: Settings
) -> dict[str, float]:
    """Losses on held-out people, and the SSIM of every two scanners before and after.

    ``distance`` is the mean absolute difference of two scanners, ``distance_before`` that of
    their scans; ``score`` is minus the loss of step 2, so higher is better.
    """
    tally = Tally()
    for batch in batches:
        embeddings = embed(nets, batch)
        outputs = decode(nets, batch, embeddings)
        tally.add('coupling', coupling_loss(embeddings, batch.seen))
        tally.add('reconstruction', reconstruction_loss(outputs, batch.images, batch.seen))
        tally.add('distance', harmonization_loss(outputs, batch.seen))
        tally.add('distance_before', harmonization_loss(batch.images, batch.seen))
        scale = torch.ones(len(outputs), device=outputs.device)
        for i, k in combinations(range(outputs.shape[1]), 2):
            both = batch.seen[:, i : i + 1] * batch.seen[:, k : k + 1]
            rows = both.flatten(1).any(1)
            if not rows.any():
                continue
            for name, images in (('ssim', outputs.clamp_min(0)), ('ssim_before', batch.images)):
                pair = (images[rows, j : j + 1] * both[rows] for j in (i, k))
                found = structural_similarity(*pair, both[rows], scale[rows])
                tally.add(name, found.mean())
    metrics = tally.means()
    kept = settings.kept * metrics['reconstruction']
    return metrics | {'score': -(kept + settings.harmonization * metrics['distance'])}


@torch.no_grad()
def example_picture(nets: MispelNets, batch: MatchedBatch) -> np.ndarray:
    """Picture of a batch: for each example a row of its scans and one of what the units make of them.

    Returns
    -------
    ndarray, shape (2 B H, M W)
        1 is one and a half times the white matter.
    """
    outputs = decode(nets, batch, embed(nets, batch)).clamp_min(0)
    rows = [
        torch.cat(list(images), dim=1)
        for pair in zip(batch.images, outputs, strict=True)
        for images in pair
    ]
    return np.clip(torch.cat(rows).float().cpu().numpy() / 1.5, 0, 1)
