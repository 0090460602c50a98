"""The losses of MISPEL (section 2.3.2), for matched slices of which some may be absent.

Everywhere B counts examples and M scanners; ``seen`` is what each scanner shows of a slice, 0
where the person was not scanned there.
"""

from itertools import combinations

import torch

from harmony_app.training.distributed import mean_over_ranks
from harmony_app.training.losses import masked_l1


def reconstruction_loss(
    outputs: torch.Tensor, images: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """Mean absolute error of each scanner, summed over the scanners.

    Parameters
    ----------
    outputs, images, seen : Tensor, shape (B, M, H, W)
    """
    slots = [slice(i, i + 1) for i in range(images.shape[1])]
    return sum(masked_l1(outputs[:, i], images[:, i], seen[:, i]) for i in slots)


def coupling_loss(embeddings: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Variance of each embedding over the scanners, mean over embeddings and pixels.

    Parameters
    ----------
    embeddings : Tensor, shape (B, M, L, H, W)
    seen : Tensor, shape (B, M, H, W)
        A pixel counts where all scanners that the person was scanned at show it, two at least.

    Examples
    --------
    Two scanners whose one embedding is 0 and 2: the mean is 1, the variance too.

    >>> embeddings = torch.tensor([0.0, 2.0])[None, :, None, None, None]
    >>> coupling_loss(embeddings, torch.ones(1, 2, 1, 1)).item()
    1.0
    """
    there = seen.flatten(2).any(2).to(embeddings.dtype)[..., None, None, None]
    count = there.sum(1).clamp_min(1)
    mean = (embeddings * there).sum(1) / count
    variance = ((embeddings - mean[:, None]).square() * there).sum(1) / count
    # where a scanner is absent nothing is asked of it
    inside = torch.where(there[:, :, 0] > 0, seen, torch.ones_like(seen)).prod(1)
    inside = inside * (there.sum(1)[:, 0] > 1)
    pixels = mean_over_ranks(inside.sum()).clamp_min(1)
    return (variance * inside[:, None]).sum() / (pixels * embeddings.shape[2])


def harmonization_loss(outputs: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of every two scanners, mean over the pairs that there are.

    Parameters
    ----------
    outputs, seen : Tensor, shape (B, M, H, W)

    Examples
    --------
    >>> outputs = torch.tensor([1.0, 2.0, 4.0])[None, :, None, None]
    >>> harmonization_loss(outputs, torch.ones(1, 3, 1, 1)).item()
    2.0
    """
    differences, there = [], []
    for i, k in combinations(range(outputs.shape[1]), 2):
        both = seen[:, i : i + 1] * seen[:, k : k + 1]
        differences.append(masked_l1(outputs[:, i : i + 1], outputs[:, k : k + 1], both))
        there.append(mean_over_ranks(both.any().to(outputs.dtype)) > 0)
    counted = torch.stack(there).sum().clamp_min(1)
    return torch.stack(differences).sum() / counted
