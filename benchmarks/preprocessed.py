"""Preprocess a BIDS dataset by the steps of the participant level, once, for all methods."""

import json
import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import harmony_app
from benchmarks.parts import files_checksum
from harmony_app.bids.atomic import write_json
from harmony_app.bids.discovery import ScanInput, discover
from harmony_app.bids.filters import Selection
from harmony_app.errors import InputError
from harmony_app.imaging.profile import TissueProfile
from harmony_app.methods.base import Scan
from harmony_app.workflows.harmonizing import load_scans
from harmony_app.workflows.records import Record
from harmony_app.workflows.site_averages import FEWEST_PEOPLE
from harmony_app.workflows.steps import align_session, finish_scan, prepare_scan
from harmony_app.workflows.targets import evenly_spread

logger = logging.getLogger(__name__)

STAMP = 'stamp.json'
"""What made the records of a cache."""

STEPS = ('prepared', 'aligned', 'finished')
"""Ends of the names of the records."""


class Preprocessed:
    """A dataset with its preprocessed scans on disk.

    Parameters
    ----------
    bids : Path
        Dataset.
    cache : Path
        Folder of the records; sessions that are there already are not done again, unless other
        code of the preprocessing has made them: then all are removed and made anew.
    selection : Selection
        What to take of the dataset.
    workers : int
        Sessions at a time; the records do not depend on it.
    super_resolution : str
        As of :func:`~harmony_app.workflows.steps.prepare_scan`. ``off`` for the phantom: its truth
        of thick slices is brought to the working grid by splines, and so its scans are.
    """

    def __init__(
        self,
        bids: Path,
        cache: Path,
        selection: Selection | None = None,
        workers: int = 1,
        super_resolution: str = 'off',
    ):
        self.cache, self.super_resolution = Path(cache), super_resolution
        _open_cache(self.cache, super_resolution)
        # a plain dict: a pool of processes takes this object along
        self._averages: dict[tuple[str | None, str], TissueProfile | None] = {}
        self.sessions = discover(Path(bids), selection or Selection()).sessions
        left = [scans for scans in self.sessions.values() if not self._is_ready(scans)]
        if workers > 1 and len(left) > 1:
            with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn')) as pool:
                list(pool.map(self._prepare, left))
        else:
            for inputs in left:
                self._prepare(inputs)

    @classmethod
    def of_study(cls, study: Path) -> 'Preprocessed':
        """Take up what ``benchmarks.travelling`` has prepared in a folder.

        Raises
        ------
        InputError
            Where there is nothing, or other code of the preprocessing has made it.
        """
        bids, records = (study / name for name in ('bids', 'cache'))
        if not bids.is_dir() or not records.is_dir():
            raise InputError(f'--study {study} holds no study: run benchmarks.travelling first')
        if not _is_current(records, 'off'):
            raise InputError(
                f'--study {study} was preprocessed by other code: run benchmarks.travelling there '
                'again, which preprocesses it anew'
            )
        return cls(bids, records)

    @property
    def inputs(self) -> list[ScanInput]:
        """Every scan of the dataset that could be preprocessed."""
        return [
            scan
            for scans in self.sessions.values()
            for scan in scans
            if not Record(self._record(scan, 'finished')).failure
        ]

    def load(self, scan: ScanInput) -> Scan:
        """One preprocessed scan, with the average of its site as ``--site-average dataset`` gives it."""
        session = self._session(self.sessions[scan.subject, scan.session])
        (loaded,) = load_scans(
            [self._record(scan, 'prepared')],
            [self._record(scan, 'finished')],
            [session],
        )
        return replace(loaded, site_average=self._average(scan.site, scan.contrast))

    def facts(self, scan: ScanInput) -> dict:
        """White-matter peak, transform and profile of a scan."""
        return Record(self._record(scan, 'finished')).facts

    def _average(self, site: str | None, contrast: str) -> TissueProfile | None:
        if (site, contrast) not in self._averages:
            self._averages[site, contrast] = self._find_average(site, contrast)
        return self._averages[site, contrast]

    def _find_average(self, site: str | None, contrast: str) -> TissueProfile | None:
        people: dict[str, ScanInput] = {}
        for scan in self.inputs:
            if site is not None and (scan.site, scan.contrast) == (site, contrast):
                people.setdefault(scan.subject, scan)
        if len(people) < FEWEST_PEOPLE:
            return None
        chosen = evenly_spread([people[subject] for subject in sorted(people)])
        profiles = [TissueProfile.from_dict(self.facts(scan)['profile']) for scan in chosen]
        return TissueProfile.average(profiles)

    def _record(self, scan: ScanInput, step: str) -> Path:
        return self.cache / f'{scan.name}_{step}.npz'

    def _session(self, inputs: tuple[ScanInput, ...]) -> Path:
        first = inputs[0]
        return self.cache / f'sub-{first.subject}_ses-{first.session}_aligned.npz'

    def _is_ready(self, inputs: tuple[ScanInput, ...]) -> bool:
        return all(self._record(scan, 'finished').exists() for scan in inputs)

    def _prepare(self, inputs: tuple[ScanInput, ...]) -> None:
        finished = [self._record(scan, 'finished') for scan in inputs]
        prepared = [self._record(scan, 'prepared') for scan in inputs]
        for scan, path in zip(inputs, prepared, strict=True):
            if not path.exists():
                prepare_scan(
                    path,
                    scan.path,
                    scan.name,
                    scan.contrast,
                    scan.volume,
                    scan.site,
                    super_resolution=self.super_resolution,
                )
        aligned = self._session(inputs)
        align_session(aligned, prepared)
        for before, after in zip(prepared, finished, strict=True):
            finish_scan(after, before, aligned)
            failure = Record(after).failure
            logger.info('%s: %s', after.stem, failure['message'] if failure else 'done')


def _open_cache(folder: Path, super_resolution: str) -> None:
    """Make the folder of the records, without those that were made otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    if _is_current(folder, super_resolution):
        return
    old = [path for step in STEPS for path in folder.glob(f'*_{step}.npz')]
    if old:
        logger.info('%s: the preprocessing has changed since: all is preprocessed anew', folder)
    for path in old:
        path.unlink()
    write_json(folder / STAMP, _stamp(super_resolution))


def _is_current(folder: Path, super_resolution: str) -> bool:
    path = folder / STAMP
    if not path.exists():
        return False
    return json.loads(path.read_text(encoding='utf-8')) == _stamp(super_resolution)


def _stamp(super_resolution: str) -> dict[str, str]:
    return {'code': _code(), 'super_resolution': super_resolution}


@cache
def _code() -> str:
    """Checksum of the code that makes the records."""
    package = Path(harmony_app.__file__).parent
    paths = [
        path for room in ('imaging', 'engine') for path in sorted((package / room).glob('*.py'))
    ]
    return files_checksum(
        [*paths, *(package / 'workflows' / f'{n}.py' for n in ('steps', 'records'))]
    )


def ordered_pairs(scans: list) -> Iterator[tuple]:
    """Every ordered pair of different items."""
    return ((a, b) for a in scans for b in scans if a is not b)
