"""The losses of DLEST (Wu 2024, equations 1 to 10)."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.dlest import DlestNets
from harmony_app.nets.energy import langevin
from harmony_app.training import losses
from harmony_app.training.dlest_sites import Translations

CYCLED = 4
"""One example in as many goes the way back too, which costs as much as the way there."""


def reconstruction(
    images: torch.Tensor, result: torch.Tensor, mask: torch.Tensor, edges: float
) -> torch.Tensor:
    """L1 of slices and their reconstruction (equation 2), with a share of that of their edges.

    Above white matter the error is relative: bright fluid would outweigh all brain.

    Parameters
    ----------
    images, result, mask : Tensor, shape (B, 1, H, W)
    edges : float
        Share of the edges.
    """
    importance = mask / images.clamp_min(1.0)
    return losses.masked_l1(result, images, importance) + edges * losses.edge_l1(
        result, images, importance
    )


def latent_error(nets: DlestNets, made: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Error of codes that were made from noise, decoded and encoded again (equation 1).

    Parameters
    ----------
    nets : DlestNets
        Its encoder and decoder learn.
    made : Tensor, shape (B, C, h, w)
        F(z), without a gradient.
    noise : Tensor
        eta of the decoder.
    """
    again, _ = nets.encode(*_decoded(nets, made, noise))
    return (again - made).square().mean()


def judging_loss(
    nets: DlestNets, real: torch.Tensor, made: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What encoder and discriminator lower (equation 3), and their gradient penalty.

    Parameters
    ----------
    nets : DlestNets
    real : Tensor, shape (B, 1, H, W)
        Whole slices.
    made, noise : Tensor
        As for :func:`latent_error`.

    Returns
    -------
    loss, penalty : Tensor, shape ()
        The penalty is the mean squared gradient of the judgement of real slices with respect to
        their pixels, as in ALAE (Pidhorskyi 2020).
    """
    real = real.detach().requires_grad_(True)
    mask = torch.ones_like(real)
    judged = nets.discriminator(*nets.encode(real, mask))
    (slope,) = torch.autograd.grad(judged.sum(), real, create_graph=True)
    with torch.no_grad():
        image, ones = _decoded(nets, made, noise)
    invented = nets.discriminator(*nets.encode(image, ones))
    loss = functional.softplus(invented).mean() + functional.softplus(-judged).mean()
    return loss, slope.square().sum((1, 2, 3)).mean()


def fooling_loss(nets: DlestNets, made: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What mapping and decoder lower (equation 4); encoder and discriminator do not learn of it.

    Parameters
    ----------
    nets : DlestNets
    made : Tensor, shape (B, C, h, w)
        F(z), with its gradient.
    noise : Tensor
        eta of the decoder.
    """
    image, ones = _decoded(nets, made, noise)
    with fixed(nets.encoder), fixed(nets.discriminator):
        return functional.softplus(-nets.discriminator(*nets.encode(image, ones))).mean()


def _decoded(nets: DlestNets, made: torch.Tensor, noise: torch.Tensor):
    """Slices of whole codes, and their mask."""
    ones = torch.ones((len(made), 1, *nets.config.canvas), device=made.device)
    return nets.decode(made, torch.ones_like(made[:, :1]), ones, noise), ones


@contextmanager
def fixed(module: nn.Module):
    """Weights that learn nothing of what is computed here; what goes through them does."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def translation_terms(
    nets: DlestNets,
    key: str,
    batch: Translations,
    generator: torch.Generator,
    edges: float,
) -> dict[str, torch.Tensor]:
    """Every loss of an energy (equations 6, 8 and 9), not weighted, by name.

    All reach the weights of the energy: content, cycle and truth through the steps of the chain.

    Parameters
    ----------
    nets : DlestNets
        Encoder and decoder do not learn.
    key : str
        Of the energy.
    batch : Translations
    generator : torch.Generator
        Of the noise of the chains.
    edges : float
        Share of the edges in ``truth``.

    Returns
    -------
    dict of str to Tensor, shape ()
        ``energy``, ``content``, ``cycle``, ``regular``, ``truth``.
    """
    energy, chain = nets.energies[key], nets.config.chain
    with fixed(nets.encoder), fixed(nets.decoder):
        with torch.no_grad():
            source, cells = nets.encode(batch.source, batch.source_mask)
            target, there = nets.encode(batch.target, batch.target_mask)
        moved = langevin(energy, source, cells, chain, generator, create_graph=True)
        image = nets.decode(moved, cells, batch.source_mask)
        few = slice(0, -(-len(image) // CYCLED))
        code, _ = nets.encode(image[few], batch.source_mask[few])
        back = langevin(energy, code, cells[few], chain, generator, uphill=True, create_graph=True)
    low = energy(target, there) / there.sum((1, 2, 3)).clamp_min(1)
    high = energy(moved.detach(), cells) / cells.sum((1, 2, 3)).clamp_min(1)
    known = batch.source_mask * batch.known[:, None, None, None]
    return {
        'energy': low.mean() - high.mean(),
        'regular': (low.square() + high.square()).mean(),
        'content': _code_error(source, moved, cells),
        'cycle': _code_error(source[few], back, cells[few]),
        'truth': reconstruction(batch.truth, image, known, edges),
    }


def _code_error(one: torch.Tensor, other: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of codes over the cells that are shown."""
    return (one - other).abs().mean(1, keepdim=True).sum() / cells.sum().clamp_min(1)
