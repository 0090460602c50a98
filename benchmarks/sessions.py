"""One session under every method: the unit of work, whose results are written in parts.

Nothing here depends on other sessions' results, so that sessions can be measured in any order,
by any number of processes, and again after an interruption.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.compared import DECODERS, Compared, make_method
from benchmarks.measures import Measures, measure, true_volumes
from benchmarks.networks import load_network, network_path, train_network
from benchmarks.preprocessed import Preprocessed
from benchmarks.scoring import Kept, Reference, Scores, attempt
from benchmarks.study import session_pairs
from benchmarks.truth import TrueAnatomy
from harmony_app.bids.discovery import ScanInput
from harmony_app.bids.filters import Selection
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Harmonized, Scan
from harmony_app.workflows.records import write_record

BEFORE = 'before'
"""Name of the scan as preprocessed, among the names of the methods."""


@dataclass(frozen=True)
class Setup:
    """What every process is told.

    Parameters
    ----------
    bids, cache, parts : Path
        Dataset, its preprocessed scans, and the results of the units.
    contrasts, methods : tuple of str
        What is compared.
    models : tuple of (str, str)
        Model folders by method.
    pairs : str
        As of :class:`~benchmarks.study.Study`.
    one_person : bool
        A style is one other person's scan.
    reference : str
        Session of the reference site.
    segmented : tuple of str
        Contrasts whose tissues are segmented.
    steps : int
        Of the training of a segmentation network.
    seed : int
        Of everything drawn.
    shown : int
        Sessions of which pictures are kept.
    pairs_only : bool
        Nothing is brought to the reference site.
    """

    bids: Path
    cache: Path
    parts: Path
    contrasts: tuple[str, ...]
    methods: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    pairs: str
    one_person: bool
    reference: str
    segmented: tuple[str, ...]
    steps: int
    seed: int
    shown: int
    pairs_only: bool = False


class Workplace:
    """What a process keeps between units: the dataset and the methods."""

    def __init__(self, setup: Setup):
        self.data = Preprocessed(
            setup.bids, setup.cache, Selection(modalities=list(setup.contrasts))
        )
        models = dict(setup.models)
        self.compared = Compared(self.data, setup.methods, models, setup.one_person)
        self.encoder = make_method('haca3', models)
        self.sessions = sorted({source.session for source in self.data.inputs})
        self.units = sorted({(s.subject, s.session) for s in self.data.inputs})


@lru_cache(maxsize=1)
def workplace(setup: Setup) -> Workplace:
    """The workplace of this process."""
    return Workplace(setup)


def train(setup: Setup, unit: tuple[str, str]) -> dict:
    """Train the segmentation network of a contrast and a person, unless it is there."""
    contrast, subject = unit
    path = network_path(setup.parts, contrast, subject)
    if not path.exists():
        data = workplace(setup).data
        train_network(
            path, data, setup.bids, contrast, subject, setup.reference, setup.steps, setup.seed
        )
    return {}


@dataclass
class SessionResults:
    """What is found in a session; plain types but for the arrays.

    Parameters
    ----------
    pairs : list of dict
        Rows of scores, without their ceilings.
    own : list of dict
        Scores of each scan against its own truth: the ceilings of others.
    scans : list of dict
        Measures of each image at the reference site: ``values`` and ``features``.
    notes : list of str
        What was left out, and why.
    arrays : dict of str to ndarray
        ``quantiles/CONTRAST/METHOD`` and ``picture/CONTRAST/NAME``.
    """

    pairs: list[dict] = field(default_factory=list)
    own: list[dict] = field(default_factory=list)
    scans: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def measure_session(setup: Setup, unit: tuple[str, str]) -> dict:
    """Measure all scans of a session, write its arrays, and give the rest."""
    place = workplace(setup)
    results = SessionResults()
    sources = [s for s in place.data.inputs if (s.subject, s.session) == unit]
    loaded = [(source, place.data.load(source)) for source in sources]
    session = _Session([scan for _, scan in loaded], place.units.index(unit) < setup.shown)
    for source, scan in loaded:
        _Comparison(setup, place, source, scan, session, results).run()
    place.compared.forget()
    write_record(arrays_path(setup.parts, unit), {'arrays': list(results.arrays)}, results.arrays)
    told = list(dict.fromkeys(results.notes))
    return {'pairs': results.pairs, 'own': results.own, 'scans': results.scans, 'notes': told}


def arrays_path(parts: Path, unit: tuple[str, str]) -> Path:
    """File of the arrays of a session."""
    return parts / f'session_sub-{unit[0]}_ses-{unit[1]}.npz'


class _Session:
    """Scans of a session; methods know them again by identity, so they are made once."""

    def __init__(self, scans: list[Scan], shown: bool):
        self.scans, self.shown = scans, shown
        # judged on the working grid: a corner stands for the native one, and costs little
        self.cornered = [
            replace(scan, native=Volume(scan.native.data[:2, :2, :2], scan.native.affine))
            for scan in scans
        ]


class _Comparison:
    """One scan under every method, to the next sites and to the reference site."""

    def __init__(
        self,
        setup: Setup,
        place: Workplace,
        source: ScanInput,
        scan: Scan,
        session: _Session,
        results: SessionResults,
    ):
        self.setup, self.place, self.source, self.scan = setup, place, source, scan
        self.session, self.results = session, results
        self.anatomy = TrueAnatomy(setup.bids, source, scan)
        self.measured: dict[str, Measures] = {}
        self.network = None
        # at the reference site the network is judged by the unharmonized scan
        if source.contrast in setup.segmented:
            path = network_path(setup.parts, source.contrast, source.subject)
            self.network = attempt(
                results.notes,
                f'{source.contrast} sub-{source.subject}',
                lambda: load_network(path),
            )

    def run(self) -> None:
        """Score the scan by itself, in pairs and at the reference site."""
        source, scan, notes = self.source, self.scan, self.results.notes
        own = self._reference(source.session)
        self.results.own += [
            self._named(grid=grid, metric=metric, value=value)
            for (grid, metric), value in own.score(
                scan.native.data, scan.working.data, notes
            ).items()
        ]
        if not self.setup.pairs_only:
            self.results.scans.append(self._measured(BEFORE, scan.working.data))
            self.results.scans[-1]['values'] |= true_volumes(self.anatomy)
        at = {
            s.session
            for s in self.place.data.inputs
            if (s.subject, s.contrast) == (source.subject, source.contrast)
        }
        pairs = session_pairs(self.place.sessions, self.setup.pairs)
        targets = [there for here, there in pairs if here == source.session]
        for target in targets:
            if target not in at:
                notes.append(
                    f'{scan.name} to {target}: left out, the person has no {source.contrast} '
                    'scan there that could be preprocessed'
                )
                continue
            self._pair(target, own)
        if self.setup.pairs_only:
            return
        if self.setup.reference not in targets or self.setup.reference not in at:
            for name in self.setup.methods:
                result = self._harmonized(name, self.setup.reference, working_only=True)
                self._at_reference(name, result)

    def _pair(self, target: str, own: Reference) -> None:
        scan, notes = self.scan, self.results.notes
        truth = self._reference(target)
        kept = Kept(scan, self.anatomy)
        told: dict[str, Scores] = {}

        def score(native, working):
            key = _digest(native) + _digest(working)
            if key not in told:
                told[key] = truth.score(native, working, notes) | kept.score(working, notes)
            return told[key]

        before = score(scan.native.data, scan.working.data)
        images = truth.limit(scan, own)
        limit = score(images['native'], images['mni'])
        pictures = {BEFORE: scan.working.data}
        for name in self.setup.methods:
            result = self._harmonized(name, target)
            if result is None:
                continue
            after = score(result.native.data, result.working.data)
            for grid, metric in after:
                if (grid, metric) in before:
                    self.results.pairs.append(
                        self._named(
                            target=target,
                            method=name,
                            grid=grid,
                            metric=metric,
                            before=before[grid, metric],
                            after=after[grid, metric],
                            limit=limit.get((grid, metric)),
                        )
                    )
            pictures[name] = result.working.data
            if target == self.setup.reference and not self.setup.pairs_only:
                self._at_reference(name, result)
        pictures |= {'truth': truth.images['mni'], 'limit': images['mni']}
        self._keep(pictures, target)

    def _at_reference(self, name: str, result: Harmonized | None) -> None:
        if result is not None:
            self.results.scans.append(self._measured(name, result.working.data))

    def _harmonized(self, name: str, target: str, working_only: bool = False) -> Harmonized | None:
        scan, session = self.scan, self.session.scans
        # the decoder's work on a session lasts as long as its scans are the same
        if working_only and name not in DECODERS:
            place = next(i for i, one in enumerate(session) if one is scan)
            session = self.session.cornered
            scan = session[place]
        return attempt(
            self.results.notes,
            f'{scan.name} to {target} by {name}',
            lambda: self.place.compared.harmonize(name, session, scan, self.source.subject, target),
        )

    def _measured(self, name: str, image: np.ndarray) -> dict:
        """Row of an image; equal images are measured once."""
        key = _digest(image)
        if key not in self.measured:
            self.measured[key] = measure(
                image,
                self.scan,
                self.anatomy,
                f'{self.scan.name} {name}',
                self.results.notes,
                self.place.encoder,
                self.source.contrast in self.setup.segmented,
                self.network,
            )
        found = self.measured[key]
        if found.quantiles is not None:
            self.results.arrays[f'quantiles/{self.source.contrast}/{name}'] = found.quantiles
        return {
            'contrast': self.source.contrast,
            'method': name,
            'subject': self.source.subject,
            'session': self.source.session,
            'values': dict(found.values),
            'features': dict(found.features),
        }

    def _reference(self, session: str) -> Reference:
        return Reference(self.setup.bids, self.source, self.scan, session, self.anatomy)

    def _named(self, **fields: object) -> dict:
        source = self.source
        where = {'subject': source.subject, 'source': source.session}
        return {'contrast': source.contrast} | where | fields

    def _keep(self, pictures: Mapping[str, np.ndarray], target: str) -> None:
        """Keep one axial slice of every image, through the middle of the brain."""
        if not self.session.shown:
            return
        height = int(np.median(np.nonzero(self.anatomy.brain['mni'])[2]))
        for name, data in pictures.items():
            key = f'picture/{self.source.contrast}/{target}/{name}'
            self.results.arrays[key] = data[:, :, height : height + 1].astype(np.float16)


def slice_volume(data: np.ndarray) -> Volume:
    """A kept slice for a figure."""
    return Volume(data.astype(np.float32), WORKING_AFFINE)


def _digest(data: np.ndarray) -> str:
    flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return hashlib.sha1(flat, usedforsecurity=False).hexdigest()
