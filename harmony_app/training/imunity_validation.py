"""How good the generator of ImUnity is on held-out slices, in numbers and in a picture."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.imunity import ImUnityNets
from harmony_app.training.heads import VALIDATION, load_heads
from harmony_app.training.imunity_draws import Pair, PhantomPairs, training_sites
from harmony_app.training.imunity_settings import Settings
from harmony_app.training.slice_scores import draw_checks, slice_scores


@torch.no_grad()
def reconstruct(nets: ImUnityNets, batch: Pair) -> torch.Tensor:
    """S1 of a batch in the contrast of S2 as in use, without noise; shape (B, 1, H, W)."""
    theta = nets.theta(batch.style, batch.style_mask)[0]
    return nets.translate(batch.source, batch.mask, theta)


@torch.no_grad()
def validate(
    nets: ImUnityNets, batches: Sequence[Pair], sites: nn.Module | None = None
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
    sites : Module, optional
        The module of sites, where it reads the anatomy alone.
    """
    values: dict[str, list[float]] = {}
    right: dict[int, list[float]] = {}
    for batch in batches:
        result = reconstruct(nets, batch)
        for image, moment in ((result, ''), (batch.source, '_before')):
            scores = slice_scores(image, batch.target, batch.mask)
            for score, contrast in zip(scores, batch.contrast.tolist(), strict=True):
                for group in ('all', CONTRASTS[contrast]):
                    for name, value in score.items():
                        values.setdefault(f'{name}_{group}{moment}', []).append(value)
        if sites is not None:
            said = sites(nets.anatomy(batch.source, batch.mask)[0], batch.mask).argmax(1)
            for one, truth in zip(said.tolist(), batch.site.tolist(), strict=True):
                if truth >= 0:
                    right.setdefault(truth, []).append(float(one == truth))
    metrics = {name: float(np.mean(v)) for name, v in sorted(values.items())}
    if len(right) > 1:
        metrics['site_accuracy'] = float(np.mean([np.mean(v) for v in right.values()]))
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
    picture = torch.cat([torch.cat(list(row[:, 0]), dim=1) for row in rows])
    return np.clip(picture.float().cpu().numpy() / 2, 0, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: metrics of a model folder on the validation heads, as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('model', type=Path, help='model folder of imunity')
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--slices', type=int, default=64, help='held-out draws')
    parser.add_argument('--size', type=int, default=160, help='edge of the slices')
    parser.add_argument('--picture', type=Path, help='PNG of the first draws')
    options = parser.parse_args(arguments)
    from matplotlib.image import imsave

    from harmony_app.methods.imunity import ImUnity

    nets = ImUnity.load(options.model).nets
    heads = load_heads(options.heads, VALIDATION)
    source = PhantomPairs(heads, Settings(size=options.size), training_sites(), judged=True)
    batches = draw_checks(source, max(1, options.slices // 8), 8)
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        imsave(options.picture, example_picture(nets, batches[0]), cmap='gray', vmin=0, vmax=1)
    metrics = {name: round(value, 4) for name, value in validate(nets, batches).items()}
    print(json.dumps(metrics, indent=2))  # noqa: T201


if __name__ == '__main__':
    main()
