"""How the group level trains DLEST and fits it to a new site."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harmony_app.methods.base import CONTRASTS, Method
from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import VARIANTS, DlestNets, energy_key
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.dlest import DlestTraining
from harmony_app.training.dlest_draws import RealSlices
from harmony_app.training.dlest_energy import EnergyTraining, fit_energies
from harmony_app.training.dlest_settings import (
    ENERGY_LOOP,
    LOOP,
    SHARED_LOOP,
    SITE_STEPS,
    EnergySettings,
    Settings,
    SharedSettings,
)
from harmony_app.training.dlest_shared import fit_shared_energy
from harmony_app.training.dlest_sites import PhantomSites, Planes, SiteSlices, shown_sessions
from harmony_app.training.heads import Head
from harmony_app.training.material import Material
from harmony_app.training.sessions import Session
from harmony_app.training.slice_recipe import SliceRecipe
from harmony_app.training.styles import STANDARD

NOBODY = 'group'
"""Name of the style of scans whose site nobody knows."""

SHARE = 0.4
"""Of the budget of the autoencoder that the energies get beside it."""

UNSITED = 0.7
"""Of the budget of the energies of protocols that the one gets that they begin as."""


class DlestRecipe(SliceRecipe):
    """The autoencoder, then an energy for each style and site there is.

    Fitted to a new site is an energy of its own, and nothing else (section 3.2.3). It begins as
    the first of its contrast in the model.
    """

    method = 'dlest'
    loop = LOOP
    decoder = Dlest
    trainer = DlestTraining
    settings = Settings()
    pairs = False
    adapted = ('energies.',)
    reaches_by_it = True

    def real(
        self, sessions: Sequence[Session], settings: Settings, judged: bool, material: Material
    ) -> RealSlices | None:
        """Slices of sessions; nothing has to be told of their sites."""
        if not sessions:
            return None
        remapped = {'remapped': 0.0} if judged else {}
        return RealSlices(sessions, settings, VARIANTS[settings.variant].canvas, **remapped)

    def adapted_settings(self, settings: Settings, metadata: Mapping) -> Settings:
        """As they are: the autoencoder is not fitted to a site."""
        return settings

    def adaptation(
        self,
        parent: Path,
        learning: Sequence[Session],
        judged: Sequence[Session],
        device: str,
        seed: int,
        site: str,
    ) -> Training:
        """An energy of the site for each contrast it has, of about a hundred slices."""
        nets = Dlest.load(parent, device).nets
        settings = EnergySettings()
        found = _sites(learning)
        contrasts = [contrast for name, contrast in found if name == site]
        source, check = (
            SiteSlices(
                [Planes(shown_sessions(part, c), settings.slices) for c in contrasts],
                [None] * len(contrasts),
                settings,
            )
            for part in (learning, _with(judged, contrasts) or learning)
        )
        keys = [energy_key(site, contrast) for contrast in contrasts]
        return EnergyTraining(nets, keys, source, settings, check, device, seed)

    def finish(
        self, network: DlestNets, material: Material, settings: LoopSettings, device: str
    ) -> tuple[Method, dict]:
        """Fit an energy to each standard T1w protocol of the phantom, and to each site."""
        facts = []
        budget = _budget(settings)
        network = network.to(device)
        if material.heads:
            facts += standard_energies(
                network, material.heads, material.held_out, budget, device=device
            )
        sites = _sites(material.training)
        told = EnergySettings()
        for site, contrast in sites:
            own, others = (
                [s for s in material.training if (_site_of(s, contrast) == site) is same]
                for same in (True, False)
            )
            apart = shown_sessions(others, contrast)
            source = SiteSlices(
                [Planes(shown_sessions(own, contrast), told.slices)],
                [Planes(apart, told.slices) if apart else None],
                told,
            )
            share = replace(budget, minutes=budget.minutes / (len(sites) + 1))
            keys = [energy_key(site, contrast)]
            facts.append(fit_energies(network, keys, source, told, share, None, device))
        return Dlest(network.to('cpu'), None, {}), {'energies_fitted': facts}

    def parts(self, training: Training) -> tuple[str, ...]:
        """All weights of the energies, or what they are told of the site."""
        learning = {n for n, p in training.network.energies.named_parameters() if p.requires_grad}
        if all(name.endswith('.site') for name in learning):
            return tuple(f'energies.{name}' for name in sorted(learning))
        return self.adapted

    def adaptation_loop(self) -> LoopSettings:
        """That of an energy."""
        return replace(ENERGY_LOOP, steps=SITE_STEPS)

    def beginning(self, training: Training, parent: Path, device: str) -> DlestNets:
        """The model, which has no energy of the site yet."""
        return Dlest.load(parent, device).nets

    def adapted_method(self, parent: Path, network: DlestNets, device: str) -> Method:
        """Its energies beside those of the model."""
        method = Dlest.load(parent, device)
        for key, energy in network.energies.items():
            method.nets.energies[key] = energy.to(device)
        return method


def standard_energies(
    nets: DlestNets,
    heads: Sequence[Head],
    held_out: Sequence[Head],
    loop: LoopSettings,
    settings: EnergySettings | None = None,
    device: str = 'cpu',
) -> list[dict]:
    """Fit an energy to each standard T1w protocol of the phantom, the contrast of the paper.

    Most of the budget is for the energy of no site, which they begin as. Where energies see nothing
    of their sites there is none: then the first, which is the default target, gets half of the
    budget, and the others begin where it ended.

    Parameters
    ----------
    nets : DlestNets
        Gets the energies.
    heads, held_out : sequence of Head
        To learn from and to be judged by; the latter may be none.
    loop : LoopSettings
        Budget of all together, and seed.
    settings : EnergySettings, optional
    device : str

    Returns
    -------
    list of dict
        What :func:`~harmony_app.training.dlest_energy.fit_energies` says of each.
    """
    settings = replace(settings or EnergySettings(), whole=True)
    protocols = {name: p for name, p in STANDARD.items() if p.contrast == 'T1w'}
    count, facts = len(protocols), []
    shares = [0.5] + [0.5 / (count - 1)] * (count - 1)
    if nets.config.told:
        shares = [(1 - UNSITED) / count] * count
        told = SharedSettings(size=settings.size)
        own = replace(
            SHARED_LOOP,
            minutes=UNSITED * loop.minutes,
            steps=round(UNSITED * loop.steps),
            seed=loop.seed,
            precision=loop.precision,
            workers=loop.workers,
        )
        facts.append(fit_shared_energy(nets, heads, held_out, told, own, device))
    for share, (name, protocol) in zip(shares, protocols.items(), strict=True):
        own = replace(loop, minutes=share * loop.minutes, steps=math.ceil(share * loop.steps))
        source, check = (
            PhantomSites(part, [protocol], settings) if part else None for part in (heads, held_out)
        )
        keys = [energy_key(name, protocol.contrast)]
        facts.append(fit_energies(nets, keys, source, settings, own, check, device))
    return facts


def _budget(settings: LoopSettings) -> LoopSettings:
    return replace(
        ENERGY_LOOP,
        minutes=max(1.0, SHARE * settings.minutes),
        steps=-(-settings.steps // 4),  # rounded up: 0 is no budget of steps
        seed=settings.seed,
        precision=settings.precision,
        workers=settings.workers,
    )


def _sites(sessions: Sequence[Session]) -> list[tuple[str, str]]:
    """Sites and contrasts of sessions, in order; scans without a site are one."""
    found = {(scan.site or NOBODY, scan.contrast) for session in sessions for scan in session.scans}
    return sorted(found, key=lambda f: (f[0], CONTRASTS.index(f[1])))


def _site_of(session: Session, contrast: str) -> str | None:
    for scan in session.scans:
        if scan.contrast == contrast:
            return scan.site or NOBODY
    return None


def _with(sessions: Sequence[Session], contrasts: Sequence[str]) -> list[Session]:
    """Sessions, where together they have all contrasts; none else."""
    known = {scan.contrast for session in sessions for scan in session.scans}
    return list(sessions) if set(contrasts) <= known else []
