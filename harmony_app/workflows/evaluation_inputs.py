"""What the results of the participant level hold to be evaluated: scans, people, pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_app.bids.atomic import read_table
from harmony_app.bids.derivatives import derivative_path
from harmony_app.bids.entities import parse_name
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.profile import TISSUES
from harmony_app.workflows.names import session_name

if TYPE_CHECKING:
    from harmony_app.workflows.lesions import LesionMask

_YES = ('yes', 'true', '1', 'y')


@dataclass(frozen=True)
class ResultScan:
    """One harmonized scan among the results.

    Parameters
    ----------
    name : str
        Entities and contrast, as in the quality tables.
    subject : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    contrast : str
        One of T1w, T2w, PDw, FLAIR.
    site : str or None
        Scanner and protocol, where known.
    entities : tuple of (str, str)
        Entities of the name, in its order.
    quality : mapping of str to str
        Its row of the quality table; cells that are absent are left out.
    theta : tuple of float
        Contrast representation of the scan; empty where the method has none.
    target_theta : tuple of float
        The same of the target.
    lesions : LesionMask or None
        Lesion mask of its session, where there is one.
    """

    name: str
    subject: str
    session: str | None
    contrast: str
    site: str | None
    entities: tuple[tuple[str, str], ...]
    quality: Mapping[str, str] = field(default_factory=dict)
    theta: tuple[float, ...] = ()
    target_theta: tuple[float, ...] = ()
    lesions: 'LesionMask | None' = None

    @property
    def visit(self) -> str:
        """Name of the session, for example ``sub-01_ses-a``."""
        return session_name(self.subject, self.session)

    def image(self, root: Path, desc: str) -> Path:
        """Image on the template's grid: ``preproc`` or ``harmonized``."""
        named = dict(self.entities)
        return derivative_path(root, named, self.contrast, desc=desc, space=SPACE, res='1')

    def brain(self, root: Path) -> Path:
        """Brain mask of the session on the template's grid."""
        return derivative_path(root, self._shared, 'mask', desc='brain', space=SPACE, res='1')

    def tissues(self, root: Path) -> tuple[Path, ...]:
        """Registered GM, WM and CSF maps of the session."""
        return tuple(
            derivative_path(root, self._shared, 'probseg', label=tissue, space=SPACE, res='1')
            for tissue in TISSUES
        )

    def figure(self, root: Path) -> Path:
        """Figure of the scan before and after."""
        named = dict(self.entities)
        return derivative_path(root, named, self.contrast, '.png', 'figures', desc='harmonized')

    @property
    def _shared(self) -> dict[str, str]:
        return {key: label for key, label in self.entities if key in ('sub', 'ses')}


@dataclass(frozen=True)
class ScanPair:
    """Two scans of one travelling subject and contrast, of two sessions or runs.

    ``rescan`` tells that both were made at one site: what harmonization can reach at best.
    """

    first: ResultScan
    second: ResultScan

    @property
    def rescan(self) -> bool:
        """Whether both are of one site."""
        return self.first.site == self.second.site


def result_scans(root: Path, rows: Sequence[Mapping[str, str]]) -> list[ResultScan]:
    """Scans of the quality tables, with the representations that the methods gave.

    Parameters
    ----------
    root : Path
        Output folder of the participant level.
    rows : sequence of mapping
        Rows of the quality tables.

    Returns
    -------
    list of ResultScan
        In the order of the rows.
    """
    styles: dict[Path, list[dict[str, str]]] = {}
    scans = []
    for row in rows:
        entities, suffix, _ = parse_name(row['scan'])
        shared = {key: label for key, label in entities.items() if key in ('sub', 'ses')}
        path = derivative_path(root, shared, 'qc', '.tsv', desc='style')
        if path not in styles:
            styles[path] = _rows(path)
        own = [style for style in styles[path] if style.get('result') == row['scan']]
        scans.append(
            ResultScan(
                name=row['scan'],
                subject=entities['sub'],
                session=entities.get('ses'),
                contrast=row.get('contrast', suffix),
                site=row.get('site'),
                entities=tuple(entities.items()),
                quality=dict(row),
                theta=_theta(own, row['scan']),
                target_theta=_theta(own, 'target'),
            )
        )
    return scans


def travelling_subjects(scans: Sequence[ResultScan], bids_dir: Path) -> set[str]:
    """Subjects that ``participants.tsv`` calls travelling, or with sessions at two sites or more.

    Parameters
    ----------
    scans : sequence of ResultScan
    bids_dir : Path
        Input dataset; its ``participants.tsv`` may be absent.

    Returns
    -------
    set of str
        Labels without ``sub-``, of subjects that have scans.
    """
    people = {scan.subject for scan in scans}
    told = {
        row['participant_id'].removeprefix('sub-')
        for row in _rows(Path(bids_dir) / 'participants.tsv')
        if row.get('traveling_subject', '').lower() in _YES and 'participant_id' in row
    }
    sites: dict[str, set[str]] = {}
    for scan in scans:
        if scan.site is not None:
            sites.setdefault(scan.subject, set()).add(scan.site)
    return (told & people) | {subject for subject, seen in sites.items() if len(seen) > 1}


def find_pairs(scans: Sequence[ResultScan], travelling: set[str]) -> list[ScanPair]:
    """Pairs of scans of one contrast of a travelling subject.

    Two sites make a pair; so do two sessions at one site, and two runs that differ in their
    number only. Scans of unknown site are left out.
    """
    known = [scan for scan in scans if scan.subject in travelling and scan.site is not None]
    pairs = []
    for first, second in combinations(known, 2):
        if (first.subject, first.contrast) != (second.subject, second.contrast):
            continue
        if first.site != second.site or _alike(first) == _alike(second):
            pairs.append(ScanPair(first, second))
    return pairs


def session_ages(scans: Sequence[ResultScan], bids_dir: Path) -> dict[str, float]:
    """Age at every session in years, of the sessions tables of the dataset.

    ``participants.tsv`` serves who has one session only: which of several it is of, it does not say.

    Parameters
    ----------
    scans : sequence of ResultScan
    bids_dir : Path
        Input dataset; the tables may be absent.

    Returns
    -------
    dict of str to float
        By name of the session; those without a number are left out.
    """
    ages = {}
    visits: dict[str, set[str]] = {}
    for scan in scans:
        visits.setdefault(scan.subject, set()).add(scan.visit)
    for row in _rows(Path(bids_dir) / 'participants.tsv'):
        own = visits.get(row.get('participant_id', '').removeprefix('sub-'), set())
        age = _number(row.get('age'))
        if len(own) == 1 and age is not None:
            ages[min(own)] = age
    for subject in sorted(visits):
        table = Path(bids_dir) / f'sub-{subject}' / f'sub-{subject}_sessions.tsv'
        for row in _rows(table):
            age = _number(row.get('age'))
            if age is not None and 'session_id' in row:
                label = row['session_id'].removeprefix('ses-')
                ages[session_name(subject, label)] = age
    return ages


def _alike(scan: ResultScan) -> tuple:
    """What rescans have in common: all entities but session and run."""
    return tuple(pair for pair in scan.entities if pair[0] not in ('ses', 'run'))


def _theta(rows: Sequence[Mapping[str, str]], scan: str) -> tuple[float, ...]:
    for row in rows:
        if row.get('scan') == scan:
            keys = sorted((k for k in row if k.startswith('theta_')), key=lambda k: int(k[6:]))
            numbers = [_number(row[key]) for key in keys]
            return () if None in numbers else tuple(numbers)
    return ()


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return read_table(path)
    except (OSError, UnicodeDecodeError):
        return []


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < float('inf') else None
