"""Train MISPEL: ``python -m harmony_app.training.mispel --heads DIR --out DIR``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from harmony_app.errors import InputError
from harmony_app.methods.mispel import Mispel
from harmony_app.nets.mispel import VARIANTS, MispelConfig, MispelNets
from harmony_app.phantom.sites import find_sites, load_sites
from harmony_app.training.heads import Head
from harmony_app.training.matched_draws import MatchedBatch, MatchedPhantom
from harmony_app.training.mispel_losses import (
    coupling_loss,
    harmonization_loss,
    reconstruction_loss,
)
from harmony_app.training.mispel_settings import LOOP, Settings
from harmony_app.training.mispel_validation import decode, embed, example_picture, validate
from harmony_app.training.script import run_script
from harmony_app.training.slice_command import slice_parser, train_slices
from harmony_app.training.slice_training import SliceTraining


class MispelTraining(SliceTraining):
    """Networks and losses of MISPEL (section 2.3.2).

    Step 1 fills the first part of the budget: every unit reconstructs its scanner, and the
    embeddings of the scanners are drawn together. In step 2 the encoders are frozen, and the
    decoders make matched slices alike. Only models of step 2 are validated and kept.

    ``source`` draws a :class:`MatchedBatch` of one example, and names the contrast and the scanner
    of each unit in ``units``. Parameters are as of its base.

    Attributes
    ----------
    fitted : tuple of int
        Units that an adaptation fits.
    """

    method = 'mispel'
    terms = ('loss', 'reconstruction', 'coupling', 'harmonization')
    score = 'score'
    checks = (4, 8)
    show = staticmethod(example_picture)
    collate = staticmethod(MatchedBatch.join)
    fitted: tuple[int, ...] = ()
    _embedding = False

    def make_network(self) -> MispelNets:
        """A unit for each contrast and scanner of the source."""
        return MispelNets(MispelConfig.of(self.settings.variant, self.source.units))

    @staticmethod
    def phantom(heads: Sequence[Head], settings: Settings, judged: bool) -> MatchedPhantom:
        """Matched slices of heads; those that judge are drawn no other way."""
        sites = find_sites(settings.sites, load_sites())
        return MatchedPhantom(heads, sites, settings.contrasts, settings.size)

    def describe(self) -> dict:
        """Settings and units, for JSON."""
        return super().describe() | {'networks': self.network.config.to_dict()}

    def losses(self, batch: MatchedBatch, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, not weighted, and ``loss``: that of step 1 or of step 2."""
        settings, batch = self.settings, batch.to(self.device)
        self._embedding = done < settings.embedding
        with torch.set_grad_enabled(self._embedding):
            embeddings = embed(self.network, batch)
        outputs = decode(self.network, batch, embeddings)
        # a batch that shows nothing teaches nothing, and is no error
        nothing = sum(0 * unit.decoder.weight.sum() for unit in self.network.units)
        terms = {
            'reconstruction': reconstruction_loss(outputs, batch.images, batch.seen),
            'coupling': coupling_loss(embeddings, batch.seen),
            'harmonization': harmonization_loss(outputs, batch.seen),
        }
        if self._embedding:
            coupling = settings.coupling * settings.white_matter
            loss = settings.reconstruction * terms['reconstruction'] + coupling * terms['coupling']
        else:
            loss = settings.kept * terms['reconstruction']
            loss = loss + settings.harmonization * terms['harmonization']
        return {'loss': loss + nothing} | terms

    def validate(self, network: MispelNets) -> dict[str, float]:
        """See :func:`harmony_app.training.mispel_validation.validate`; nothing during step 1.

        What is learned there does not harmonize: it is no model to choose.
        """
        if self._check is None or self._embedding:
            return {}
        return validate(network, self.held_out(), self.settings)

    def begin_from(self, folder: Path) -> None:
        """Start from the units of a model folder, see :meth:`fill`."""
        self.fill(Mispel.load(folder, self.device).nets)

    def fill(self, network: MispelNets) -> None:
        """Start from trained units.

        Raises
        ------
        InputError
            Where they are of other scanners or widths.
        """
        if network.config != self.network.config:
            own = ', '.join(f'{s} ({c})' for c, s in self.network.config.units)
            raise InputError(
                f'the model to start from has other units or widths than what there is to learn '
                f'from: {own}; leave out --model, or fit one scanner with --task adapt'
            )
        self.network.load_state_dict(network.state_dict())


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training on the phantom."""
    parser = slice_parser(__doc__, Settings(), VARIANTS, LOOP)
    add = parser.add_argument
    add('--sites', nargs='+', default=Settings.sites, help='scanners of the phantom')
    add('--contrasts', nargs='+', default=Settings.contrasts, help='each has its own units')
    usual = Settings()
    add('--coupling', type=float, default=usual.coupling, help='lambda 2')
    add('--harmonization', type=float, default=usual.harmonization, help='lambda 4')
    add('--embedding', type=float, default=usual.embedding, help='share of the budget of step 1')
    options = parser.parse_args(arguments)
    numbers = ('variant', 'size', 'coupling', 'harmonization', 'embedding')
    named = {name: tuple(getattr(options, name)) for name in ('sites', 'contrasts')}
    settings = Settings(**{name: getattr(options, name) for name in numbers}, **named)
    train_slices(options, LOOP, partial(MispelTraining.on_phantom, settings))


if __name__ == '__main__':
    run_script(main)
