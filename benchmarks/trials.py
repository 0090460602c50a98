"""What is asked of HACA3 beside the tables of methods: one function for each question.

Each works on one unit, gives rows that JSON can say, and depends on no other unit. The truth is
the noise-free scan of the same head by the target's protocol, as in :mod:`benchmarks.scoring`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks.compared import DECODER, Compared, make_method
from benchmarks.preprocessed import Preprocessed
from benchmarks.scoring import Reference, attempt
from benchmarks.study import session_pairs
from benchmarks.truth import TrueAnatomy
from harmony_app.engine.anatomy import measured_part
from harmony_app.evaluation.metrics import psnr, ssim
from harmony_app.methods.base import Harmonized, Scan, Style
from harmony_app.phantom.artifacts import ARTIFACTS
from harmony_app.workflows.records import write_record

BAD = ('motion', 'noise', 'ghosting')
"""Artifacts that the attention is to move away from."""

BRIGHTEST = 8.0
"""Corrupted scans are clipped to this, white-matter peak 1."""


@dataclass(frozen=True)
class Setup:
    """What every process is told.

    Parameters
    ----------
    bids, cache, parts : Path
        Dataset, its preprocessed scans, and the results of the units.
    models : tuple of (str, str)
        Model folders by method.
    wanted : str
        Contrast that is corrupted, and that subsets of the session are to give.
    imputed : tuple of str
        Contrasts that are made of the others.
    severities : tuple of float
        Of the artifacts that eta is to order.
    decoded : tuple of str
        Contrasts whose identity is asked of the decoder too: it costs the most.
    seed : int
        Of the artifacts.
    """

    bids: Path
    cache: Path
    parts: Path
    models: tuple[tuple[str, str], ...]
    wanted: str
    imputed: tuple[str, ...]
    severities: tuple[float, ...]
    decoded: tuple[str, ...]
    seed: int


class Workplace:
    """What a process keeps between units: the dataset, the methods and the last session."""

    def __init__(self, setup: Setup):
        self.data = Preprocessed(setup.bids, setup.cache)
        models = dict(setup.models)
        self.compared = Compared(self.data, ('transfer', DECODER), models)
        # one of its own: to encode a style the others let go of their sessions
        self.decoder = make_method(DECODER, models)
        self.next = dict(session_pairs(sorted({s.session for s in self.data.inputs}), 'next'))
        self.session = lru_cache(maxsize=1)(self._session)
        self.style = self.compared.styles
        self._images: dict[tuple, Harmonized] = {}

    def _session(self, subject: str, session: str) -> dict[str, Scan]:
        """Scans by contrast; the ones before are let go of."""
        self.decoder.forget()
        self._images = {}
        found = [s for s in self.data.inputs if (s.subject, s.session) == (subject, session)]
        return {source.contrast: self.data.load(source) for source in found}

    def decode(self, sources: Sequence[Scan], target: Style) -> Harmonized:
        """Image of some scans of the last session; the same ones are decoded once."""
        key = tuple(sorted(id(scan) for scan in sources)), target.name, target.contrast
        if key not in self._images:
            # the scans are kept, so that no other one can be taken for them
            self._images[key] = self.decoder.decode(sources, target), list(sources)
        return self._images[key][0]


@lru_cache(maxsize=1)
def workplace(setup: Setup) -> Workplace:
    """The workplace of this process."""
    return Workplace(setup)


def corrupted(scan: Scan, kind: str, severity: float, seed: int) -> Scan:
    """A scan with an artifact within its field of view, on the working grid."""
    import torch

    data = np.ascontiguousarray(scan.working.data, np.float32)
    generator = torch.Generator().manual_seed(seed)
    spoiled = ARTIFACTS[kind](torch.from_numpy(data)[None], severity, generator)[0].numpy()
    spoiled = np.clip(spoiled, 0, BRIGHTEST) * measured_part(data)
    return replace(scan, name=f'{scan.name} {kind}', working=scan.working.with_data(spoiled))


class Truth:
    """What some contrast of a session is to be at another site."""

    def __init__(self, place: Workplace, setup: Setup, scan: Scan, session: str):
        source = next(s for s in place.data.inputs if s.name == scan.name)
        anatomy = TrueAnatomy(setup.bids, source, scan)
        self.reference = Reference(setup.bids, source, scan, session, anatomy)
        self.image = self.reference.images['mni']
        self.brain = anatomy.brain['mni']

    def likeness(self, image: np.ndarray) -> dict[str, float]:
        """SSIM and PSNR (dB) inside the true brain."""
        box = self.reference.boxes['mni']
        given = image[box], self.image[box], self.brain[box], self.reference.data_range
        return {'ssim': float(ssim(*given)), 'psnr': float(psnr(*given))}


def corruption(setup: Setup, unit: tuple[str, str]) -> dict:
    """The scan of the wanted contrast spoiled: attention, and images with it, of it, without it."""
    place, (subject, session) = workplace(setup), unit
    scans, target = place.session(*unit), place.next[session]
    notes: list[str] = []
    if setup.wanted not in scans or len(scans) < 2:
        return {'rows': [], 'notes': [f'sub-{subject} {session}: too few contrasts to corrupt one']}
    style = place.style(setup.wanted, subject, target)[DECODER]
    good = scans[setup.wanted]
    others = [scan for scan in scans.values() if scan is not good]
    truth = Truth(place, setup, good, target)
    clean = place.decode([good, *others], style)
    without = place.decode(others, style)
    rows, pictures = [], {}
    rng = np.random.default_rng([setup.seed, int.from_bytes(f'{subject}{session}'.encode())])
    for kind in BAD:
        severity, seed = float(rng.uniform(0.7, 1)), int(rng.integers(2**31))
        bad = corrupted(good, kind, severity, seed)
        row = _named(unit, setup.wanted, target) | {'kind': kind, 'severity': severity}
        results = {
            'clean': clean,
            'all': place.decode([bad, *others], style),
            'alone': place.decode([bad], style),
            'others': without,
        }
        for name, result in results.items():
            row |= {f'{k}_{name}': v for k, v in truth.likeness(result.working.data).items()}
        row['attention_before'] = clean.attention[good.name]
        row['attention_after'] = results['all'].attention[bad.name]
        row['eta_before'] = _length(clean.eta[good.name])
        row['eta_after'] = _length(results['all'].eta[bad.name])
        rows.append(row)
        images = {'corrupted': bad.working.data}
        images |= {name: result.working.data for name, result in results.items()}
        pictures |= _slices(kind, images | {'truth': truth.image}, truth.brain)
    _keep(setup, 'corruption', unit, pictures)
    return {'rows': rows, 'notes': notes}


def subsets(setup: Setup, unit: tuple[str, str]) -> dict:
    """Every subset of the contrasts of a session as sources of the wanted one."""
    place, (subject, session) = workplace(setup), unit
    scans, target = place.session(*unit), place.next[session]
    if setup.wanted not in scans:
        return {'rows': [], 'notes': [f'sub-{subject} {session}: no {setup.wanted} scan']}
    style = place.style(setup.wanted, subject, target)[DECODER]
    truth = Truth(place, setup, scans[setup.wanted], target)
    rows, notes = [], []
    for count in range(1, len(scans) + 1):
        for names in combinations(scans, count):
            told = ' '.join(names)
            chosen = [scans[name] for name in names]
            result = attempt(
                notes,
                f'sub-{subject} {session}, {told}',
                lambda chosen=chosen: place.decode(chosen, style),
            )
            row = _named(unit, setup.wanted, target) | {'sources': told, 'works': 0.0}
            if result is not None and np.isfinite(result.working.data).all():
                row |= {'works': 1.0} | truth.likeness(result.working.data)
            rows.append(row)
    return {'rows': rows, 'notes': notes}


def imputation(setup: Setup, unit: tuple[str, str]) -> dict:
    """Contrasts made of the other ones of the session, to the next site."""
    place, (subject, session) = workplace(setup), unit
    scans, target = place.session(*unit), place.next[session]
    rows, notes, pictures = [], [], {}
    for contrast in setup.imputed:
        others = [scan for name, scan in scans.items() if name != contrast]
        if contrast not in scans or not others:
            notes.append(f'sub-{subject} {session}: {contrast} cannot be imputed and judged')
            continue
        style = place.style(contrast, subject, target)[DECODER]
        truth = Truth(place, setup, scans[contrast], target)
        result = place.decode(others, style)
        sources = ' '.join(scan.contrast for scan in others)
        row = _named(unit, contrast, target) | {'sources': sources}
        rows.append(row | truth.likeness(result.working.data))
        images = {'first source': others[0].working.data, 'imputed': result.working.data}
        pictures |= _slices(contrast, images | {'truth': truth.image}, truth.brain)
    _keep(setup, 'imputation', unit, pictures)
    return {'rows': rows, 'notes': notes}


def identity(setup: Setup, unit: tuple[str, str]) -> dict:
    """Each scan of a session to the style of other people's scans at its own site."""
    place, (subject, session) = workplace(setup), unit
    scans, rows, notes = place.session(*unit), [], []
    for contrast, scan in scans.items():
        inside = scan.working.data[scan.brain]
        data_range = float(np.percentile(inside, 99.5))
        for name in ('transfer', DECODER):
            if name == DECODER and contrast not in setup.decoded:
                continue
            result = attempt(
                notes,
                f'{scan.name} to its own site by {name}',
                lambda scan=scan, name=name: place.compared.harmonize(
                    name, list(scans.values()), scan, subject, session
                ),
            )
            if result is not None:
                row = _named(unit, contrast, session) | {'method': name}
                given = result.working.data, scan.working.data, scan.brain, data_range
                rows.append(row | {'ssim': float(ssim(*given)), 'psnr': float(psnr(*given))})
    place.compared.forget()
    return {'rows': rows, 'notes': notes}


def severity(setup: Setup, unit: tuple[str, str, str]) -> dict:
    """Length of eta of one scan, clean and with every artifact at some severities."""
    place, (subject, session, contrast) = workplace(setup), unit
    scan = _load(place, *unit)
    named = _named((subject, session), contrast, session)
    rng = np.random.default_rng([setup.seed, int.from_bytes(''.join(unit).encode())])
    rows = [named | {'kind': 'none', 'severity': 0.0, 'eta': _length(_style(place, scan).eta)}]
    for kind in ARTIFACTS:
        seed = int(rng.integers(2**31))
        for strength in setup.severities:
            eta = _style(place, corrupted(scan, kind, strength, seed)).eta
            rows.append(named | {'kind': kind, 'severity': strength, 'eta': _length(eta)})
    return {'rows': rows, 'notes': []}


def contrast_code(setup: Setup, unit: tuple[str, str, str]) -> dict:
    """Theta of one scan."""
    place, (subject, session, contrast) = workplace(setup), unit
    theta = _style(place, _load(place, *unit)).theta
    named = _named((subject, session), contrast, session)
    return {'rows': [named | {f'theta_{i}': v for i, v in enumerate(theta, 1)}], 'notes': []}


def picture_path(parts: Path, kind: str, unit: tuple[str, str]) -> Path:
    """File of the kept slices of a unit."""
    return parts / f'pictures_{kind}_sub-{unit[0]}_ses-{unit[1]}.npz'


def _load(place: Workplace, subject: str, session: str, contrast: str) -> Scan:
    wanted = (subject, session, contrast)
    inputs = place.data.inputs
    return place.data.load(next(s for s in inputs if (s.subject, s.session, s.contrast) == wanted))


def _style(place: Workplace, scan: Scan) -> Style:
    style = place.decoder.encode_target([scan], scan.name)
    place.decoder.forget()
    return style


def _length(eta: Sequence[float]) -> float:
    return float(np.linalg.norm(eta))


def _named(unit: tuple[str, str], contrast: str, target: str) -> dict:
    return {'contrast': contrast, 'subject': unit[0], 'source': unit[1], 'target': target}


def _slices(row: str, images: Mapping[str, np.ndarray], brain: np.ndarray) -> dict:
    """One axial slice of every image, through the middle of the brain."""
    height = int(np.median(np.nonzero(brain)[2]))
    return {
        f'{row}/{name}': data[:, :, height : height + 1].astype(np.float16)
        for name, data in images.items()
    }


def _keep(setup: Setup, kind: str, unit: tuple[str, str], pictures: dict) -> None:
    path = picture_path(setup.parts, kind, unit)
    write_record(path, {'arrays': list(pictures)}, pictures)
