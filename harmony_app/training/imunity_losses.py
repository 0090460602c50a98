"""Losses of ImUnity (Cackowski 2023, equations 1 to 3, section 2.3).

Means are over those of the joint batch, also where several processes share it.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from harmony_app.nets.imunity import CELL
from harmony_app.nets.masked import pool_mask
from harmony_app.training.biology import Feature
from harmony_app.training.distributed import mean_over_ranks


def realness_loss(logits: torch.Tensor, mask: torch.Tensor, real: bool) -> torch.Tensor:
    """Binary cross entropy of what a discriminator says of images that are real, or that are not.

    Parameters
    ----------
    logits, mask : Tensor, shape (B, 1, h, w)
        Of being real, and the places that count.
    real : bool
        What they are.

    Examples
    --------
    >>> logits, mask = torch.zeros(2, 1, 3, 3), torch.ones(2, 1, 3, 3)
    >>> round(float(realness_loss(logits, mask, True)), 4)
    0.6931
    """
    entropy = functional.softplus(-logits.float() if real else logits.float())
    return (entropy * mask).sum() / mean_over_ranks(mask.sum()).clamp_min(1)


def site_loss(logits: torch.Tensor, sites: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the module of sites (equation 1).

    Parameters
    ----------
    logits : Tensor, shape (B, S)
    sites : Tensor, shape (B,), int64
        Number of the site; examples below 0 do not count.

    Examples
    --------
    >>> round(float(site_loss(torch.zeros(2, 4), torch.tensor([3, -1]))), 4)
    1.3863
    """
    entropy = functional.cross_entropy(logits.float(), sites.clamp_min(0), reduction='none')
    return _mean_of(entropy, sites >= 0)


def confusion_loss(logits: torch.Tensor, sites: torch.Tensor) -> torch.Tensor:
    """How far what the module of sites says is from even (equation 2); least at log S.

    Parameters
    ----------
    logits, sites : Tensor
        As for :func:`site_loss`; which site it is does not matter.

    Examples
    --------
    >>> logits = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    >>> [round(float(confusion_loss(row[None], torch.tensor([0]))), 4) for row in logits]
    [0.6931, 2.5067]
    """
    entropy = -functional.log_softmax(logits.float(), dim=1).mean(1)
    return _mean_of(entropy, sites >= 0)


def biological_loss(
    read: torch.Tensor, values: torch.Tensor, features: Sequence[Feature]
) -> torch.Tensor:
    """Sum over features of how wrong the module of biology is (equation 3).

    Binary cross entropy of a level (a sex, a diagnosis), as in the paper; smooth L1 of a number
    (an age), which the paper has none of.

    Parameters
    ----------
    read, values : Tensor, shape (B, F)
        What the module says (logits, or standardised numbers), and the truth, not a number
        where nobody knows it.
    features : sequence of Feature
        What the columns are.

    Examples
    --------
    >>> read, nan = torch.zeros(2, 2), float('nan')
    >>> features = (Feature('sex', 'F'), Feature('age', None, 40.0, 10.0))
    >>> values = torch.tensor([[1.0, nan], [nan, 1.0]])
    >>> round(float(biological_loss(read, values, features)), 4)
    1.1931
    """
    total = read.new_zeros((), dtype=torch.float32)
    for column, feature in enumerate(features):
        known = torch.isfinite(values[:, column])
        truth, said = torch.nan_to_num(values[:, column]).float(), read[:, column].float()
        if feature.level is None:
            wrong = functional.smooth_l1_loss(said, truth, reduction='none')
        else:
            wrong = functional.binary_cross_entropy_with_logits(said, truth, reduction='none')
        total = total + _mean_of(wrong, known)
    return total


def latent_divergence(
    mean: torch.Tensor, log_variance: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """KL divergence of a latent (B, C, H / 4, W / 4) from the standard normal inside a mask.

    Parameters
    ----------
    mean, log_variance : Tensor
        Of the normal distributions.
    mask : Tensor, shape (B, 1, H, W)
        Of the slices.

    Returns
    -------
    Tensor, shape ()
        Mean over channels and cells.
    """
    cells = pool_mask(mask, CELL)
    divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1) * cells
    return divergence.sum() / (mean_over_ranks(cells.sum()).clamp_min(1) * mean.shape[1])


def _mean_of(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean of the examples (B,) that count."""
    return (values * counted).sum() / mean_over_ranks(counted.sum().float()).clamp_min(1)
