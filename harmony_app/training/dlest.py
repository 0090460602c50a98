"""Train the autoencoder of DLEST: ``python -m harmony_app.training.dlest --heads DIR --out DIR``."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from harmony_app.errors import InputError
from harmony_app.nets.dlest import VARIANTS, DlestNets
from harmony_app.training import distributed
from harmony_app.training.base import Training
from harmony_app.training.crops import check_size
from harmony_app.training.dlest_draws import PhantomSlices, Slices
from harmony_app.training.dlest_losses import (
    fooling_loss,
    judging_loss,
    latent_error,
    reconstruction,
)
from harmony_app.training.dlest_settings import LOOP, Settings
from harmony_app.training.dlest_validation import example_picture, flattened, validate
from harmony_app.training.heads import split_heads
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.options import add_loop_options, loop_settings
from harmony_app.training.slice_scores import draw_checks

TERMS = ('pixel', 'prior', 'latent', 'judging', 'penalty', 'fooling')
TURNS = 4
"""Steps of a round, see :meth:`DlestTraining.compute_terms`."""
CHECKS = (8, 2)
"""Batches of the validation, and examples of each."""


class DlestTraining(Training):
    """Site-invariant generation (section 3.2.2): F, G, E and D, with no label of any site.

    The reconstruction is learned at every step. The sides of the game, and the latent error, take
    turns as in ALAE (Pidhorskyi 2020), on whole slices.

    Parameters
    ----------
    settings : Settings
    source : object
        ``draw(rng)`` gives :class:`~harmony_app.training.dlest_draws.Slices` of one example.
    check : object, optional
        The same of held-out heads or people; without it nothing is validated.
    device : str
        Of the networks.
    seed : int
        Of the initial weights.
    """

    terms = ('loss', *TERMS)
    score = 'psnr'

    def __init__(
        self,
        settings: Settings,
        source: object,
        check: object | None = None,
        device: str = 'cpu',
        seed: int = 1,
    ):
        self.settings, self.source, self.device = settings, source, device
        self._check, self._checks = check, None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = DlestNets(VARIANTS[settings.variant])
        # the faster layout for few channels, on the CPU too
        self.network = network.to(device, memory_format=torch.channels_last)
        self.helpers = {}

    collate = staticmethod(Slices.join)

    def describe(self) -> dict:
        """Settings, for JSON."""
        return asdict(self.settings)

    def losses(self, batch: Slices, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, 0 out of its turn, and their weighted sum ``loss``."""
        settings = self.settings
        terms = self.compute_terms(batch.to(self.device), step % TURNS)
        weights = {
            'pixel': settings.pixel,
            'prior': settings.prior,
            'latent': settings.latent,
            'judging': settings.adversarial,
            'penalty': settings.adversarial * settings.penalty / 2,
            'fooling': settings.adversarial,
        }
        return {'loss': sum(weights[name] * terms[name] for name in TERMS)} | terms

    def compute_terms(self, batch: Slices, turn: int) -> dict[str, torch.Tensor]:
        """Every loss on a batch, not weighted, by name.

        Parameters
        ----------
        batch : Slices
        turn : int
            Whose turn it is: 0 of encoder and discriminator (equation 3), 1 of mapping and
            decoder (equation 4), 2 of encoder and decoder (equation 1), each beside the
            reconstruction of the crops (equation 2); 3 of that of the whole slices.
        """
        nets = self.network
        generator = torch.Generator(self.device).manual_seed(int(batch.seeds[0]))
        terms = dict.fromkeys(TERMS, torch.zeros((), device=self.device))
        if turn == 3:
            return terms | self._reconstructed(batch.whole, torch.ones_like(batch.whole), generator)
        terms |= self._reconstructed(*flattened(batch), generator)
        drawn = nets.mapping.draw(len(batch.whole), generator)
        if turn == 1:
            made = nets.mapping(drawn)
            return terms | {'fooling': fooling_loss(nets, made, self._eta(made, generator))}
        with torch.no_grad():
            made = nets.mapping(drawn)
        eta = self._eta(made, generator)
        if turn == 2:
            return terms | {'latent': latent_error(nets, made, eta)}
        judging, penalty = judging_loss(nets, batch.whole, made, eta)
        return terms | {'judging': judging, 'penalty': penalty}

    def _reconstructed(
        self, images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Error of a reconstruction of noisy codes, and mean square of the codes."""
        code, cells = self.network.encode(images, masks)
        jittered = code + self.settings.jitter * self._noise(code, generator) * cells
        result = self.network.decode(jittered, cells, masks, self._eta(code, generator))
        return {
            'pixel': reconstruction(images, result, masks, self.settings.edges),
            'prior': code.square().sum() / code.shape[1] / cells.sum().clamp_min(1),
        }

    def _noise(self, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, device=self.device)

    def _eta(self, code: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One map of noise for each code; the decoder weighs it for every channel."""
        shape = (len(code), 1, *code.shape[2:])
        return torch.randn(shape, generator=generator, device=self.device)

    def validate(self, network: DlestNets) -> dict[str, float]:
        """See :func:`harmony_app.training.dlest_validation.validate`."""
        return validate(network, self._held_out()) if self._check is not None else {}

    def picture(self, network: DlestNets) -> np.ndarray | None:
        """See :func:`harmony_app.training.dlest_validation.example_picture`."""
        return example_picture(network, self._held_out()[0]) if self._check is not None else None

    def _held_out(self) -> list[Slices]:
        """The same examples each time."""
        if self._checks is None:
            self._checks = draw_checks(self._check, *CHECKS, self.device)
        return self._checks


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--out', type=Path, required=True, help='folder of checkpoint and log')
    parser.add_argument('--size', type=int, default=Settings.size, help='edge of the crops')
    parser.add_argument('--variant', choices=sorted(VARIANTS), default='compact')
    parser.add_argument('--resume', action='store_true', help='continue from the checkpoint')
    parser.add_argument('--device', default='cpu')
    add_loop_options(parser, LOOP)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    check_size(options.size)
    checkpoint = options.out / CHECKPOINT
    if checkpoint.exists() and not options.resume:
        raise InputError(f'{checkpoint} exists: give --resume or another --out')
    if options.resume and not checkpoint.exists():
        raise InputError(f'{checkpoint}: no checkpoint to resume from')
    settings = replace(Settings(), variant=options.variant, size=options.size)
    canvas = VARIANTS[settings.variant].canvas
    ranks = distributed.start(options.device)
    device = ranks.device(options.device)
    heads, held_out = split_heads(options.heads, options.seed)
    source = PhantomSlices(heads, settings, canvas)
    check = PhantomSlices(held_out, settings, canvas) if held_out else None
    training = DlestTraining(settings, source, check, device, options.seed)
    loop = Loop(training, loop_settings(options, LOOP), options.out, device, ranks)
    loop.resume()
    loop.run()
    distributed.finish()


if __name__ == '__main__':
    main()
