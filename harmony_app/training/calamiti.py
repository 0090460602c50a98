"""Train CALAMITI: ``python -m harmony_app.training.calamiti --heads DIR --out DIR``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from harmony_app.nets.anatomy import sample_anatomy
from harmony_app.nets.calamiti import VARIANTS, CalamitiNets
from harmony_app.training import losses
from harmony_app.training.calamiti_draws import HomePhantom, SiteBatch
from harmony_app.training.calamiti_losses import site_likelihood, swap_channels
from harmony_app.training.calamiti_settings import LOOP, Settings
from harmony_app.training.calamiti_start import begin_from
from harmony_app.training.calamiti_validation import example_picture, validate
from harmony_app.training.heads import Head
from harmony_app.training.noise import Noise
from harmony_app.training.script import run_script
from harmony_app.training.slice_batch import ANATOMY
from harmony_app.training.slice_command import slice_parser, train_slices
from harmony_app.training.slice_training import SliceTraining

TERMS = ('reconstruction', 'kl', 'beta', 'adversarial', 'discriminator', 'tissue', 'levels')


class CalamitiTraining(SliceTraining):
    """Networks and losses of CALAMITI.

    Image-to-image translation within a session: anatomy from two contrasts of one slice, their
    channels swapped at random, contrast from another slice of the volume that is to be made.
    The paper makes both scans of the pair; here one scan of the session is drawn, either of the
    two or a third.

    Parameters as of its base; examples are :class:`SiteBatch`.
    """

    method = 'calamiti'
    terms = ('loss', *TERMS)
    fading = ('tissue', 'levels')
    judge = staticmethod(validate)
    show = staticmethod(example_picture)
    settings: Settings

    def make_network(self) -> CalamitiNets:
        """Encoders, decoder and discriminator."""
        return CalamitiNets(VARIANTS[self.settings.variant])

    def make_helpers(self, network: CalamitiNets) -> dict[str, torch.nn.Module]:
        """What theta says of tissues."""
        return {'reader': losses.levels_reader(network.config.theta)}

    @staticmethod
    def phantom(heads: Sequence[Head], settings: Settings, judged: bool) -> HomePhantom:
        """Two contrasts of a slice, a part of them at Site A; without artifacts where judged."""
        return HomePhantom(heads, settings.size, settings.home, artifacts=not judged)

    collate = staticmethod(SiteBatch.join)

    def losses(self, batch: SiteBatch, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, and their weighted sum ``loss``."""
        return self.weighted(self.compute_terms(batch.to(self.device), done), done)

    def weights(self, done: float) -> dict[str, float]:
        """The discriminator has no say while the decoder learns alone."""
        weights = super().weights(done)
        if done < self.settings.warm:
            weights['adversarial'] = 0.0
        return weights

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
        fooled = losses.judged_by_fixed(nets.discriminator, betas, masks)
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

    def begin_from(self, folder: Path) -> None:
        """Start from a model folder of CALAMITI, the discriminator with it, or of HACA3."""
        begin_from(self.network, folder, self.device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    begins = 'model folder to start from, of calamiti or haca3'
    options = slice_parser(__doc__, Settings(), VARIANTS, LOOP, begins).parse_args(arguments)
    settings = Settings(variant=options.variant, size=options.size)
    train_slices(options, LOOP, partial(CalamitiTraining.on_phantom, settings))


if __name__ == '__main__':
    run_script(main)
