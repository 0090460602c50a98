"""Fit the energy of a site (Wu 2024, section 3.2.3): minutes, of about a hundred slices."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from harmony_app.methods.base import Scan
from harmony_app.nets.dlest import SHARED, DlestNets, energy_key
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.checkpoint import load_averaged
from harmony_app.training.dlest_losses import translation_terms
from harmony_app.training.dlest_settings import ENERGY_LOOP, EnergySettings
from harmony_app.training.dlest_sites import Planes, SiteSlices, Translations, shown_scans
from harmony_app.training.loop import Loop, best_or_last
from harmony_app.training.slice_scores import draw_checks, slice_scores

TERMS = ('energy', 'content', 'cycle', 'regular', 'truth')
CHECKS = (4, 6)
"""Batches of the validation, and examples of each."""


class EnergyTraining(Training):
    """Energies of one site, one for each contrast; the autoencoder is not touched.

    Where the networks hold the energy of no site, what an energy is told of its site is learned
    alone, unless ``settings.whole``.

    Parameters
    ----------
    nets : DlestNets
        A copy of it is trained, with the new energies alone.
    keys : sequence of str
        Of the energies, in the order of ``kind`` of the draws.
    source : object
        ``draw(rng)`` gives :class:`~harmony_app.training.dlest_sites.Translations`.
    settings : EnergySettings
    check : object, optional
        As ``source``, of held-out people; without it nothing is validated.
    device : str
    seed : int
        Of the weights of energies that have nothing to begin from.
    """

    terms = ('loss', *TERMS)
    score = 'psnr'

    def __init__(
        self,
        nets: DlestNets,
        keys: Sequence[str],
        source: object,
        settings: EnergySettings,
        check: object | None = None,
        device: str = 'cpu',
        seed: int = 1,
    ):
        self.keys, self.source, self.settings, self.device = tuple(keys), source, settings, device
        self._check, self._checks = check, None
        network = copy.deepcopy(nets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for key in self.keys:
                if key not in network.energies:
                    network.add_energy(key, like=network.beginning(key.split(':', 1)[0]))
        tell_sites(network, self.keys, source, settings.slices)
        alone = SHARED in network.energies and not settings.whole
        for key in list(network.energies):
            if key not in self.keys:
                del network.energies[key]
        network.requires_grad_(False)
        for name, parameter in network.energies.named_parameters():
            parameter.requires_grad_(not alone or name.endswith('.site'))
        self.network = network.to(device)
        self.helpers = {}

    collate = staticmethod(Translations.join)

    def describe(self) -> dict:
        """Settings, for JSON."""
        return {'energies': list(self.keys)} | asdict(self.settings)

    def losses(self, batch: Translations, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss by name, over the energies that the batch holds, and ``loss``."""
        batch = batch.to(self.device)
        generator = torch.Generator(self.device).manual_seed(int(batch.seeds[0]))
        weights = asdict(self.settings)
        terms = dict.fromkeys(TERMS, torch.zeros((), device=self.device))
        for kind in batch.kind.unique().tolist():
            chosen = batch.take(batch.kind == kind)
            share = len(chosen.kind) / len(batch.kind)
            found = translation_terms(
                self.network, self.keys[kind], chosen, generator, self.settings.edges
            )
            terms = {name: terms[name] + share * found[name] for name in TERMS}
        return {'loss': sum(weights[name] * terms[name] for name in TERMS)} | terms

    def validate(self, network: DlestNets) -> dict[str, float]:
        """See :func:`validate_translation`."""
        if self._check is None:
            return {}
        if self._checks is None:
            self._checks = draw_checks(self._check, *CHECKS, self.device)
        return validate_translation(network, self.keys, self._checks)


def validate_translation(
    nets: DlestNets, keys: Sequence[str], batches: Sequence[Translations]
) -> dict[str, float]:
    """L1, SSIM and PSNR of translated slices against their truth, where it is known.

    ``before`` in a name is the source as it is. A network without an energy is judged by the
    source encoded and decoded. ``energy_gap`` is by how much the energy of a cell of the sources
    is above that of the site's slices.
    """
    values: dict[str, list[float]] = {}
    for batch in batches:
        for kind in batch.kind.unique().tolist():
            chosen = batch.take((batch.kind == kind) & (batch.known > 0))
            if not len(chosen.kind):
                continue
            key, mask = keys[kind], chosen.source_mask
            with torch.no_grad():
                code, cells = nets.encode(chosen.source, mask)
            if key in nets.energies:
                result = nets.translate(chosen.source, mask, key)
                with torch.no_grad():
                    target, there = nets.encode(chosen.target, chosen.target_mask)
                    gaps = _per_cell(nets, key, code, cells) - _per_cell(nets, key, target, there)
                values.setdefault('energy_gap', []).extend(gaps.tolist())
            else:
                with torch.no_grad():
                    result = nets.decode(code, cells, mask)
            for start, image in (('', result.detach()), ('before_', chosen.source)):
                for scores in slice_scores(image, chosen.truth, mask):
                    for name, value in scores.items():
                        values.setdefault(start + name, []).append(value)
    return {name: float(np.mean(v)) for name, v in sorted(values.items())}


def _per_cell(nets: DlestNets, key: str, code, cells) -> torch.Tensor:
    return nets.energies[key](code, cells) / cells.sum((1, 2, 3)).clamp_min(1)


def tell_sites(nets: DlestNets, keys: Sequence[str], source: object, count: int) -> None:
    """Set what energies see of their sites to the statistics of crops of theirs.

    Parameters
    ----------
    nets : DlestNets
        Its energies of these keys are told; nothing where they see nothing of their sites.
    keys : sequence of str
        In the order of ``kind`` of the draws.
    source : object
        As for :class:`EnergyTraining`.
    count : int
        Crops that are drawn for each.
    """
    if not nets.config.told:
        return
    device = next(nets.parameters()).device
    batch = Translations.join(
        [source.draw(np.random.default_rng([7000, i])) for i in range(count * len(keys))]
    ).to(device)
    for kind in batch.kind.unique().tolist():
        chosen = batch.take(batch.kind == kind)
        energy = nets.energies[keys[kind]]
        with torch.no_grad():
            code, cells = nets.encode(chosen.target, chosen.target_mask)
            energy.site.copy_(energy.statistics(code, cells).mean(0))


def fit_energies(
    nets: DlestNets,
    keys: Sequence[str],
    source: object,
    settings: EnergySettings,
    loop: LoopSettings,
    check: object | None = None,
    device: str = 'cpu',
) -> dict:
    """Train energies and add them to networks.

    Parameters
    ----------
    nets : DlestNets
        Its energies of these keys are made or replaced; nothing else changes.
    keys, source, settings, check, device
        As for :class:`EnergyTraining`.
    loop : LoopSettings
        Budget and seed.

    Returns
    -------
    dict
        Steps, minutes and the metrics of the best.
    """
    training = EnergyTraining(nets, keys, source, settings, check, device, loop.seed)
    return add_trained_energies(nets, keys, training, loop, device)


def add_trained_energies(
    nets: DlestNets, keys: Sequence[str], training: Training, loop: LoopSettings, device: str
) -> dict:
    """Run a training of energies and put the best of them into networks; see :func:`fit_energies`."""
    with tempfile.TemporaryDirectory() as folder:
        run = Loop(training, loop, Path(folder), device)
        progress = run.run()
        load_averaged(best_or_last(Path(folder)), run.average)
    for key in keys:
        nets.energies[key] = run.average.energies[key].to(next(nets.parameters()).device)
    nets.requires_grad_(True)
    return {
        'energies': list(keys),
        'steps': progress.best_step or progress.step,
        'minutes': round(progress.seconds / 60, 1),
        'metrics': progress.metrics,
    }


def fit_energy_to_scans(
    nets: DlestNets,
    name: str,
    scans: Sequence[Scan],
    others: Sequence[Scan] = (),
    settings: EnergySettings | None = None,
    loop: LoopSettings = ENERGY_LOOP,
    device: str = 'cpu',
) -> str:
    """Fit the energy of a site to some scans of it, as the paper does at test time.

    Parameters
    ----------
    nets : DlestNets
        Gets the energy.
    name : str
        Of the site or style.
    scans : sequence of Scan
        Of the site, all of one contrast, of anybody.
    others : sequence of Scan
        Of the same contrast at other sites: unpaired sources, where there are any.
    settings : EnergySettings, optional
        ``slices`` of it are taken of the scans.
    loop : LoopSettings
        Budget and seed.
    device : str

    Returns
    -------
    str
        Key of the energy.

    Raises
    ------
    ValueError
        Where there is no scan, or several contrasts.
    """
    contrasts = {scan.contrast for scan in (*scans, *others)}
    if not scans or len(contrasts) != 1:
        raise ValueError('an energy is fitted to scans of one contrast, at least one')
    settings = settings or EnergySettings()
    key = energy_key(name, scans[0].contrast)
    planes = Planes(shown_scans(scans), settings.slices)
    apart = Planes(shown_scans(others), settings.slices) if others else None
    fit_energies(nets, [key], SiteSlices([planes], [apart], settings), settings, loop, None, device)
    return key
