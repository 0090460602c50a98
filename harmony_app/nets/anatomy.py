"""Anatomy as a one-hot map of a few levels, which HACA3 and CALAMITI share."""

from abc import abstractmethod

import torch
from torch.nn import functional

from harmony_app.nets.contrast import ContrastNets


class AnatomyNets(ContrastNets):
    """Networks that split a slice into a one-hot map of levels (beta) and a contrast (theta)."""

    @abstractmethod
    def logits(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of the levels of the anatomy, shape (B, L, H, W), of slices (B, 1, H, W)."""

    @abstractmethod
    def decode(
        self, anatomy: torch.Tensor, mask: torch.Tensor, theta: torch.Tensor
    ) -> torch.Tensor:
        """Slices (B, 1, H, W) of an anatomy (B, L, H, W) and a contrast (B, theta)."""

    def anatomy(
        self,
        images: torch.Tensor,
        mask: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """One-hot anatomy of slices.

        Parameters
        ----------
        images, mask : Tensor, shape (B, 1, H, W)
            Slice and its foreground.
        generator : torch.Generator, optional
            Source of the Gumbel noise in training, whose gradient goes straight through;
            without it the anatomy is the arg max, and always the same.
        temperature : float
            Of the Gumbel softmax.

        Returns
        -------
        Tensor, shape (B, L, H, W)
            One-hot inside the mask, 0 outside.
        """
        logits = self.logits(images, mask)
        if generator is None:
            return one_hot(logits.argmax(dim=1), logits.shape[1], logits.dtype) * mask
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
        return sample_anatomy(logits, mask, uniform, temperature)

    def labels(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Level of the anatomy, shape (B, H, W), uint8; 0 outside the mask too."""
        levels = self.logits(images, mask).argmax(dim=1)
        return (levels * mask[:, 0].long()).to(torch.uint8)


def sample_anatomy(
    logits: torch.Tensor, mask: torch.Tensor, uniform: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """One-hot maps drawn by the Gumbel trick; the gradient goes straight through.

    Parameters
    ----------
    logits : Tensor, shape (B, L, H, W)
    mask : Tensor, shape (B, 1, H, W)
    uniform : Tensor, shape (B, L, H, W)
        Random numbers of 0 to 1: the noise.
    temperature : float
        Of the softmax whose gradient is taken.
    """
    noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
    soft = torch.softmax((logits + noise) / temperature, dim=1)
    # as arg max, which is slow over channels; ties have no chance under the noise
    hard = (soft == soft.amax(dim=1, keepdim=True)).to(soft.dtype)
    return (hard + soft - soft.detach()) * mask


def one_hot(levels: torch.Tensor, count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One-hot maps (B, count, H, W) of levels (B, H, W)."""
    return functional.one_hot(levels.long(), count).movedim(-1, 1).to(dtype)
