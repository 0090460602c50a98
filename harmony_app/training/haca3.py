"""Train HACA3 on phantom slices: ``python -m harmony_app.training.haca3 --heads DIR --out DIR``."""

from collections.abc import Sequence

import torch

from harmony_app.nets.anatomy import sample_anatomy
from harmony_app.nets.haca3 import VARIANTS, Haca3Nets
from harmony_app.training import distributed, losses
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.haca3_validation import example_picture, validate
from harmony_app.training.heads import Head
from harmony_app.training.noise import Noise
from harmony_app.training.script import run_script
from harmony_app.training.slice_batch import Batch
from harmony_app.training.slice_command import slice_parser, train_slices
from harmony_app.training.slice_settings import LOOP
from harmony_app.training.slice_training import SliceTraining
from harmony_app.training.slices import SliceSampler

TERMS = ('reconstruction', 'kl', 'anatomy', 'artifact', 'cycle', 'tissue', 'levels', 'attention')


class Haca3Training(SliceTraining):
    """Networks and losses of HACA3; parameters as of its base, examples are :class:`Batch`."""

    method = 'haca3'
    terms = ('loss', *TERMS)
    fading = ('tissue', 'levels')
    judge = staticmethod(validate)
    show = staticmethod(example_picture)
    settings: Settings
    _only_eta = False

    def make_network(self) -> Haca3Nets:
        """Encoders, attention and decoder."""
        return Haca3Nets(VARIANTS[self.settings.variant])

    def make_helpers(self, network: Haca3Nets) -> dict[str, torch.nn.Module]:
        """Features of patches, and what theta says of tissues."""
        return {
            'patchifier': losses.Patchifier(),
            'reader': losses.levels_reader(network.config.theta),
        }

    @staticmethod
    def phantom(heads: Sequence[Head], settings: Settings, judged: bool) -> SliceSampler:
        """Any two contrasts of a slice; without artifacts where judged."""
        return SliceSampler(heads, settings.size, artifacts=not judged)

    collate = staticmethod(Batch.join)

    def losses(self, batch: Batch, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, and their weighted sum ``loss``."""
        batch, settings = batch.to(self.device), self.settings
        self._only_eta = done < settings.eta_first
        if self._only_eta:
            artifact = self._eta_alone(batch)
            silent = dict.fromkeys(TERMS, torch.zeros_like(artifact))
            return {'loss': artifact} | silent | {'artifact': artifact}
        done = (done - settings.eta_first) / max(1e-9, 1 - settings.eta_first)
        return self.weighted(self.compute_terms(batch, step, done), done)

    def _eta_alone(self, batch: Batch) -> torch.Tensor:
        """What eta learns from, and no other network."""
        count = len(batch.sources)
        etas = self.network.eta(
            torch.cat(
                [batch.sources.flatten(0, 1)[:, None], batch.clean, batch.mild, batch.severe]
            ),
            torch.cat([batch.views[:, :2].flatten(0, 1)[:, None], *[batch.views[:, 2:]] * 3]),
        ).float()
        sources, *artifacts = etas.split([2 * count, *[count] * 3])
        return losses.severity_loss(*artifacts, batch.severity) + losses.graded_loss(
            sources, batch.source_severity.flatten()
        )

    def compute_terms(self, batch: Batch, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss on a batch, not weighted, by name.

        Parameters
        ----------
        batch : Batch
        step : int
            Steps before this one.
        done : float
            Share of the budget after eta's own part, 0 to 1.
        """
        nets, settings = self.network, self.settings
        count, noise = len(batch.sources), Noise(batch.seeds, self.device)
        images = batch.sources.flatten(0, 1)[:, None]
        masks = batch.source_masks.flatten(0, 1)[:, None]
        logits = nets.logits(images, masks).float()
        betas = sample_anatomy(logits, masks, noise.uniform(2, *logits.shape[1:]).flatten(0, 1))
        source_theta = nets.theta(images, masks)[0].float()
        # artifacts are learned in every other step, with twice the weight: they cost the most slices
        extra = [batch.clean, batch.mild, batch.severe] if step % 2 == 0 else []
        etas = nets.eta(
            torch.cat([images, batch.style, *extra]),
            torch.cat(
                [
                    batch.views[:, :2].flatten(0, 1)[:, None],
                    *[batch.views[:, 2:]] * (1 + len(extra)),
                ]
            ),
        ).float()
        source_eta, target_eta, *artifacts = etas.split([2 * count, *[count] * (1 + len(extra))])
        artifact = losses.graded_loss(source_eta, batch.source_severity.flatten())
        if artifacts:
            artifact = artifact + 2 * losses.severity_loss(*artifacts, batch.severity)
        mean, log_variance = (v.float() for v in nets.theta(batch.style, batch.style_mask))
        theta = mean + noise.normal(mean.shape[1]) * torch.exp(0.5 * log_variance)

        sources = torch.cat([source_theta, source_eta], dim=1).unflatten(0, (count, 2))
        present = self._dropout(batch.present, noise)
        weights = nets.attention(torch.cat([theta, target_eta], dim=1), sources, present)
        levels = betas.unflatten(0, (count, 2))
        warm = done < settings.warm
        given = levels.detach() if warm else levels
        fused, union = nets.fuse(given, weights, batch.source_masks[:, :, None])
        if warm and step % 2:
            true = batch.anatomy == batch.anatomy.amax(dim=1, keepdim=True)
            known = batch.known[:, None, None, None] > 0
            fused = torch.where(known, true.to(fused.dtype) * union, fused)
        # a decoder that knows nothing yet would only drag theta along
        result = nets.decode(fused, union, theta.detach() if warm else theta)

        # bright fluid would outweigh all brain: above white matter the error is relative
        importance = union / batch.target.clamp_min(1.0)
        reconstruction = losses.masked_l1(result, batch.target, importance)
        edges = losses.edge_l1(result, batch.target, importance)
        cycle = (nets.theta(result, union)[0] - mean.detach()).abs().mean()
        cycle = cycle + (nets.eta(result, union) - target_eta.detach()).abs().mean()
        if step % settings.inter_every == 0 and len(distributed.joint(mean)) > 1:
            again = noise.uniform(*logits.shape[1:])
            cycle = cycle + self._between_sites(
                mean, target_eta, sources, present, levels, batch, again
            )
        return {
            'reconstruction': reconstruction + settings.edges * edges,
            'kl': losses.kl_divergence(mean, log_variance),
            'anatomy': self._anatomy_loss(levels, batch),
            'artifact': artifact,
            'cycle': cycle,
            'tissue': losses.soft_cross_entropy(
                logits,
                batch.anatomy.repeat_interleave(2, dim=0),
                masks * batch.known.repeat_interleave(2)[:, None, None, None],
            ),
            'levels': self._levels_loss(torch.cat([source_theta, mean]), batch),
            'attention': self._attention_loss(
                torch.cat([theta, target_eta], dim=1), sources, logits, batch
            ),
        }

    def _attention_loss(self, target, sources, logits, batch: Batch) -> torch.Tensor:
        """Cross entropy of the attention against how well each source explains the tissues.

        Ours. The reconstruction tells the attention little, for a decoder makes do with either
        source. Only the attention learns here: theta, eta and anatomy are given.
        """
        explained = losses.tissue_fit(
            logits.detach().unflatten(0, (len(batch.sources), 2)), batch.anatomy, batch.source_masks
        )
        weights = self.network.attention(target.detach(), sources.detach(), batch.present)
        counted = batch.known * batch.present.all(1)
        return losses.attention_loss(weights.float(), explained, counted)

    def _dropout(self, present: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Which sources count, shape (B, 2), bool; at least one of each pair."""
        draws = noise.uniform(2)
        dropped = (draws[:, :1] < self.settings.dropout) & present.all(1, keepdim=True)
        second = draws[:, 1:] < 0.5
        return present & ~torch.cat([dropped & second, dropped & ~second], dim=1)

    def _between_sites(self, theta, eta, sources, present, levels, batch, uniform) -> torch.Tensor:
        """Cycle with the target of another subject and site: its theta and eta, our anatomy."""
        theta, eta = distributed.neighbours(theta), distributed.neighbours(eta)
        weights = self.network.attention(torch.cat([theta, eta], 1), sources, present)
        fused, union = self.network.fuse(levels, weights, batch.source_masks[:, :, None])
        result = self.network.decode(fused, union, theta)
        logits = self.network.logits(result, union).float()
        again = sample_anatomy(logits, union, uniform)
        return (
            (self.network.theta(result, union)[0] - theta).abs().mean()
            + (self.network.eta(result, union) - eta).abs().mean()
            + 0.5 * losses.masked_l1(again, fused.detach(), union)
        )

    def _anatomy_loss(self, levels: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Contrastive loss of the patches of both anatomies, each as query once."""
        count = levels.shape[2]
        ramp = torch.arange(1, count + 1, device=levels.device, dtype=levels.dtype) / count
        maps = torch.einsum('bslhw,l->bshw', levels, ramp)
        stacked = torch.cat([maps, batch.sources * batch.source_masks], dim=1)
        patchifier = self.helpers['patchifier']
        features = patchifier(stacked.flatten(0, 1)[:, None]).unflatten(0, stacked.shape[:2])
        features = features.float()
        both = batch.source_masks.prod(1, keepdim=True)
        inside = torch.nn.functional.avg_pool2d(both, patchifier.patch).flatten(1) > 0.3
        inside = inside & batch.present.all(1, keepdim=True)
        # the images are what anatomy must not resemble, so they are not to move towards it
        images = features[:, 2:].detach()
        return 0.5 * (
            losses.patch_contrast(features[:, 0], features[:, 1], images, inside)
            + losses.patch_contrast(features[:, 1], features[:, 0], images, inside)
        )

    def _levels_loss(self, theta: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Error of the tissue intensities read off theta, of examples where they are known."""
        looks = torch.cat([batch.levels[:, :2].flatten(0, 1), batch.levels[:, 2]])
        known = torch.cat([batch.known.repeat_interleave(2), batch.known])
        return losses.levels_error(self.helpers['reader'](theta), looks, known)

    def validate(self, network: Haca3Nets) -> dict[str, float]:
        """Metrics of the held-out examples; nothing in eta's own part.

        What was not trained yet, or was trained before, is not to be the best of this training.
        """
        return {} if self._only_eta else super().validate(network)

    def learn_only(self, name: str) -> None:
        """Let one network learn; all others, and the helpers, stay as they are."""
        for module in (self.network, *self.helpers.values()):
            module.requires_grad_(False)
        getattr(self.network, name).requires_grad_(True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = slice_parser(
        __doc__, Settings(), VARIANTS, LOOP, 'model folder to start from; no warm-up then'
    )
    parser.add_argument(
        '--eta-first',
        type=float,
        help='share of the budget in which eta learns alone; none where begun from a model',
    )
    parser.add_argument(
        '--only', choices=('attention', 'eta'), help='network that learns; all others stay'
    )
    options = parser.parse_args(arguments)
    shares = {'warm': 0.0, 'eta_first': 0.0} if options.begin_from else {}
    if options.eta_first is not None:
        shares['eta_first'] = options.eta_first
    settings = Settings(variant=options.variant, size=options.size, **shares)

    def begin(heads, held_out, device, seed):
        training = Haca3Training.on_phantom(settings, heads, held_out, device, seed)
        if options.only:
            training.learn_only(options.only)
        return training

    train_slices(options, LOOP, begin)


if __name__ == '__main__':
    run_script(main)
