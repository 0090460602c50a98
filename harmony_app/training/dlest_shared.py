"""An energy of no site, that those of new sites begin as: any scanner to any other.

In the paper the energy of a site is fitted to about a hundred slices of it (Wu 2024,
section 3.2.3). Slices of one site say what it looks like, and little of how far the codes of
others have to go. Here one energy sees what the slices of a site look like
(:class:`~harmony_app.nets.energy.EnergyNet`, ``told``) and learns on the phantom, where any head
can be scanned anywhere, how far that is.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.dlest import SHARED, DlestNets
from harmony_app.nets.energy import langevin
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.dlest_energy import add_trained_energies
from harmony_app.training.dlest_settings import SharedSettings
from harmony_app.training.heads import Head
from harmony_app.training.slice_batch import Drawn
from harmony_app.training.slice_scores import draw_checks, slice_scores
from harmony_app.training.slices import SliceDraw, SliceSampler, blur, draw_look

TERMS = ('truth', 'energy', 'regular')
CHECKS = (4, 8)
"""Batches of the validation, and examples of each."""


@dataclass(frozen=True)
class Pairs(Drawn):
    """Draws for one step, float32 and (B, 1, H, W) unless said.

    Parameters
    ----------
    source, source_mask : Tensor
        A slice of some scanner, and the head or brain in it.
    truth : Tensor
        The same at another scanner, without noise.
    targets, target_masks : Tensor, shape (B, K, H, W)
        Slices of others at the other scanner.
    seeds : Tensor, shape (B,), int64
        Of the noise of the chain.
    """

    source: torch.Tensor
    source_mask: torch.Tensor
    truth: torch.Tensor
    targets: torch.Tensor
    target_masks: torch.Tensor
    seeds: torch.Tensor


class PhantomPairs(SliceSampler):
    """Draws slices of heads at one scanner, and what they and others are at another.

    Parameters
    ----------
    heads : sequence of Head
    settings : SharedSettings
    """

    def __init__(self, heads: Sequence[Head], settings: SharedSettings):
        super().__init__(heads, settings.size)
        self.settings = settings

    def draw(self, rng: np.random.Generator) -> Pairs:
        """Draw a batch of one example."""
        contrast = 'T1w'
        if rng.random() >= self.settings.t1w:
            contrast = CONTRASTS[1 + int(rng.integers(len(CONTRASTS) - 1))]
        person = int(rng.integers(2**62))
        here, there = (draw_look(contrast, rng, person) for _ in range(2))
        images, masks, truth = [], [], None
        for index in range(1 + self.settings.shown):
            draw = SliceDraw(self, rng)
            fractions, mask = draw.shown()
            look = there if index else here
            images.append(draw.scan(look, look.render(fractions)) * mask)
            masks.append(mask)
            if truth is None:
                truth = blur(there.render(fractions), 0.3) * mask
        drawn = {
            'source': images[:1],
            'source_mask': masks[:1],
            'truth': [truth],
            'targets': images[1:],
            'target_masks': masks[1:],
        }
        return Pairs.of(
            {name: np.stack(image).astype(np.float32) for name, image in drawn.items()}
            | {'seeds': rng.integers(2**62)}
        )


@dataclass(frozen=True)
class Codes(Drawn):
    """Codes of draws: of sources, of what they become, and of K slices each of the target's site.

    Parameters
    ----------
    source, cells, truth : Tensor, shape (B, C, h, w)
        ``cells`` has one channel.
    target, there : Tensor, shape (B, K, C, h, w)
        Codes and their masks.
    """

    source: torch.Tensor
    cells: torch.Tensor
    truth: torch.Tensor
    target: torch.Tensor
    there: torch.Tensor

    @classmethod
    def encoded(cls, nets: DlestNets, batch: Pairs) -> 'Codes':
        """Of draws, without a gradient."""
        shown = batch.targets.shape[:2]
        with torch.no_grad():
            source, cells = nets.encode(batch.source, batch.source_mask)
            truth, _ = nets.encode(batch.truth, batch.source_mask)
            target, there = nets.encode(
                *(x.flatten(0, 1)[:, None] for x in (batch.targets, batch.target_masks))
            )
        return cls(source, cells, truth, *(x.unflatten(0, shown) for x in (target, there)))


class SharedEnergyTraining(Training):
    """The energy of no site; the autoencoder is not touched.

    A draw costs as much as its part of a step, so codes of the last draws are learned from again.
    A training that is resumed begins without them.

    Parameters
    ----------
    nets : DlestNets
        A copy of it is trained, with this energy alone.
    source : object
        ``draw(rng)`` gives :class:`Pairs`.
    settings : SharedSettings
    check : object, optional
        As ``source``, of held-out heads; without it nothing is validated.
    device : str
    seed : int
        Of the weights.

    Raises
    ------
    ValueError
        Where the energies of the networks see nothing of a site.
    """

    terms = ('loss', *TERMS)
    score = 'psnr'

    def __init__(
        self,
        nets: DlestNets,
        source: object,
        settings: SharedSettings,
        check: object | None = None,
        device: str = 'cpu',
        seed: int = 1,
    ):
        if not nets.config.told:
            raise ValueError('an energy of all sites has to be told of one')
        self.source, self.settings, self.device = source, settings, device
        self._check, self._checks = check, None
        self._kept: Codes | None = None
        network = copy.deepcopy(nets)
        network.energies.clear()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.add_energy(SHARED)
        network.requires_grad_(False)
        network.energies.requires_grad_(True)
        # every draw tells its own
        network.energies[SHARED].site.requires_grad_(False)
        self.network = network.to(device)
        self.helpers = {}

    collate = staticmethod(Pairs.join)

    def describe(self) -> dict:
        """Settings, for JSON."""
        return {'energies': [SHARED]} | asdict(self.settings)

    def losses(self, batch: Pairs, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, over the draws and some of those before, and ``loss``.

        ``truth`` is the mean squared error of codes, ``energy`` the contrast of equation 6 and
        ``regular`` the squares of energies.
        """
        generator = torch.Generator(self.device).manual_seed(int(batch.seeds[0]))
        codes = self._with_earlier(Codes.encoded(self.network, batch.to(self.device)), batch)
        energy, chain = self.network.energies[SHARED], self.network.config.chain
        site = told(energy, codes)
        moved = langevin(
            lambda code, cells: energy(code, cells, site),
            codes.source,
            codes.cells,
            chain,
            generator,
            create_graph=True,
        )
        # of as many slices of the site as there are sources
        target, there = codes.target[:, 0], codes.there[:, 0]
        low = energy(target, there, site) / there.sum((1, 2, 3)).clamp_min(1)
        high = energy(moved.detach(), codes.cells, site)
        high = high / codes.cells.sum((1, 2, 3)).clamp_min(1)
        error = (moved - codes.truth).square().mean(1, keepdim=True) * codes.cells
        terms = {
            'truth': error.sum() / codes.cells.sum().clamp_min(1),
            'energy': low.mean() - high.mean(),
            'regular': (low.square() + high.square()).mean(),
        }
        return {'loss': sum(getattr(self.settings, n) * terms[n] for n in TERMS)} | terms

    def _with_earlier(self, codes: Codes, batch: Pairs) -> Codes:
        """Draws and some of those before, which are kept."""
        kept, settings = self._kept, self.settings
        learned = codes
        if kept is not None and settings.again:
            rng = np.random.default_rng(int(batch.seeds[-1]))
            chosen = rng.choice(len(kept.source), min(settings.again, len(kept.source)), False)
            learned = Codes.join([codes, kept.take(torch.from_numpy(chosen))])
        together = codes if kept is None else Codes.join([kept, codes])
        self._kept = together.take(slice(-settings.kept, None)) if settings.kept else None
        return learned

    def validate(self, network: DlestNets) -> dict[str, float]:
        """L1, SSIM and PSNR of slices led to where others of the site show; ``before`` as they are."""
        if self._check is None:
            return {}
        if self._checks is None:
            self._checks = draw_checks(self._check, *CHECKS, self.device)
        values: dict[str, list[float]] = {}
        energy = network.energies[SHARED]
        for batch in self._checks:
            codes, mask = Codes.encoded(network, batch), batch.source_mask
            with torch.no_grad():
                site = told(energy, codes)
            moved = langevin(
                lambda code, cells, site=site: energy(code, cells, site),
                codes.source,
                codes.cells,
                network.config.chain,
            )
            with torch.no_grad():
                result = network.decode(moved, codes.cells, mask)
            for start, image in (('', result), ('before_', batch.source)):
                for scores in slice_scores(image, batch.truth, mask):
                    for name, value in scores.items():
                        values.setdefault(start + name, []).append(value)
        return {name: float(np.mean(v)) for name, v in sorted(values.items())}


def told(energy: torch.nn.Module, codes: Codes) -> torch.Tensor:
    """What an energy sees of the sites of draws: the mean over their slices, shape (B, 2 width)."""
    shown = codes.target.shape[:2]
    seen = energy.statistics(codes.target.flatten(0, 1), codes.there.flatten(0, 1))
    return seen.unflatten(0, shown).mean(1)


def fit_shared_energy(
    nets: DlestNets,
    heads: Sequence[Head],
    held_out: Sequence[Head],
    settings: SharedSettings,
    loop: LoopSettings,
    device: str = 'cpu',
) -> dict:
    """Train the energy of no site and add it to networks.

    Parameters
    ----------
    nets : DlestNets
        Gets the energy.
    heads, held_out : sequence of Head
        To learn from and to be judged by; the latter may be none.
    settings : SharedSettings
    loop : LoopSettings
        Budget and seed.
    device : str

    Returns
    -------
    dict
        Steps, minutes and the metrics of the best.
    """
    source, check = (PhantomPairs(part, settings) if part else None for part in (heads, held_out))
    training = SharedEnergyTraining(nets, source, settings, check, device, loop.seed)
    return add_trained_energies(nets, [SHARED], training, loop, device)
