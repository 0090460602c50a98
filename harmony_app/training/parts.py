"""The parts of the networks that are fitted to a new site, and the rest that stays.

For HACA3 those that CALAMITI names (section 2.4; HACA3's paper names none): the output block
of the anatomy encoder and the fully connected layers of theta's. The decoder stays, so what
the encoders learn has to lie where the old sites put it, and styles of old sites stay valid.
For the transfer network its last layers.
"""

import torch

from harmony_app.errors import ModelError

ADAPTED = {
    'haca3': ('beta.up.0.', 'beta.head.', 'theta.head.'),
    'transfer': ('local.', 'everywhere.'),
}
"""Beginnings of the names of the weights that are fitted, by method."""

SLOWER = 5.0
"""The learning rate is divided by this (CALAMITI, section 3.3)."""


def keep_all_but(network: torch.nn.Module, method: str) -> list[str]:
    """Let only the parts of :data:`ADAPTED` learn; gives the names of their weights.

    Raises
    ------
    ModelError
        Where the network has no such part.
    """
    names = []
    for name, parameter in network.named_parameters():
        fitted = name.startswith(ADAPTED[method])
        parameter.requires_grad_(fitted)
        if fitted:
            names.append(name)
    for start in ADAPTED[method]:
        if not any(name.startswith(start) for name in names):
            raise ModelError(f'the network of {method} has no part {start.rstrip(".")} to adapt')
    return names
