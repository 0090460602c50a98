"""How good the decoder of HACA3 is on held-out slices, in numbers and in a picture."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.haca3 import Haca3Nets
from harmony_app.training.script import run_script
from harmony_app.training.slice_batch import Batch
from harmony_app.training.slice_scores import Tally, slice_scores
from harmony_app.training.slice_validation import anatomy_picture, validate_model
from harmony_app.training.slices import SliceSampler
from harmony_app.training.spoiled import corrupt, draw_kind


@torch.no_grad()
def reconstruct(nets: Haca3Nets, batch: Batch) -> tuple[torch.Tensor, ...]:
    """Decode a batch as in use: arg max anatomy, mean theta, every source that there is.

    Returns
    -------
    result, union : Tensor, shape (B, 1, H, W)
    weights : Tensor, shape (B, 2)
        Attention.
    eta : Tensor, shape (B, 2, D)
        Of the sources.
    """
    images = batch.sources.flatten(0, 1)[:, None]
    masks = batch.source_masks.flatten(0, 1)[:, None]
    levels = nets.anatomy(images, masks).unflatten(0, (len(batch.sources), 2))
    weights, theta, eta = attend(nets, batch)
    fused, union = nets.fuse(levels, weights, batch.source_masks[:, :, None])
    return nets.decode(fused, union, theta), union, weights, eta


@torch.no_grad()
def attend(nets: Haca3Nets, batch: Batch) -> tuple[torch.Tensor, ...]:
    """Weights (B, 2) of the sources, theta (B, D) of the style, eta (B, 2, D) of the sources."""
    count = len(batch.sources)
    images = batch.sources.flatten(0, 1)[:, None]
    masks = batch.source_masks.flatten(0, 1)[:, None]
    eta = nets.eta(images, batch.views[:, :2].flatten(0, 1)[:, None])
    sources = torch.cat([nets.theta(images, masks)[0], eta], dim=1)
    theta = nets.theta(batch.style, batch.style_mask)[0]
    target = torch.cat([theta, nets.eta(batch.style, batch.views[:, 2:])], dim=1)
    weights = nets.attention(target, sources.unflatten(0, (count, 2)), batch.present)
    return weights, theta, eta.unflatten(0, (count, 2))


def validate(nets: Haca3Nets, batches: Sequence[Batch]) -> dict[str, float]:
    """L1, SSIM and PSNR against the truth in the foreground.

    ``other`` is what the contrast costs that was not among the sources, ``order`` the share of
    artifacts whose eta is larger than the milder one's, ``eta_spearman`` the rank correlation
    of the length of eta with the severity over all of them, and ``attention_away`` the mean
    weight of a source that has a bad artifact beside one that has none: 0.5 would be chance.

    Parameters
    ----------
    nets : Haca3Nets
    batches : sequence of Batch
        Of held-out heads.
    """
    tally = Tally()
    ordered: list[float] = []
    lengths: list[float] = []
    severities: list[float] = []
    away: list[float] = []

    for batch in batches:
        result, union, weights, _ = reconstruct(nets, batch)
        for scores, (first, second, wanted), weight in zip(
            slice_scores(result, batch.target, union),
            batch.contrasts.tolist(),
            weights,
            strict=True,
        ):
            if not scores:
                continue  # a crop beside the brain of a stripped volume: nothing to judge
            seen = wanted in (first, second)
            tally.add_scores(scores, CONTRASTS[wanted], seen)
            if seen:
                tally.add('attention_same', weight[(first, second).index(wanted)])
        with torch.no_grad():
            levels = [
                nets.eta(image, batch.views[:, 2:]).norm(dim=1)
                for image in (batch.clean, batch.mild, batch.severe)
            ]
        ordered += ((levels[2] > levels[1]) & (levels[1] > levels[0])).float().tolist()
        lengths += torch.cat(levels[1:]).tolist()
        severities += batch.severity.T.flatten().tolist()
        away += weight_of_spoiled(nets, batch)
    metrics = tally.means()
    metrics |= {'order': float(np.mean(ordered)), 'eta_spearman': rank(severities, lengths)}
    return metrics | ({'attention_away': float(np.mean(away))} if away else {})


def rank(severities: Sequence[float], lengths: Sequence[float]) -> float:
    """Rank correlation (Spearman) of lengths of eta with severities; 0 where all are alike.

    Examples
    --------
    >>> rank([0.1, 0.4, 0.9], [0.2, 0.3, 0.8])
    1.0
    """
    from scipy.stats import spearmanr

    if np.ptp(lengths) == 0 or np.ptp(severities) == 0:
        return 0.0
    return float(spearmanr(severities, lengths).statistic)


@torch.no_grad()
def weight_of_spoiled(nets: Haca3Nets, batch: Batch) -> list[float]:
    """Attention to a source with an artifact of severity 0.7 to 1, beside one as it is.

    Each source of a pair is spoiled in turn, by the same artifact.
    """
    weights = []
    for i in batch.present.all(1).nonzero()[:, 0].tolist():
        one = Batch(*(getattr(batch, field.name)[i : i + 1] for field in fields(batch)))
        rng = np.random.default_rng(int(one.seeds) % 2**32)
        kind, seed = draw_kind(rng)
        severity = float(rng.uniform(0.7, 1))
        for which in range(2):
            sources = one.sources.clone()
            image = corrupt(sources[0, which].cpu().numpy(), kind, severity, seed)
            sources[0, which] = torch.from_numpy(image).to(sources) * one.views[0, which]
            weights.append(attend(nets, replace(one, sources=sources))[0][0, which].item())
    return weights


def example_picture(nets: Haca3Nets, batch: Batch) -> np.ndarray:
    """See :func:`harmony_app.training.slice_validation.anatomy_picture`."""
    return anatomy_picture(nets, batch, reconstruct(nets, batch)[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """See :func:`harmony_app.training.slice_validation.validate_model`."""

    def draws(heads, size):
        return SliceSampler(heads, size, artifacts=False)

    validate_model(arguments, 'haca3', draws, validate, example_picture)


if __name__ == '__main__':
    run_script(main)
