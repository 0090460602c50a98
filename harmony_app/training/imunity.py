"""Train ImUnity: ``python -m harmony_app.training.imunity --heads DIR --out DIR``."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from harmony_app.errors import InputError
from harmony_app.nets.discriminator import Discriminator
from harmony_app.nets.imunity import VARIANTS, ImUnityNets, LatentModule
from harmony_app.training import distributed, losses
from harmony_app.training.base import Training
from harmony_app.training.biology import Feature
from harmony_app.training.crops import check_size
from harmony_app.training.heads import split_heads
from harmony_app.training.imunity_draws import Pair, PhantomPairs, training_sites
from harmony_app.training.imunity_losses import (
    biological_loss,
    confusion_loss,
    latent_divergence,
    realness_loss,
    site_loss,
)
from harmony_app.training.imunity_settings import LOOP, UNLEARNED, Settings
from harmony_app.training.imunity_validation import example_picture, validate
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.noise import Noise
from harmony_app.training.options import add_loop_options, loop_settings
from harmony_app.training.slice_batch import ANATOMY, LEVELS
from harmony_app.training.slice_scores import draw_checks

GENERATOR = ('adversarial', 'confusion', 'biological', 'reconstruction', 'kl')
"""Losses of the generator, with lambda 1 to 5 of equation 4."""

MODULES = ('discriminator', 'sites')
"""Losses of the modules that the generator works against."""

KNOWN = ('tissue', 'levels')
"""Losses of what is known of the phantom."""

CHECKS = (8, 8)
"""Batches of the validation, and slices of each."""

DISCRIMINATOR = (16, 32, 32)
"""Channels of the discriminator; the paper calls it a classical CNN."""


class ImUnityTraining(Training):
    """Networks and losses of ImUnity.

    The paper trains generator, discriminator and module of sites in turn. Here all learn in
    one step, each from its own loss: discriminator and module of sites are given what the
    generator made, and the generator is judged by both as they are.

    Parameters
    ----------
    settings : Settings
    source : object
        ``draw(rng)`` gives a :class:`Pair` of one example.
    check : object, optional
        The same of held-out heads or people; without it nothing is validated.
    sites : sequence of str
        Names of the sites by their numbers; with less than two nothing is unlearned.
    features : sequence of Feature
        What the module of biology learns; there is none without.
    device : str
        Of the networks.
    seed : int
        Of the initial weights.
    """

    terms = ('loss', *GENERATOR, *KNOWN, *MODULES)
    score = 'psnr_all'

    def __init__(
        self,
        settings: Settings,
        source: object,
        check: object | None = None,
        sites: Sequence[str] = (),
        features: Sequence[Feature] = (),
        device: str = 'cpu',
        seed: int = 1,
    ):
        self.settings, self.source, self.device = settings, source, device
        self.sites, self.features = tuple(sites), tuple(features)
        self._check, self._checks = check, None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ImUnityNets(VARIANTS[settings.variant])
            latent = network.config.latent
            theta = network.config.theta if settings.unlearned == 'latent' else 0
            helpers: dict[str, torch.nn.Module] = {
                'discriminator': Discriminator(1, DISCRIMINATOR),
                'levels': torch.nn.Sequential(
                    torch.nn.Linear(network.config.theta, 32),
                    torch.nn.SiLU(),
                    torch.nn.Linear(32, len(LEVELS)),
                ),
            }
            if len(self.sites) > 1:
                helpers['sites'] = LatentModule(latent, len(self.sites), theta)
            if self.features:
                helpers['biology'] = LatentModule(latent, len(self.features))
        # the faster layout for few channels, on the CPU too
        self.network, *moved = (
            module.to(device, memory_format=torch.channels_last)
            for module in (network, *helpers.values())
        )
        self.helpers: Mapping[str, torch.nn.Module] = dict(zip(helpers, moved, strict=True))

    collate = staticmethod(Pair.join)

    def describe(self) -> dict:
        """Settings, for JSON."""
        return asdict(self.settings) | {
            'site_names': list(self.sites),
            'features': [asdict(feature) for feature in self.features],
        }

    def losses(self, batch: Pair, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, and their weighted sum ``loss`` (equation 4)."""
        terms = self.compute_terms(batch.to(self.device))
        weights = asdict(self.settings)
        if done < self.settings.warm:
            weights['adversarial'] = weights['confusion'] = 0.0
        for name in KNOWN:
            weights[name] *= max(0.1, 1 - 0.9 * done / self.settings.tissue_until)
        return {'loss': sum(weights[name] * terms[name] for name in self.terms[1:])} | terms

    def compute_terms(self, batch: Pair) -> dict[str, torch.Tensor]:
        """Every loss on a batch, not weighted, by name."""
        nets, noise = self.network, Noise(batch.seeds, self.device)
        latent, spread = (v.float() for v in nets.anatomy(batch.source, batch.mask))
        mean, log_variance = (v.float() for v in nets.theta(batch.style, batch.style_mask))
        theta = mean + noise.normal(mean.shape[1]) * torch.exp(0.5 * log_variance)
        drawn = latent + noise.normal(*latent.shape[1:]) * torch.exp(0.5 * spread)
        result, logits = nets.decoder(drawn, batch.mask, theta)

        # bright fluid would outweigh all brain: above white matter the error is relative
        importance = batch.mask / batch.target.clamp_min(1.0)
        reconstruction = losses.masked_l1(result, batch.target, importance)
        edges = losses.edge_l1(result, batch.target, importance)
        divergence = latent_divergence(latent, spread, batch.mask)
        judge = self.helpers['discriminator']
        fooled = losses.judged_by_fixed(judge, result, batch.mask)
        learned = 0.5 * (
            realness_loss(*judge(batch.target, batch.mask), real=True)
            + realness_loss(*judge(result.detach(), batch.mask), real=False)
        )
        confusion, sites = self._unlearning(latent, mean, batch)
        return {
            # minus lambda 1 times the loss of the discriminator, of which the half that tells
            # of real images does not depend on the generator
            'adversarial': -0.5 * realness_loss(*fooled, real=False),
            'confusion': confusion,
            'biological': self._biological(latent, batch),
            'reconstruction': reconstruction + self.settings.edges * edges,
            'kl': 0.5 * (divergence + losses.kl_divergence(mean, log_variance)),
            'tissue': self._tissue(logits, batch),
            'levels': losses.levels_error(self.helpers['levels'](mean), batch.levels, batch.known),
            'discriminator': learned,
            'sites': sites,
        }

    def _tissue(self, logits: torch.Tensor | None, batch: Pair) -> torch.Tensor:
        """Cross entropy of the soft levels against the tissues; 0 where there are others or none."""
        if logits is None or logits.shape[1] != len(ANATOMY):
            return batch.mask.new_zeros(())
        known = batch.mask * batch.known[:, None, None, None]
        return losses.soft_cross_entropy(logits.float(), batch.anatomy, known)

    def _unlearning(self, latent, theta, batch: Pair) -> tuple[torch.Tensor, torch.Tensor]:
        """Confusion loss of the encoders and loss of the module of sites."""
        if 'sites' not in self.helpers:
            return latent.new_zeros(()), latent.new_zeros(())
        module = self.helpers['sites']
        given = [latent, batch.mask]
        if self.settings.unlearned == 'latent':
            given.append(theta)
        confused = losses.judged_by_fixed(module, *given)
        told = module(*(value.detach() for value in given))
        return confusion_loss(confused, batch.site), site_loss(told, batch.site)

    def _biological(self, latent, batch: Pair) -> torch.Tensor:
        """Loss of the module of biology, from which the encoder learns with it."""
        if 'biology' not in self.helpers:
            return latent.new_zeros(())
        read = self.helpers['biology'](latent, batch.mask)
        return biological_loss(read, batch.biology, self.features)

    def validate(self, network: ImUnityNets) -> dict[str, float]:
        """See :func:`harmony_app.training.imunity_validation.validate`."""
        if self._check is None:
            return {}
        alone = self.settings.unlearned == 'anatomy'
        return validate(network, self._held_out(), self.helpers.get('sites') if alone else None)

    def picture(self, network: ImUnityNets) -> np.ndarray | None:
        """See :func:`harmony_app.training.imunity_validation.example_picture`."""
        return example_picture(network, self._held_out()[0]) if self._check is not None else None

    def _held_out(self) -> list[Pair]:
        """The same examples each time."""
        if self._checks is None:
            self._checks = draw_checks(self._check, *CHECKS, self.device)
        return self._checks

    def begin_from(self, folder: Path) -> None:
        """Start from the generator of a model folder, discriminator and modules fresh."""
        from harmony_app.methods.imunity import ImUnity

        known = ImUnity.load(folder, self.device).nets
        if known.config != self.network.config:
            raise InputError(f'{folder} has other widths than the variant {self.settings.variant}')
        self.network.load_state_dict(known.state_dict())


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training on the phantom."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--out', type=Path, required=True, help='folder of checkpoint and log')
    parser.add_argument('--size', type=int, default=Settings.size, help='edge of the crops')
    parser.add_argument('--variant', choices=sorted(VARIANTS), default='compact')
    for name in ('adversarial', 'confusion', 'protocols', 'gammas', 'maps'):
        default = getattr(Settings, name)
        parser.add_argument(f'--{name}', type=float, default=default, help='see Settings')
    parser.add_argument('--unlearned', choices=UNLEARNED, default=Settings.unlearned)
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
    settings = Settings(
        variant=options.variant,
        size=options.size,
        adversarial=options.adversarial,
        confusion=options.confusion,
        protocols=options.protocols,
        gammas=options.gammas,
        maps=options.maps,
        unlearned=options.unlearned,
    )
    ranks = distributed.start(options.device)
    device = ranks.device(options.device)
    heads, held_out = split_heads(options.heads, options.seed)
    sites = training_sites()
    source = PhantomPairs(heads, settings, sites)
    check = PhantomPairs(held_out, settings, sites, judged=True) if held_out else None
    training = ImUnityTraining(
        settings, source, check, list(sites), device=device, seed=options.seed
    )
    loop = Loop(training, loop_settings(options, LOOP), options.out, device, ranks)
    loop.resume()
    loop.run()
    distributed.finish()


if __name__ == '__main__':
    main()
