"""How the group level trains MISPEL, and how it fits a unit to a new scanner."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmony_app.errors import InputError, OptionError
from harmony_app.methods.base import Method, Scan
from harmony_app.methods.mispel import Mispel
from harmony_app.nets.mispel import MispelNets
from harmony_app.phantom.sites import Site, find_sites, load_sites
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.crops import check_size
from harmony_app.training.heads import Head
from harmony_app.training.matched import MatchedSet, apart, find_matched, units_of
from harmony_app.training.matched_draws import MatchedSessions
from harmony_app.training.matched_volumes import scanned_volumes
from harmony_app.training.material import Material, PhantomConfig
from harmony_app.training.mispel import MispelTraining
from harmony_app.training.mispel_settings import LOOP, Settings
from harmony_app.training.recipe import Recipe
from harmony_app.training.sessions import Session, SessionFiles

STYLE_HEADS = 2
"""Heads of the phantom whose scans show what the middle ground looks like."""


class MispelRecipe(Recipe):
    """MISPEL: a unit for each contrast and scanner.

    A new scanner gets a unit of its own, fitted by people who were also scanned at a scanner that
    is known; the units of these are fixed.
    """

    method = 'mispel'
    loop = LOOP
    adapted = ()
    matched = True
    slower = 1.0
    adaptation_steps = 600

    def usable(
        self, sessions: Sequence[SessionFiles], site: str | None = None
    ) -> Sequence[SessionFiles]:
        """Sessions of people who were at two scanners or more, one of them the site."""
        if not sessions:
            return sessions
        sets = [m for m in find_matched(sessions) if site is None or site in m.scans]
        if site is None:
            _check_matched(sets)
        elif not sets:
            raise InputError(
                f'--site {site}: nobody was scanned there and at another scanner in one contrast, '
                'so there is no matched pair to fit its unit by'
            )
        people = {matched.subject for matched in sets}
        return [session for session in sessions if session.subject in people]

    def training(
        self, material: Material, device: str, seed: int, begin_from: Path | None
    ) -> Training:
        """Matched people among the sessions, or heads of the phantom at its scanners.

        The scanners of both were never at one person, so they have no middle ground in common:
        one or the other.
        """
        file = material.phantom or PhantomConfig()
        settings = _settings(file)
        if material.heads and material.training:
            raise OptionError(
                'MISPEL learns the scanners of the scans or those of the phantom: nobody was at '
                'both. Leave out --phantom, or give share: 1 in its file'
            )
        if material.heads:
            training = MispelTraining.on_phantom(
                settings, material.heads, material.held_out, device, seed
            )
        else:
            sets = find_matched(material.training)
            _check_matched(sets)
            units = units_of(sets)
            source = _drawn(sets, units, settings.size)
            check = _drawn(find_matched(material.validation), units, settings.size)
            training = MispelTraining(settings, source, check, device, seed)
        if begin_from is not None:
            training.begin_from(begin_from)
        return training

    def adaptation(
        self,
        parent: Path,
        learning: Sequence[Session],
        judged: Sequence[Session],
        device: str,
        seed: int,
        site: str,
    ) -> Training:
        """Both steps on the people of the new scanner; of its unit alone anything moves.

        It starts as the unit of the known scanner that most of these people were at.
        """
        nets = Mispel.load(parent).nets
        known = nets.config.units
        own = {s.contrast for session in learning for s in session.scans if s.site == site}
        if own and all((contrast, site) in known for contrast in own):
            raise OptionError(
                f'--site {site}: the model has a unit for its {", ".join(sorted(own))} scans already; '
                'use the model as it is, or --task train --model to train all units further'
            )
        new = [contrast for contrast in own if (contrast, site) not in known]
        sets, check = (
            [m for m in _with_site(find_matched(s), site, known) if m.contrast in new]
            for s in (learning, judged)
        )
        if not sets:
            told = ', '.join(nets.config.scanners)
            raise InputError(
                f'--site {site}: nobody was scanned there and, in the same contrast, at a scanner '
                f'that the model knows ({told}), so there is no matched pair to fit its unit by'
            )
        for contrast in dict.fromkeys(matched.contrast for matched in sets):
            beside = Counter(
                s for m in sets if m.contrast == contrast for s in m.scans if s != site
            )
            like = min(beside, key=lambda scanner: (-beside[scanner], scanner))
            nets = nets.with_unit(contrast, site, like)
        settings = _settings(PhantomConfig(variant=nets.config.variant))
        units = nets.config.units
        source, judge = (_drawn(s, units, settings.size) for s in (sets, check or sets))
        training = MispelTraining(settings, source, judge, device, seed)
        training.fill(nets)
        training.fitted = tuple(range(len(known), len(units)))
        return training

    def parts(self, training: Training) -> tuple[str, ...]:
        """The units of the new scanner."""
        return tuple(f'units.{i}.' for i in training.fitted)

    def adapted_method(self, parent: Path, network: MispelNets, device: str) -> Method:
        """The known units and the new ones; the middle ground stays what it is."""
        return Mispel(network, Mispel.load(parent).metadata, device)

    def finish(
        self, network, material: Material, settings: LoopSettings, device: str
    ) -> tuple[Method, dict]:
        """Nothing is left to do."""
        return Mispel(network, {}), {}

    def simulated_scans(self, material: Material) -> list[Scan]:
        """Some heads of the phantom at all of its scanners."""
        if not material.heads:
            return []
        settings = _settings(material.phantom or PhantomConfig())
        sites = find_sites(settings.sites, load_sites())
        return middle_scans(material.heads, sites, settings.contrasts)

    @staticmethod
    def network_of(method: Method) -> MispelNets:
        """All units."""
        return method.nets


def middle_scans(
    heads: Sequence[Head], sites: Sequence[Site], contrasts: Sequence[str]
) -> list[Scan]:
    """Scans of :data:`STYLE_HEADS` heads at some sites, to measure the middle ground on."""
    return [
        scan
        for number, head in enumerate(heads[:STYLE_HEADS])
        for contrast in contrasts
        for scan in scanned_volumes(head, sites, contrast, seed=number)
    ]


def _settings(file: PhantomConfig) -> Settings:
    given = {'size': file.size, 'variant': file.variant}
    for name in ('sites', 'contrasts'):
        named = getattr(file, name)
        given[name] = None if named is None else tuple(named)
    settings = replace(Settings(), **{k: v for k, v in given.items() if v is not None})
    check_size(settings.size)
    return settings


def _drawn(
    sets: Sequence[MatchedSet], units: Sequence[tuple[str, str]], size: int
) -> MatchedSessions | None:
    """Draws of sets as far as there are units for them; None where there are none."""
    known = [_known_part(matched, units) for matched in sets]
    known = [matched for matched in known if len(matched.scans) > 1]
    return MatchedSessions(known, units, size) if known else None


def _known_part(matched: MatchedSet, units: Sequence[tuple[str, str]]) -> MatchedSet:
    scans = {s: found for s, found in matched.scans.items() if (matched.contrast, s) in units}
    return replace(matched, scans=scans)


def _with_site(
    sets: Sequence[MatchedSet], site: str, known: Sequence[tuple[str, str]]
) -> list[MatchedSet]:
    """What sets show of a site and of known scanners, where they show both."""
    parts = [_known_part(m, (*known, (m.contrast, site))) for m in sets]
    return [part for part in parts if site in part.scans and len(part.scans) > 1]


def _check_matched(sets: Sequence[MatchedSet]) -> None:
    """Refuse sessions without matched people, and scanners that no chain of people joins.

    Raises
    ------
    InputError
    """
    if not sets:
        raise InputError(
            'no person has scans of one contrast at two scanners (sites), from which MISPEL learns: '
            'it needs travelling subjects; add --phantom FILE with share: 1 to train on simulated ones'
        )
    for contrast in dict.fromkeys(matched.contrast for matched in sets):
        groups = apart([m.scans for m in sets if m.contrast == contrast])
        if len(groups) > 1:
            told = ' and '.join(f'({", ".join(group)})' for group in groups)
            raise InputError(
                f'{contrast}: the scanners {told} have nobody in common, so there is no middle '
                'ground of them all: train a model of each group, with --participant-label'
            )
