"""Losses of HACA3, and of other methods that share a few.

Means over pixels or patches are over those of the joint batch, also where several processes
share it (:mod:`harmony_app.training.distributed`).
"""

import torch
from torch import nn
from torch.nn import functional

from harmony_app.training.distributed import mean_over_ranks, neighbours
from harmony_app.training.slice_batch import LEVELS


def masked_l1(image: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference inside a mask, all (B, 1, H, W)."""
    return ((image - target).abs() * mask).sum() / mean_over_ranks(mask.sum()).clamp_min(1.0)


def edge_l1(image: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the differences of neighbours: an L1 alone blurs edges."""
    total = 0.0
    for axis in (2, 3):
        length = image.shape[axis] - 1
        inside = mask.narrow(axis, 0, length) * mask.narrow(axis, 1, length)
        total = total + masked_l1(image.diff(dim=axis), target.diff(dim=axis), inside)
    return total


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Of normal distributions (B, D) from the standard normal, mean over B and D."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).mean()


def soft_cross_entropy(
    logits: torch.Tensor, fractions: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Cross entropy of logits (B, L, H, W) against fractions of the same shape in a mask."""
    entropy = -(functional.log_softmax(logits, dim=1) * fractions).sum(1, keepdim=True)
    return (entropy * mask).sum() / mean_over_ranks(mask.sum()).clamp_min(1.0)


def levels_reader(theta: int) -> nn.Module:
    """Small network that reads the intensities of :data:`LEVELS` off theta (B, theta)."""
    return nn.Sequential(nn.Linear(theta, 32), nn.SiLU(), nn.Linear(32, len(LEVELS)))


def levels_error(read: torch.Tensor, levels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Error of tissue intensities (B, T) read off theta, of the examples (B,) where they are known."""
    error = (read - levels).abs().mean(1)
    return (error * known).sum() / mean_over_ranks(known.sum()).clamp_min(1)


def judged_by_fixed(judge: nn.Module, *given: torch.Tensor):
    """What a network says, with a gradient for what it is given and none for its weights."""
    fixed = {name: p.detach() for name, p in judge.named_parameters()}
    return torch.func.functional_call(judge, fixed, given)


class Patchifier(nn.Module):
    """Features of the patches of an anatomy map or an image; used in training only.

    Parameters
    ----------
    patch : int
        Edge of the patches, which do not overlap.
    features : int
        Length of the unit vectors.
    """

    def __init__(self, patch: int = 16, features: int = 64):
        super().__init__()
        self.patch = patch
        self.net = nn.Sequential(
            nn.Conv2d(1, 64, patch, stride=patch), nn.LeakyReLU(0.1), nn.Conv2d(64, features, 1)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (B, 1, H, W) to (B, N, features)."""
        return functional.normalize(self.net(maps).flatten(2).transpose(1, 2), dim=2)


def patch_contrast(
    query: torch.Tensor,
    positive: torch.Tensor,
    images: torch.Tensor,
    inside: torch.Tensor,
    temperature: float = 0.1,
) -> torch.Tensor:
    """Contrastive loss of anatomy patches (equation 1 of the paper).

    A patch of one contrast's anatomy is to be more similar to the same place in another
    contrast's anatomy than to the images there, or to other places of either anatomy.

    Parameters
    ----------
    query, positive : Tensor, shape (B, N, F)
        Unit features of the anatomy of two contrasts.
    images : Tensor, shape (B, M, N, F)
        Unit features of M images at the same places.
    inside : Tensor, shape (B, N), bool
        Patches that show something of both.
    temperature : float
        Of the similarities.
    """
    # sums of exponentials need the digits that a product in bfloat16 loses
    with torch.autocast(query.device.type, enabled=False):
        batch, count, _ = query.shape
        similar = torch.einsum('bnf,bnf->bn', query, positive) / temperature
        with_images = torch.einsum('bnf,bmnf->bnm', query, images) / temperature
        other = torch.einsum('bnf,bkf->bnk', query, positive.detach()) / temperature
        same_place = torch.eye(count, dtype=torch.bool, device=query.device)
        hidden = same_place[None] | ~inside[:, None, :].expand(batch, count, count)
        negatives = torch.cat([with_images, other.masked_fill(hidden, -torch.inf)], dim=2)
        number = torch.isfinite(negatives).sum(2).clamp_min(1).to(query.dtype)
        # log of the mean of exp over the negatives
        average = torch.logsumexp(negatives, dim=2) - number.log()
        losses = functional.softplus(average - similar)
        return (losses * inside).sum() / mean_over_ranks(inside.sum().float()).clamp_min(1)


def severity_loss(
    clean: torch.Tensor, mild: torch.Tensor, severe: torch.Tensor, severity: torch.Tensor
) -> torch.Tensor:
    """Triplets with the severity as their margin, clean slices at zero, eta as long as severe.

    Parameters
    ----------
    clean, mild, severe : Tensor, shape (B, D)
        Eta of a slice without and with an artifact, at two severities.
    severity : Tensor, shape (B, 2)
        Of ``mild`` and ``severe``, 0 to 1, rising.
    """
    other = neighbours(clean)
    near = (clean - other).norm(dim=1)
    far_mild = (clean - mild).norm(dim=1)
    far_severe = (clean - severe).norm(dim=1)
    triplets = functional.relu(near - far_mild + severity[:, 0]) + functional.relu(
        near - far_severe + severity[:, 1]
    )
    order = functional.relu(mild.norm(dim=1) - severe.norm(dim=1) + severity[:, 1] - severity[:, 0])
    graded = graded_loss(mild, severity[:, 0]) + graded_loss(severe, severity[:, 1])
    return (triplets + order + clean.abs().sum(1)).mean() + graded


def graded_loss(eta: torch.Tensor, severity: torch.Tensor) -> torch.Tensor:
    """Twice the mean difference of the length of eta (B, D) from the severity (B,)."""
    return 2 * (eta.norm(dim=1) - severity).abs().mean()


def ranking_loss(lengths: torch.Tensor, severity: torch.Tensor) -> torch.Tensor:
    """Mean lack of order over all pairs of different severity, whatever their subject and contrast.

    Parameters
    ----------
    lengths, severity : Tensor, shape (B,)
        Of eta, and of the artifact. The worse one of a pair is to be longer by the difference.

    Examples
    --------
    >>> ranking_loss(torch.tensor([0.25, 0.25, 1.0]), torch.tensor([0.0, 0.5, 1.0])).item()
    0.25
    """
    longer = lengths[:, None] - lengths
    worse = severity[:, None] - severity
    pairs = worse > 0
    return (functional.relu(worse - longer) * pairs).sum() / pairs.sum().clamp_min(1)


def tissue_fit(logits: torch.Tensor, fractions: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """How well the anatomy of each source explains the tissues that both sources show.

    Parameters
    ----------
    logits : Tensor, shape (B, S, L, H, W)
        Of the anatomy of every source.
    fractions : Tensor, shape (B, L, H, W)
        Of the tissues, sum 1 over L.
    masks : Tensor, shape (B, S, H, W)

    Returns
    -------
    Tensor, shape (B, S)
        Minus the mean cross entropy: 0 for a source that leaves nothing open.
    """
    both = masks.prod(1, keepdim=True)
    likely = (functional.log_softmax(logits, dim=2) * fractions[:, None]).sum(2)
    return (likely * both).sum((2, 3)) / both.sum((2, 3)).clamp_min(1)


def attention_loss(
    weights: torch.Tensor,
    explained: torch.Tensor,
    counted: torch.Tensor,
    temperature: float = 0.07,
) -> torch.Tensor:
    """Cross entropy of attention weights against those that the sources have earned.

    Parameters
    ----------
    weights : Tensor, shape (B, S)
        Of the sources, 1 in sum.
    explained : Tensor, shape (B, S)
        Of :func:`tissue_fit`; the earned weights are its softmax.
    counted : Tensor, shape (B,)
        1 for examples that count, else 0.
    temperature : float
        Of that softmax, in nats of each pixel.
    """
    earned = torch.softmax(explained / temperature, dim=1)
    entropy = -(earned * weights.clamp_min(1e-6).log()).sum(1)
    return (entropy * counted).sum() / mean_over_ranks(counted.sum()).clamp_min(1)
