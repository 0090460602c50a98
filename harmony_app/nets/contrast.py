"""Networks that read the contrast of a slice, which every method that decodes has."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn


class ContrastConfig(Protocol):
    """Widths of such networks.

    Attributes
    ----------
    theta : int
        Numbers that a contrast is told by.
    """

    theta: int

    def to_dict(self) -> dict:
        """Plain types for JSON."""


class ContrastNets(nn.Module):
    """Networks among which one reads theta, the contrast of a slice.

    Attributes
    ----------
    config : ContrastConfig
        Widths; a config with ``eta`` above 0 goes with a network ``eta``, of artifacts.
    theta : callable
        ``theta(images, mask)`` of slices and their foreground, both (B, 1, H, W). A tuple; the
        first is the representation of contrast, shape (B, theta).
    """

    config: ContrastConfig
    theta: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]
