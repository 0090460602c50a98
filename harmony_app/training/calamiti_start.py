"""Where a training of CALAMITI begins: at a model of its own, or at one of HACA3.

HACA3 grew out of CALAMITI: both encode anatomy as a one-hot map by a U-Net and contrast by the same
encoder. In ``compact`` they have the same widths, so what HACA3 knows saves hours.
"""

from pathlib import Path

import torch
from torch import nn

from harmony_app.errors import InputError
from harmony_app.methods.model_folder import read_metadata
from harmony_app.methods.registry import get_method
from harmony_app.nets.calamiti import CalamitiNets
from harmony_app.nets.haca3 import Haca3Nets
from harmony_app.training.slice_weights import fill_from_model

FIRST = 'down.0.0.conv.weight'
"""Of the decoder: where theta joins the anatomy."""


def begin_from(nets: CalamitiNets, folder: Path, device: str = 'cpu') -> str:
    """Fill networks from a model folder of CALAMITI or HACA3; the method it was of.

    Raises
    ------
    InputError
        Where the widths of the model are others.
    """
    if read_metadata(folder).get('method') == 'haca3':
        begin_from_haca3(nets, get_method('haca3', folder, device).nets, folder)
        return 'haca3'
    fill_from_model(nets, 'calamiti', folder, device)
    return 'calamiti'


@torch.no_grad()
def begin_from_haca3(
    nets: CalamitiNets, known: Haca3Nets, folder: Path | str = 'the model'
) -> None:
    """Copy what HACA3 and CALAMITI share; the discriminator starts by chance.

    Anatomy and theta are HACA3's at first. The decoder has its convolutions and its table of
    intensities, without what theta modulated in them, and takes no notice of the theta beside
    the anatomy yet.

    Raises
    ------
    InputError
        Where the widths of the model are others.
    """
    ours, theirs = nets.config, known.config
    shared = ('beta', 'decoder', 'levels', 'theta', 'theta_widths')
    if nets.lookup is None or any(getattr(ours, n) != getattr(theirs, n) for n in shared):
        raise InputError(f'{folder} has other widths than the variant {ours.variant}')
    nets.theta.load_state_dict(known.theta.state_dict())
    nets.lookup.load_state_dict(known.lookup.state_dict())
    beta = known.beta.state_dict()
    head = {name: beta.pop(f'head.{name}') for name in ('weight', 'bias')}
    nets.beta.load_state_dict(beta, strict=False)
    _let_through(nets.beta.head)
    _let_through(nets.beta_output.conv.conv)
    nets.beta_output.head.load_state_dict(head)
    decoder = {k: v for k, v in known.decoder.state_dict().items() if not k.startswith('modulator')}
    first = torch.zeros_like(nets.decoder.state_dict()[FIRST])
    first[:, : ours.levels] = decoder[FIRST]
    nets.decoder.load_state_dict(decoder | {FIRST: first})


def _let_through(layer: nn.Conv2d) -> None:
    """Give a convolution the weights that change nothing."""
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)
