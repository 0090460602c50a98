"""How good the autoencoder of DLEST is on held-out slices, in numbers and in a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from harmony_app.nets.dlest import DlestNets
from harmony_app.training.dlest_draws import Slices
from harmony_app.training.slice_scores import slice_scores


@torch.no_grad()
def validate(nets: DlestNets, batches: Sequence[Slices]) -> dict[str, float]:
    """L1, SSIM and PSNR of slices and their reconstruction in the foreground.

    Parameters
    ----------
    nets : DlestNets
    batches : sequence of Slices
        Of held-out heads or people.
    """
    values: dict[str, list[float]] = {}
    for batch in batches:
        images, masks = flattened(batch)
        result = nets.decode(*nets.encode(images, masks), masks)
        for scores in slice_scores(result, images, masks):
            for name, value in scores.items():
                values.setdefault(name, []).append(value)
        code, cells = nets.encode(images, masks)
        values.setdefault('code_spread', []).append(
            float(code.square().sum() / cells.sum() / code.shape[1]) ** 0.5
        )
    return {name: float(np.mean(v)) for name, v in sorted(values.items())}


@torch.no_grad()
def example_picture(nets: DlestNets, batch: Slices) -> np.ndarray:
    """Picture: crops and their reconstruction above whole slices, theirs, and slices of noise.

    Returns
    -------
    ndarray, shape (H, W)
        1 is twice the white matter.
    """
    images, masks = flattened(batch)
    result = nets.decode(*nets.encode(images, masks), masks)
    ones = torch.ones_like(batch.whole)
    whole = nets.decode(*nets.encode(batch.whole, ones), ones)
    generator = torch.Generator(images.device.type).manual_seed(0)
    made = nets.mapping(nets.mapping.draw(len(ones), generator))
    invented = nets.decode(made, torch.ones_like(made[:, :1]), ones)
    rows = [images[:8], result[:8], batch.whole, whole, invented]
    rows = [torch.cat(list(row[:, 0]), dim=1) for row in rows]
    width = max(row.shape[1] for row in rows)
    picture = torch.cat([functional.pad(row, (0, width - row.shape[1])) for row in rows])
    return np.clip(picture.float().cpu().numpy() / 2, 0, 1)


def flattened(batch: Slices) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of a batch and their masks, shape (B L, 1, H, W)."""
    return batch.images.flatten(0, 1)[:, None], batch.masks.flatten(0, 1)[:, None]
