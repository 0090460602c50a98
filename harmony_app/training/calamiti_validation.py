"""How good the decoder of CALAMITI is on held-out slices, in numbers and in a picture."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.calamiti import CalamitiNets
from harmony_app.training.calamiti_draws import HomePhantom, SiteBatch
from harmony_app.training.calamiti_settings import Settings
from harmony_app.training.heads import VALIDATION, load_heads
from harmony_app.training.slice_scores import draw_checks, slice_scores


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
    values: dict[str, list[float]] = {}
    right: dict[bool, list[float]] = {}
    for batch in batches:
        result, mask = reconstruct(nets, batch)
        contrasts = batch.contrasts.tolist()
        for scores, (source, _, wanted) in zip(
            slice_scores(result, batch.target, mask), contrasts, strict=True
        ):
            groups = ('all', CONTRASTS[wanted], 'same' if source == wanted else 'other')
            for group in groups:
                for name, value in scores.items():
                    values.setdefault(f'{name}_{group}', []).append(value)
        maps = [batch.source_masks[:, i : i + 1] for i in range(2)]
        levels = [nets.labels(batch.sources[:, i : i + 1], maps[i]) for i in range(2)]
        both = maps[0][:, 0] * maps[1][:, 0] * batch.present.all(1)[:, None, None]
        if both.any():
            same = ((levels[0] == levels[1]) * both).sum() / both.sum()
            values.setdefault('agreement', []).append(float(same))
        anatomy = nets.anatomy(batch.sources[:, :1], mask)
        logits, places = nets.discriminator(anatomy, mask)
        means = (logits * places).sum((1, 2, 3)) / places.sum((1, 2, 3)).clamp_min(1)
        for mean, home in zip(means.tolist(), batch.home.tolist(), strict=True):
            right.setdefault(home > 0, []).append(float((mean > 0) == (home > 0)))
    metrics = {name: float(np.mean(v)) for name, v in sorted(values.items())}
    if len(right) == 2:
        metrics['site_accuracy'] = float(np.mean([np.mean(v) for v in right.values()]))
    return metrics


@torch.no_grad()
def example_picture(nets: CalamitiNets, batch: SiteBatch) -> np.ndarray:
    """Picture of a batch: both sources, their anatomy, theta slice, result, truth; one column each.

    Returns
    -------
    ndarray, shape (7 H, B W)
        1 is twice the white matter.
    """
    result, _ = reconstruct(nets, batch)
    rows = [batch.sources[:, 0], batch.sources[:, 1]]
    for i in range(2):
        mask = batch.source_masks[:, i : i + 1]
        levels = nets.labels(batch.sources[:, i : i + 1], mask).float() + 1
        rows.append(levels * mask[:, 0] * 2 / (nets.config.levels + 1))
    rows += [batch.style[:, 0], result[:, 0], batch.target[:, 0]]
    picture = torch.cat([torch.cat(list(row), dim=1) for row in rows]).float().cpu().numpy()
    return np.clip(picture / 2, 0, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: metrics of a model folder on the validation heads, as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('model', type=Path, help='model folder of calamiti')
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--slices', type=int, default=64, help='held-out draws')
    parser.add_argument('--size', type=int, default=160, help='edge of the slices')
    parser.add_argument('--picture', type=Path, help='PNG of the first draws')
    options = parser.parse_args(arguments)
    from matplotlib.image import imsave

    from harmony_app.methods.calamiti import Calamiti

    nets = Calamiti.load(options.model).nets
    heads = load_heads(options.heads, VALIDATION)
    source = HomePhantom(heads, options.size, Settings.home, artifacts=False)
    batches = draw_checks(source, max(1, options.slices // 8), 8)
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        imsave(options.picture, example_picture(nets, batches[0]), cmap='gray', vmin=0, vmax=1)
    metrics = {name: round(value, 4) for name, value in validate(nets, batches).items()}
    print(json.dumps(metrics, indent=2))  # noqa: T201


if __name__ == '__main__':
    main()
