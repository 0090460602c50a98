"""Train ImUnity: ``python -m harmony_app.training.imunity --heads DIR --out DIR``."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import torch

from harmony_app.nets.discriminator import Discriminator
from harmony_app.nets.imunity import VARIANTS, ImUnityNets, LatentModule
from harmony_app.training import losses
from harmony_app.training.biology import Feature
from harmony_app.training.distributed import joint
from harmony_app.training.heads import Head
from harmony_app.training.imunity_draws import Pair, PhantomPairs, training_sites
from harmony_app.training.imunity_losses import (
    biological_loss,
    confusion_loss,
    latent_divergence,
    realness_loss,
    site_loss,
)
from harmony_app.training.imunity_settings import LOOP, UNLEARNED, Settings
from harmony_app.training.imunity_sites import SiteModule
from harmony_app.training.imunity_validation import example_picture, validate
from harmony_app.training.noise import Noise
from harmony_app.training.script import run_script
from harmony_app.training.slice_batch import ANATOMY
from harmony_app.training.slice_command import slice_parser, train_slices
from harmony_app.training.slice_training import SliceTraining

GENERATOR = ('adversarial', 'confusion', 'biological', 'reconstruction', 'kl')
"""Losses of the generator, with lambda 1 to 5 of equation 4."""

MODULES = ('discriminator', 'sites')
"""Losses of the modules that the generator works against."""

KNOWN = ('tissue', 'levels')
"""Losses of what is known of the phantom."""

DISCRIMINATOR = (16, 32, 32)
"""Channels of the discriminator; the paper calls it a classical CNN."""

ASKED = (
    'adversarial',
    'confusion',
    'protocols',
    'gammas',
    'maps',
    'sited',
    'slices',
    'kept',
    'reread',
    't1w',
    'unlearned',
)
"""Settings that the command line takes beside those of all trainings on slices."""


class ImUnityTraining(SliceTraining):
    """Networks and losses of ImUnity.

    The paper trains generator, discriminator and module of sites in turn. Here all learn in
    one step, each from its own loss: discriminator and module of sites are given what the
    generator made, and the generator is judged by both as they are.

    Parameters as of its base; examples are :class:`Pair`.

    Parameters
    ----------
    sites : sequence of str
        Names of the sites by their numbers; with less than two nothing is unlearned.
    features : sequence of Feature
        What the module of biology learns; there is none without.
    """

    method = 'imunity'
    terms = ('loss', *GENERATOR, *KNOWN, *MODULES)
    fading = KNOWN
    checks = (8, 8)
    judge = staticmethod(validate)
    show = staticmethod(example_picture)
    settings: Settings

    def __init__(
        self,
        settings: Settings,
        source: object,
        check: object | None = None,
        device: str = 'cpu',
        seed: int = 1,
        *,
        sites: Sequence[str] = (),
        features: Sequence[Feature] = (),
    ):
        self.sites, self.features = tuple(sites), tuple(features)
        super().__init__(settings, source, check, device, seed)

    def make_network(self) -> ImUnityNets:
        """The generator."""
        return ImUnityNets(VARIANTS[self.settings.variant])

    def make_helpers(self, network: ImUnityNets) -> dict[str, torch.nn.Module]:
        """Discriminator, module of sites and module of biology, and what theta says of tissues."""
        settings, config = self.settings, network.config
        helpers: dict[str, torch.nn.Module] = {'reader': losses.levels_reader(config.theta)}
        if settings.adversarial or settings.discriminator:
            helpers['discriminator'] = Discriminator(1, DISCRIMINATOR)
        if len(self.sites) > 1:
            theta = config.theta if settings.unlearned == 'latent' else 0
            shape = (settings.size, settings.slices, theta, settings.kept)
            helpers['sites'] = SiteModule(config.latent, len(self.sites), *shape)
        if self.features:
            helpers['biology'] = LatentModule(config.latent, len(self.features))
        return helpers

    @staticmethod
    def phantom(heads: Sequence[Head], settings: Settings, judged: bool) -> PhantomPairs:
        """Two slices of a head; nothing is altered or cut off where judged."""
        return PhantomPairs(heads, settings, training_sites(), judged)

    @classmethod
    def on_phantom(
        cls,
        settings: Settings,
        heads: Sequence[Head],
        held_out: Sequence[Head],
        device: str = 'cpu',
        seed: int = 1,
    ) -> 'ImUnityTraining':
        """The training on heads of the phantom alone, at its sites."""
        source = cls.phantom(heads, settings, judged=False)
        check = cls.phantom(held_out, settings, judged=True) if held_out else None
        return cls(settings, source, check, device, seed, sites=list(training_sites()))

    collate = staticmethod(Pair.join)

    def describe(self) -> dict:
        """Settings, sites and features, for JSON."""
        features = [asdict(feature) for feature in self.features]
        return super().describe() | {'site_names': list(self.sites), 'biology': features}

    def losses(self, batch: Pair, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, and their weighted sum ``loss`` (equation 4)."""
        return self.weighted(self.compute_terms(batch.to(self.device)), done)

    def weights(self, done: float) -> dict[str, float]:
        """Discriminator and module of sites learn before the generator hears of them."""
        weights = super().weights(done)
        if done < self.settings.warm:
            weights['adversarial'] = weights['confusion'] = 0.0
        return weights

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
        read = self.helpers['reader'](mean)
        return {
            'reconstruction': reconstruction + self.settings.edges * edges,
            'kl': 0.5 * (divergence + losses.kl_divergence(mean, log_variance)),
            'biological': self._biological(latent, batch),
            'tissue': self._tissue(logits, batch),
            'levels': losses.levels_error(read, batch.levels, batch.known),
            **self._adversarial(result, batch),
            **self._unlearning(batch),
        }

    def _adversarial(self, result: torch.Tensor, batch: Pair) -> dict[str, torch.Tensor]:
        """Loss of the discriminator, and what the generator pays for images that it sees through.

        Equation 4 has minus the loss of the discriminator, which has no lower bound: in one
        training the generator ran away for it. That made images pass as real instead has the
        same optimum and its gradient does not fade (Goodfellow 2014, section 3).
        """
        zero = result.new_zeros(())
        if 'discriminator' not in self.helpers:
            return {'adversarial': zero, 'discriminator': zero}
        judge = self.helpers['discriminator']
        fooled = losses.judged_by_fixed(judge, result, batch.mask)
        real = realness_loss(*judge(batch.target, batch.mask), real=True)
        made = realness_loss(*judge(result.detach(), batch.mask), real=False)
        return {
            'adversarial': 0.5 * realness_loss(*fooled, real=True),
            'discriminator': 0.5 * (real + made),
        }

    def _unlearning(self, batch: Pair) -> dict[str, torch.Tensor]:
        """Loss of the module of sites on all scans that it keeps, and confusion loss of the encoders.

        The encoders are confused on some of them, encoded anew, so that they have many scans a
        step to learn from.
        """
        zero = batch.source.new_zeros(())
        if 'sites' not in self.helpers:
            return {'confusion': zero, 'sites': zero}
        nets, module = self.network, self.helpers['sites']
        seeds = joint(batch.seeds).tolist()
        chosen = module.choose(module.add(batch), self.settings.reread, seeds)
        if not len(chosen):  # no scan so far is of a named site
            return {'confusion': zero, 'sites': zero}
        images, masks = (v[chosen].flatten(0, 1).float() for v in (module.images, module.masks))
        latent = nets.anatomy(images, masks)[0].float()
        theta = nets.theta(images, masks)[0] if self.settings.unlearned == 'latent' else None
        read = module.statistics(latent, masks, theta)
        module.read[chosen] = read.detach()
        confused = losses.judged_by_fixed(module, read, module.contrasts[chosen])
        told = module(module.read, module.contrasts)
        return {
            'confusion': confusion_loss(confused, module.sites[chosen]),
            'sites': site_loss(told, module.sites),
        }

    def _biological(self, latent: torch.Tensor, batch: Pair) -> torch.Tensor:
        """Loss of the module of biology, from which the encoder learns with it."""
        if 'biology' not in self.helpers:
            return latent.new_zeros(())
        read = self.helpers['biology'](latent, batch.mask)
        return biological_loss(read, batch.biology, self.features)

    def _tissue(self, logits: torch.Tensor | None, batch: Pair) -> torch.Tensor:
        """Cross entropy of the soft levels against the tissues; 0 where there are others or none."""
        if logits is None or logits.shape[1] != len(ANATOMY):
            return batch.mask.new_zeros(())
        known = batch.mask * batch.known[:, None, None, None]
        return losses.soft_cross_entropy(logits.float(), batch.anatomy, known)

    def validate(self, network: ImUnityNets) -> dict[str, float]:
        """Metrics of the held-out examples; the module of sites where it reads anatomy alone."""
        if self._check is None:
            return {}
        alone = self.settings.unlearned == 'anatomy'
        module = self.helpers.get('sites') if alone else None
        return validate(network, self.held_out(), module)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = slice_parser(__doc__, Settings(), VARIANTS, LOOP)
    usual, add = Settings(), parser.add_argument
    add('--adversarial', type=float, default=usual.adversarial, help='lambda 1')
    add('--confusion', type=float, default=usual.confusion, help='lambda 2; 0 unlearns no site')
    add('--protocols', type=float, default=usual.protocols, help='share at another protocol')
    add('--gammas', type=float, default=usual.gammas, help='share altered by a gamma')
    add('--maps', type=float, default=usual.maps, help='share altered by a random map')
    add('--sited', type=float, default=usual.sited, help='share whose site is named')
    add('--slices', type=int, default=usual.slices, help='of a scan, for the module of sites')
    add('--kept', type=int, default=usual.kept, help='scans that the module of sites keeps')
    add('--reread', type=int, default=usual.reread, help='of them, encoded anew a step')
    add('--t1w', type=float, default=usual.t1w, help='share of T1w')
    add('--unlearned', choices=UNLEARNED, default=usual.unlearned, help='what loses the site')
    options = parser.parse_args(arguments)
    settings = replace(
        usual, **{name: getattr(options, name) for name in ('variant', 'size', *ASKED)}
    )
    train_slices(options, LOOP, partial(ImUnityTraining.on_phantom, settings))


if __name__ == '__main__':
    run_script(main)
