"""What CALAMITI's losses add to those of :mod:`harmony_app.training.losses`."""

import torch
from torch.nn import functional

from harmony_app.training.distributed import mean_over_ranks


def swap_channels(betas: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Anatomy whose channels come from one contrast or the other at random (section 2.1).

    Parameters
    ----------
    betas : Tensor, shape (B, 2, L, H, W)
        Anatomy of two contrasts of one session.
    uniform : Tensor, shape (B, L)
        Random numbers of 0 to 1: below one half the channel is that of the first.

    Returns
    -------
    Tensor, shape (B, L, H, W)
        One-hot only where both agree.

    Examples
    --------
    >>> betas = torch.tensor([1.0, 2.0])[None, :, None, None, None].expand(1, 2, 3, 1, 1)
    >>> swap_channels(betas, torch.tensor([[0.1, 0.9, 0.4]])).flatten().tolist()
    [1.0, 2.0, 1.0]
    """
    first = (uniform < 0.5)[:, :, None, None]
    return torch.where(first, betas[:, 0], betas[:, 1])


def site_likelihood(logits: torch.Tensor, mask: torch.Tensor, home: torch.Tensor) -> torch.Tensor:
    """How well a discriminator tells Site A from the others, in nats (equation 1).

    Minus this is the loss of the discriminator (equation 2), and this is the loss of the
    anatomy encoder (equation 3). A group that the batch does not hold counts nothing.

    Parameters
    ----------
    logits, mask : Tensor, shape (B, 1, h, w)
        Of Site A, and the places that count.
    home : Tensor, shape (B,)
        1 for examples of Site A, else 0.

    Returns
    -------
    Tensor, shape ()
        Not positive; 0 is certainty, minus 2 log 2 is what indifference gives.

    Examples
    --------
    >>> logits, mask = torch.zeros(2, 1, 3, 3), torch.ones(2, 1, 3, 3)
    >>> round(float(site_likelihood(logits, mask, torch.tensor([1.0, 0.0]))), 4)
    -1.3863
    """
    logits = logits.float()
    total = torch.zeros((), device=logits.device)
    for sign, group in ((1, home), (-1, 1 - home)):
        places = mask * group[:, None, None, None]
        count = mean_over_ranks(places.sum()).clamp_min(1)
        total = total + (functional.logsigmoid(sign * logits) * places).sum() / count
    return total
