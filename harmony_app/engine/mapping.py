"""A network that maps slices to slices, on volumes."""

from collections.abc import Callable

import numpy as np
import torch

from harmony_app.engine.compute import Compute
from harmony_app.engine.slicing import slice_groups


def map_slices(
    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    data: np.ndarray,
    mask: np.ndarray,
    orientation: str,
    compute: Compute,
) -> np.ndarray:
    """Map the slices of one orientation; slices that show nothing are not computed.

    Parameters
    ----------
    network : callable
        Maps slices (B, 1, H, W) and their foreground to slices of the same shape; empty margins
        change nothing of what it gives.
    data : ndarray, shape (X, Y, Z), float32
        Volume.
    mask : ndarray, shape (X, Y, Z), bool
        Its foreground.
    orientation : str
        One of :data:`harmony_app.engine.slicing.ORIENTATIONS`.
    compute : Compute
        Where and how.

    Returns
    -------
    ndarray, shape (X, Y, Z), float32
        Zero outside the foreground.
    """
    result = np.zeros(data.shape, np.float32)
    for group in slice_groups(mask, orientation, compute.batch):
        with compute.running():
            shown = compute.tensor(group.take(mask))[:, None]
            images = compute.tensor(group.take(data))[:, None]
            group.put(result, network(images, shown)[:, 0].float().cpu().numpy())
    return result * mask
