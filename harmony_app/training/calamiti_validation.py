"""How good the decoder of CALAMITI is on held-out slices, in numbers and in a picture."""

from collections.abc import Sequence

import numpy as np
import torch

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.calamiti import CalamitiNets
from harmony_app.training.calamiti_draws import HomePhantom, SiteBatch
from harmony_app.training.calamiti_settings import Settings
from harmony_app.training.script import run_script
from harmony_app.training.slice_scores import Tally, slice_scores
from harmony_app.training.slice_validation import anatomy_picture, validate_model


@torch.no_grad()
def reconstruct(nets: CalamitiNets, batch: SiteBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode a batch as in use: arg max anatomy of the first source alone, mean theta.

    Returns
    -------
    result, mask : Tensor, shape (B, 1, H, W)
    """
    mask = batch.source_masks[:, :1]
    anatomy = nets.anatomy(batch.sources[:, :1], mask)
    theta = nets.theta(batch.style, batch.style_mask)[0]
    return nets.decode(anatomy, mask, theta), mask


@torch.no_grad()
def validate(nets: CalamitiNets, batches: Sequence[SiteBatch]) -> dict[str, float]:
    """L1, SSIM and PSNR against the truth in the foreground, of one source alone.

    ``same`` is where the source has the target's contrast, ``other`` where it has not.
    ``agreement`` is the share of what two contrasts show in which their anatomy is the same, and
    ``site_accuracy`` the balanced accuracy with which the discriminator tells Site A (0.5 is
    chance, which is what the anatomy encoder aims at; absent where only one group was drawn).

    Parameters
    ----------
    nets : CalamitiNets
    batches : sequence of SiteBatch
        Of held-out heads.
    """
    tally = Tally()
    right: dict[bool, list[float]] = {}
    for batch in batches:
        result, mask = reconstruct(nets, batch)
        contrasts = batch.contrasts.tolist()
        for scores, (source, _, wanted) in zip(
            slice_scores(result, batch.target, mask), contrasts, strict=True
        ):
            tally.add_scores(scores, CONTRASTS[wanted], source == wanted)
        maps = [batch.source_masks[:, i : i + 1] for i in range(2)]
        levels = [nets.labels(batch.sources[:, i : i + 1], maps[i]) for i in range(2)]
        both = maps[0][:, 0] * maps[1][:, 0] * batch.present.all(1)[:, None, None]
        if both.any():
            same = ((levels[0] == levels[1]) * both).sum() / both.sum()
            tally.add('agreement', same)
        anatomy = nets.anatomy(batch.sources[:, :1], mask)
        logits, places = nets.discriminator(anatomy, mask)
        means = (logits * places).sum((1, 2, 3)) / places.sum((1, 2, 3)).clamp_min(1)
        for mean, home in zip(means.tolist(), batch.home.tolist(), strict=True):
            right.setdefault(home > 0, []).append(float((mean > 0) == (home > 0)))
    metrics = tally.means()
    if len(right) == 2:
        metrics['site_accuracy'] = float(np.mean([np.mean(v) for v in right.values()]))
    return metrics


def example_picture(nets: CalamitiNets, batch: SiteBatch) -> np.ndarray:
    """See :func:`harmony_app.training.slice_validation.anatomy_picture`."""
    return anatomy_picture(nets, batch, reconstruct(nets, batch)[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """See :func:`harmony_app.training.slice_validation.validate_model`."""

    def draws(heads, size):
        return HomePhantom(heads, size, Settings.home, artifacts=False)

    validate_model(arguments, 'calamiti', draws, validate, example_picture)


if __name__ == '__main__':
    run_script(main)
