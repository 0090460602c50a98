"""The parts of a network that are fitted to a new site; the rest stays."""

from collections.abc import Sequence

import torch

from harmony_app.errors import ModelError

SLOWER = 5.0
"""The learning rate is divided by this (CALAMITI, section 3.3)."""


def keep_all_but(network: torch.nn.Module, parts: Sequence[str]) -> list[str]:
    """Let only some parts learn; gives the names of their weights.

    Parameters
    ----------
    network : Module
    parts : sequence of str
        Beginnings of the names of the weights that learn (``Recipe.adapted``).

    Raises
    ------
    ModelError
        Where the network has no such part.

    Examples
    --------
    >>> keep_all_but(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU()), ['0.b'])
    ['0.bias']
    """
    names = []
    for name, parameter in network.named_parameters():
        fitted = name.startswith(tuple(parts))
        parameter.requires_grad_(fitted)
        if fitted:
            names.append(name)
    for start in parts:
        if not any(name.startswith(start) for name in names):
            raise ModelError(f'the network has no part {start.rstrip(".")} to adapt')
    return names
