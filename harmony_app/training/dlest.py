"""Train the autoencoder of DLEST: ``python -m harmony_app.training.dlest --heads DIR --out DIR``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from harmony_app.errors import InputError
from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import VARIANTS, DlestNets
from harmony_app.training.dlest_draws import PhantomSlices, Slices
from harmony_app.training.dlest_losses import (
    fooling_loss,
    judging_loss,
    latent_error,
    reconstruction,
)
from harmony_app.training.dlest_settings import LOOP, Settings
from harmony_app.training.dlest_validation import example_picture, flattened, validate
from harmony_app.training.heads import Head
from harmony_app.training.script import run_script
from harmony_app.training.slice_command import slice_parser, train_slices
from harmony_app.training.slice_training import SliceTraining

TERMS = ('pixel', 'prior', 'latent', 'judging', 'penalty', 'fooling')
TURNS = 4
"""Steps of a round, see :meth:`DlestTraining.compute_terms`."""


class DlestTraining(SliceTraining):
    """Site-invariant generation (section 3.2.2): F, G, E and D, with no label of any site.

    The reconstruction is learned at every step. The sides of the game, and the latent error, take
    turns as in ALAE (Pidhorskyi 2020), on whole slices. ``source`` gives
    :class:`~harmony_app.training.dlest_draws.Slices`; other parameters are as of the base.
    """

    method = 'dlest'
    terms = ('loss', *TERMS)
    score = 'psnr'
    checks = (8, 2)
    judge = staticmethod(validate)
    show = staticmethod(example_picture)
    collate = staticmethod(Slices.join)

    def make_network(self) -> DlestNets:
        """Networks of the variant, without any energy."""
        return DlestNets(VARIANTS[self.settings.variant])

    @staticmethod
    def phantom(heads: Sequence[Head], settings: Settings, judged: bool) -> PhantomSlices:
        """Slices of heads; those that are judged are drawn alike."""
        return PhantomSlices(heads, settings, VARIANTS[settings.variant].canvas)

    def weights(self, done: float) -> dict[str, float]:
        """Weight of each loss by name, the same all along."""
        settings = self.settings
        return {
            'pixel': settings.pixel,
            'prior': settings.prior,
            'latent': settings.latent,
            'judging': settings.adversarial,
            'penalty': settings.adversarial * settings.penalty / 2,
            'fooling': settings.adversarial,
        }

    def losses(self, batch: Slices, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, 0 out of its turn, and their weighted sum ``loss``."""
        return self.weighted(self.compute_terms(batch.to(self.device), step % TURNS), done)

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

    def begin_from(self, folder: Path) -> None:
        """Start from the networks of a model folder; its energies are of the codes they made."""
        known = Dlest.load(folder, self.device).nets
        if known.config != self.network.config:
            raise InputError(f'{folder} has other widths than the variant {self.settings.variant}')
        kept = {k: v for k, v in known.state_dict().items() if not k.startswith('energies.')}
        self.network.load_state_dict(kept)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = slice_parser(__doc__, Settings(), VARIANTS, LOOP)
    options = parser.parse_args(arguments)
    settings = replace(Settings(), variant=options.variant, size=options.size)

    def begin(heads, held_out, device, seed):
        return DlestTraining.on_phantom(settings, heads, held_out, device, seed)

    train_slices(options, LOOP, begin)


if __name__ == '__main__':
    run_script(main)
