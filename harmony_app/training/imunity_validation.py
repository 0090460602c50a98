"""How good the generator of ImUnity is on held-out slices, in numbers and in a picture."""

from collections.abc import Sequence

import numpy as np
import torch

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.imunity import ImUnityNets
from harmony_app.training.imunity_draws import NOBODY, Pair, PhantomPairs, training_sites
from harmony_app.training.imunity_settings import Settings
from harmony_app.training.imunity_sites import SiteModule
from harmony_app.training.script import run_script
from harmony_app.training.slice_scores import Tally, slice_scores
from harmony_app.training.slice_validation import stacked_rows, validate_model


@torch.no_grad()
def reconstruct(nets: ImUnityNets, batch: Pair) -> torch.Tensor:
    """S1 of a batch in the contrast of S2 as in use, without noise; shape (B, 1, H, W)."""
    theta = nets.theta(batch.style, batch.style_mask)[0]
    return nets.translate(batch.source, batch.mask, theta)


@torch.no_grad()
def validate(
    nets: ImUnityNets,
    batches: Sequence[Pair],
    sites: SiteModule | None = None,
) -> dict[str, float]:
    """L1, SSIM and PSNR against the truth in the foreground, in all and by contrast.

    ``before`` are those of S1 as it is. ``site_accuracy`` is the balanced accuracy with which the
    module of sites tells the sites of the anatomy (one over their number is chance, which is
    what the encoder aims at).

    Parameters
    ----------
    nets : ImUnityNets
    batches : sequence of Pair
        Of held-out heads or people.
    sites : SiteModule, optional
        The module of sites, where it reads the anatomy alone.
    """
    tally, right = Tally(), Tally()
    for batch in batches:
        names = [CONTRASTS[contrast] for contrast in batch.contrast.tolist()]
        for image, moment in ((reconstruct(nets, batch), ''), (batch.source, '_before')):
            scores = slice_scores(image, batch.target, batch.mask)
            for score, contrast in zip(scores, names, strict=True):
                for name, value in score.items():
                    tally.add(f'{name}_all{moment}', value)
                    tally.add(f'{name}_{contrast}{moment}', value)
        if sites is not None:
            latent = nets.anatomy(batch.source, batch.mask)[0]
            slices = sites.images.shape[1]
            read = sites.statistics(latent, batch.mask)
            said = sites(read, batch.contrast[::slices]).argmax(1)
            truths = batch.site[::slices].tolist()
            for one, truth in zip(said.tolist(), truths, strict=True):
                if truth != NOBODY:
                    right.add(str(truth), one == truth)
    metrics, recalls = tally.means(), right.means()
    if len(recalls) > 1:
        metrics['site_accuracy'] = float(np.mean(list(recalls.values())))
    return metrics


@torch.no_grad()
def example_picture(nets: ImUnityNets, batch: Pair) -> np.ndarray:
    """Picture of a batch: S1, S2, result, truth, and five times the error; one column each.

    Returns
    -------
    ndarray, shape (5 H, B W)
        1 is twice the white matter.
    """
    result = reconstruct(nets, batch)
    error = 5 * (result - batch.target).abs()
    rows = [batch.source, batch.style, result, batch.target, error]
    return stacked_rows([row[:, 0] for row in rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """See :func:`harmony_app.training.slice_validation.validate_model`."""

    def draws(heads, size):
        return PhantomPairs(heads, Settings(size=size), training_sites(), judged=True)

    validate_model(arguments, 'imunity', draws, validate, example_picture)


if __name__ == '__main__':
    run_script(main)
