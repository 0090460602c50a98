"""What the validations of networks on slices have in common: pictures and the command line."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from harmony_app.errors import InputError
from harmony_app.methods.registry import get_method
from harmony_app.nets.anatomy import AnatomyNets
from harmony_app.nets.contrast import ContrastNets
from harmony_app.training.heads import Head, split_heads
from harmony_app.training.slice_batch import Batch
from harmony_app.training.slice_scores import draw_checks


@torch.no_grad()
def anatomy_picture(nets: AnatomyNets, batch: Batch, result: torch.Tensor) -> np.ndarray:
    """Picture of a batch: both sources, their anatomy, theta slice, result, truth; one column each.

    Parameters
    ----------
    nets : AnatomyNets
    batch : Batch
    result : Tensor, shape (B, 1, H, W)
        What was decoded of it.

    Returns
    -------
    ndarray, shape (7 H, B W)
        1 is twice the white matter.
    """
    rows = [batch.sources[:, 0], batch.sources[:, 1]]
    for i in range(2):
        mask = batch.source_masks[:, i : i + 1]
        levels = nets.labels(batch.sources[:, i : i + 1], mask).float() + 1
        rows.append(levels * mask[:, 0] * 2 / (nets.config.levels + 1))
    return stacked_rows([*rows, batch.style[:, 0], result[:, 0], batch.target[:, 0]])


def stacked_rows(rows: Sequence[torch.Tensor]) -> np.ndarray:
    """Picture of rows of slices (B, H, W), the slices of a row side by side; 1 is twice the white matter."""
    picture = torch.cat([torch.cat(list(row), dim=1) for row in rows]).float().cpu().numpy()
    return np.clip(picture / 2, 0, 1)


def validate_model(
    arguments: Sequence[str] | None,
    method: str,
    draws: Callable[[list[Head], int], object],
    judge: Callable[[ContrastNets, Sequence], dict[str, float]],
    show: Callable[[ContrastNets, object], np.ndarray],
) -> None:
    """Command line: metrics of a model folder on the validation heads, as JSON.

    Parameters
    ----------
    arguments : sequence of str or None
        Of the command; those of this process without.
    method : str
        Name in the registry.
    draws : callable
        Source of examples without artifacts, of heads and an edge of the slices.
    judge, show : callable
        As of :class:`~harmony_app.training.slice_training.SliceTraining`.

    Raises
    ------
    InputError
        Where no head is held out, see :func:`~harmony_app.training.heads.split_heads`.
    """
    parser = argparse.ArgumentParser(
        description='Metrics of a model folder on the validation heads, as JSON.'
    )
    parser.add_argument('model', type=Path, help=f'model folder of {method}')
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--slices', type=int, default=64, help='held-out draws')
    parser.add_argument('--size', type=int, default=160, help='edge of the slices')
    parser.add_argument('--picture', type=Path, help='PNG of the first draws')
    options = parser.parse_args(arguments)
    from matplotlib.image import imsave

    nets = get_method(method, options.model).nets
    _, held_out = split_heads(options.heads)
    if not held_out:
        raise InputError(f'{options.heads} has too few heads: three, or those that are held out')
    source = draws(held_out, options.size)
    batches = draw_checks(source, max(1, options.slices // 8), 8)
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        imsave(options.picture, show(nets, batches[0]), cmap='gray', vmin=0, vmax=1)
    metrics = {name: round(value, 4) for name, value in judge(nets, batches).items()}
    print(json.dumps(metrics, indent=2))  # noqa: T201
