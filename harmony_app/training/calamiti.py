"""Train CALAMITI: ``python -m harmony_app.training.calamiti --heads DIR --out DIR``."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from harmony_app.errors import InputError
from harmony_app.nets.anatomy import sample_anatomy
from harmony_app.nets.calamiti import VARIANTS, CalamitiNets
from harmony_app.training import distributed, losses
from harmony_app.training.base import Training
from harmony_app.training.calamiti_draws import HomePhantom, SiteBatch
from harmony_app.training.calamiti_losses import judged_by_fixed, site_likelihood, swap_channels
from harmony_app.training.calamiti_settings import LOOP, Settings
from harmony_app.training.calamiti_start import begin_from
from harmony_app.training.calamiti_validation import example_picture, validate
from harmony_app.training.crops import check_size
from harmony_app.training.heads import split_heads
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.noise import Noise
from harmony_app.training.options import add_loop_options, loop_settings
from harmony_app.training.slice_batch import ANATOMY, LEVELS
from harmony_app.training.slice_scores import draw_checks

TERMS = ('reconstruction', 'kl', 'beta', 'adversarial', 'discriminator', 'tissue', 'levels')
CHECKS = (6, 8)
"""Batches of the validation, and slices of each."""


class CalamitiTraining(Training):
    """Networks and losses of CALAMITI.

    Image-to-image translation within a session: anatomy from two contrasts of one slice, their
    channels swapped at random, contrast from another slice of the volume that is to be made.
    The paper makes both scans of the pair; here one scan of the session is drawn, either of the
    two or a third.

    Parameters
    ----------
    settings : Settings
    source : object
        ``draw(rng)`` gives a :class:`SiteBatch` of one example.
    check : object, optional
        The same of held-out heads or people; without it nothing is validated.
    device : str
        Of the networks.
    seed : int
        Of the initial weights.
    """

    terms = ('loss', *TERMS)
    score = 'psnr_all'

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
            network = CalamitiNets(VARIANTS[settings.variant])
            reader = torch.nn.Sequential(
                torch.nn.Linear(network.config.theta, 32),
                torch.nn.SiLU(),
                torch.nn.Linear(32, len(LEVELS)),
            )
        # the faster layout for few channels, on the CPU too
        self.network = network.to(device, memory_format=torch.channels_last)
        self.helpers = {'reader': reader.to(device)}

    collate = staticmethod(SiteBatch.join)

    def describe(self) -> dict:
        """Settings, for JSON."""
        return asdict(self.settings)

    def losses(self, batch: SiteBatch, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, and their weighted sum ``loss``."""
        terms = self.compute_terms(batch.to(self.device), done)
        weights = asdict(self.settings)
        known = max(0.1, 1 - 0.9 * done / self.settings.tissue_until)
        weights['tissue'] *= known
        weights['levels'] *= known
        if done < self.settings.warm:
            weights['adversarial'] = 0.0
        return {'loss': sum(weights[name] * terms[name] for name in TERMS)} | terms

    def compute_terms(self, batch: SiteBatch, done: float) -> dict[str, torch.Tensor]:
        """Every loss on a batch, not weighted, by name.

        Parameters
        ----------
        batch : SiteBatch
        done : float
            Share of the budget, 0 to 1.
        """
        nets, settings = self.network, self.settings
        count, noise = len(batch.sources), Noise(batch.seeds, self.device)
        images = batch.sources.flatten(0, 1)[:, None]
        masks = batch.source_masks.flatten(0, 1)[:, None]
        logits = nets.logits(images, masks).float()
        temperature = settings.hot + (settings.cold - settings.hot) * done
        uniform = noise.uniform(2, *logits.shape[1:]).flatten(0, 1)
        betas = sample_anatomy(logits, masks, uniform, temperature)
        mean, log_variance = (v.float() for v in nets.theta(batch.style, batch.style_mask))
        theta = mean + noise.normal(mean.shape[1]) * torch.exp(0.5 * log_variance)

        pairs = betas.unflatten(0, (count, 2))
        # only what both show can be swapped
        shown = batch.source_masks.prod(1, keepdim=True)
        swapped = swap_channels(pairs, noise.uniform(logits.shape[1])) * shown
        if done < settings.warm:
            swapped, theta = swapped.detach(), theta.detach()
        result = nets.decode(swapped, shown, theta)
        # bright fluid would outweigh all brain: above white matter the error is relative
        importance = shown / batch.target.clamp_min(1.0)
        reconstruction = losses.masked_l1(result, batch.target, importance)
        edges = losses.edge_l1(result, batch.target, importance)
        both = shown * batch.present.all(1)[:, None, None, None]
        home = batch.home.repeat_interleave(2)
        learning = nets.discriminator(betas.detach(), masks)
        fooled = judged_by_fixed(nets.discriminator, betas, masks)
        return {
            'reconstruction': reconstruction + settings.edges * edges,
            'kl': losses.kl_divergence(mean, log_variance),
            'beta': losses.masked_l1(pairs[:, 0], pairs[:, 1], both),
            'adversarial': site_likelihood(*fooled, home),
            'discriminator': -site_likelihood(*learning, home),
            'tissue': self._tissue_loss(logits, masks, batch),
            'levels': losses.levels_error(
                self.helpers['reader'](mean), batch.levels[:, 2], batch.known
            ),
        }

    def _tissue_loss(self, logits, masks, batch: SiteBatch) -> torch.Tensor:
        """Cross entropy against the tissues; 0 for an anatomy of other levels than theirs."""
        if logits.shape[1] != len(ANATOMY):
            return logits.new_zeros(())
        known = batch.known.repeat_interleave(2)[:, None, None, None]
        return losses.soft_cross_entropy(
            logits, batch.anatomy.repeat_interleave(2, dim=0), masks * known
        )

    def validate(self, network: CalamitiNets) -> dict[str, float]:
        """See :func:`harmony_app.training.calamiti_validation.validate`."""
        return validate(network, self._held_out()) if self._check is not None else {}

    def picture(self, network: CalamitiNets) -> np.ndarray | None:
        """See :func:`harmony_app.training.calamiti_validation.example_picture`."""
        return example_picture(network, self._held_out()[0]) if self._check is not None else None

    def _held_out(self) -> list[SiteBatch]:
        """The same examples each time."""
        if self._checks is None:
            self._checks = draw_checks(self._check, *CHECKS, self.device)
        return self._checks

    def begin_from(self, folder: Path) -> None:
        """Start from a model folder of CALAMITI, the discriminator with it, or of HACA3."""
        begin_from(self.network, folder, self.device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--out', type=Path, required=True, help='folder of checkpoint and log')
    parser.add_argument('--size', type=int, default=Settings.size, help='edge of the crops')
    parser.add_argument('--variant', choices=sorted(VARIANTS), default='compact')
    parser.add_argument(
        '--begin-from', type=Path, help='model folder to start from, of calamiti or haca3'
    )
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
    settings = Settings(variant=options.variant, size=options.size)
    ranks = distributed.start(options.device)
    device = ranks.device(options.device)
    heads, held_out = split_heads(options.heads, options.seed)
    source = HomePhantom(heads, options.size, settings.home)
    check = HomePhantom(held_out, options.size, settings.home, False) if held_out else None
    training = CalamitiTraining(settings, source, check, device, options.seed)
    if options.begin_from:
        training.begin_from(options.begin_from)
    loop = Loop(training, loop_settings(options, LOOP), options.out, device, ranks)
    loop.resume()
    loop.run()
    distributed.finish()


if __name__ == '__main__':
    main()
