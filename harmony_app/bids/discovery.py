"""What a dataset holds: every image of every ``anat`` folder, used or skipped and why."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harmony_app.bids.atomic import write_table
from harmony_app.bids.entities import ENTITY_ORDER, clean_label, parse_name, unusable_name
from harmony_app.bids.filters import Selection, rejects
from harmony_app.bids.metadata import Metadata
from harmony_app.errors import InputError, OutputError, ScanError, SelectionError
from harmony_app.methods.base import CONTRASTS

logger = logging.getLogger('harmony_app')

COLUMNS = ['path', 'volume', 'contrast', 'suffix', 'entities', 'site', 'status', 'reason']
"""Columns of ``inputs.tsv``."""

PDT2_CONTRASTS = ('PDw', 'T2w')
"""Contrasts of the two volumes of a PDT2 image, in the order that BIDS fixes."""

NEVER = {
    'UNIT1': 'UNIT1 is not a T1w: its background is noise of full strength',
    'MP2RAGE': 'a raw MP2RAGE inversion is not a T1w; its UNIT1 is skipped too',
    'defacemask': 'a mask',
}
"""Suffixes that look like a contrast and are none."""


@dataclass(frozen=True)
class ScanInput:
    """One scan to harmonize: a file, or one volume of a PDT2 file.

    Parameters
    ----------
    path : Path or None
        Image file; None where a workflow is built before the file is there.
    subject : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    contrast : str
        One of T1w, T2w, PDw, FLAIR.
    entities : tuple of (str, str)
        Entities that name its results.
    volume : int or None
        Index of the volume in a PDT2 file.
    site : str or None
        Scanner and protocol, where known.
    """

    path: Path | None
    subject: str
    session: str | None
    contrast: str
    entities: tuple[tuple[str, str], ...]
    volume: int | None = None
    site: str | None = None

    @property
    def name(self) -> str:
        """Entities and contrast, for messages, tables and ``Scan.name``."""
        return '_'.join([f'{key}-{label}' for key, label in self.entities] + [self.contrast])


@dataclass(frozen=True)
class Row:
    """One row of ``inputs.tsv``; ``reason`` is empty for a scan that is used."""

    path: Path
    contrast: str
    suffix: str
    entities: tuple[tuple[str, str], ...]
    reason: str
    volume: int | None = None
    site: str | None = None

    @property
    def used(self) -> bool:
        """Whether the scan is harmonized."""
        return not self.reason


@dataclass(frozen=True)
class Inventory:
    """Everything found in a dataset, in the order of the file names.

    Parameters
    ----------
    root : Path
        The dataset.
    rows : tuple of Row
        One for each image (two for a PDT2).
    """

    root: Path
    rows: tuple[Row, ...]
    _sessions: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def scans(self) -> tuple[ScanInput, ...]:
        """The scans that are used."""
        return tuple(
            ScanInput(
                path=row.path,
                subject=dict(row.entities)['sub'],
                session=dict(row.entities).get('ses'),
                contrast=row.contrast,
                entities=row.entities,
                volume=row.volume,
                site=row.site,
            )
            for row in self.rows
            if row.used
        )

    @property
    def sessions(self) -> dict[tuple[str, str | None], tuple[ScanInput, ...]]:
        """Scans that are used by (subject, session)."""
        if not self._sessions:
            grouped: dict = {}
            for scan in self.scans:
                grouped.setdefault((scan.subject, scan.session), []).append(scan)
            self._sessions.update({key: tuple(scans) for key, scans in grouped.items()})
        return self._sessions

    def write(self, path: Path) -> Path:
        """Write ``inputs.tsv``: every image, used or skipped and why."""
        rows = [
            {
                'path': row.path.relative_to(self.root).as_posix(),
                'volume': row.volume,
                'contrast': row.contrast,
                'suffix': row.suffix,
                'entities': ' '.join(f'{key}-{label}' for key, label in row.entities),
                'site': row.site,
                'status': 'use' if row.used else 'skip',
                'reason': row.reason,
            }
            for row in self.rows
        ]
        return write_table(path, COLUMNS, rows)


def list_participants(root: Path) -> tuple[str, ...]:
    """Labels of the participants that have a folder, sorted."""
    return tuple(
        sorted(
            entry.name.removeprefix('sub-')
            for entry in root.glob('sub-*')
            if entry.is_dir() and re.fullmatch(r'sub-[a-zA-Z0-9+]+', entry.name)
        )
    )


def select_participants(root: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """Participants of a dataset, all or those that are wanted.

    Raises
    ------
    InputError
        Where the dataset has none.
    SelectionError
        Where a wanted one is not there; the message names some that are.
    """
    existing = list_participants(root)
    if not existing:
        raise InputError(f'{root} has no sub-* folder: is it the root of a BIDS dataset?')
    unknown = [label for label in wanted if label not in existing]
    if unknown:
        raise SelectionError(
            f'--participant-label {" ".join(unknown)} is not in {root}; there are '
            f'{_some(existing)} (in a container, check what is mounted)'
        )
    return tuple(label for label in existing if not wanted or label in wanted)


def discover(
    root: Path, selection: Selection, database: Path | None = None, wipe: bool = False
) -> Inventory:
    """Find the scans of a dataset.

    PyBIDS indexes the selected participants; no image data are read, headers only.

    Parameters
    ----------
    root : Path
        Raw BIDS dataset.
    selection : Selection
        What the user wants.
    database : Path, optional
        Folder in which PyBIDS keeps its index; all participants are indexed then.
    wipe : bool
        Make that index anew.

    Raises
    ------
    OutputError
        Where the index cannot be kept there.
    InputError
        Where no image of a wanted contrast is there (the message says what is), or the index is
        of another dataset.
    SelectionError
        Where a participant or session is unknown, or the filters leave nothing.
    """
    root = Path(root).resolve()
    participants = select_participants(root, selection.participants)
    if database is None:
        paths = _index(root, participants)
    else:
        paths = _read_index(root, participants, database, wipe)
    metadata = Metadata(root)
    rows: list[Row] = []
    named: set[tuple] = set()
    for path in paths:
        for row in _judge(path, selection, metadata):
            key = (row.entities, row.contrast)
            if row.used and key in named:
                # .nii beside .nii.gz: the results of both would have one name.
                row = _skipped(row, 'another file has the same name')
            elif row.used:
                named.add(key)
            rows.append(row)
    inventory = Inventory(root, tuple(rows))
    _check_found(inventory, selection, participants)
    return inventory


def _index(
    root: Path, participants: Sequence[str], database: Path | None = None, wipe: bool = False
) -> list[Path]:
    """Images of the ``anat`` folders of the participants, by PyBIDS."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    labels = '|'.join(re.escape(label) for label in participants)
    indexer = BIDSLayoutIndexer(
        validate=False,
        index_metadata=False,
        ignore=[
            # Patterns are matched from the root of the dataset, folders before files.
            re.compile(r'^/(code|models|sourcedata|stimuli|derivatives)(/|$)'),
            re.compile(rf'^/sub-(?!(?:{labels})(?:/|$))'),
            re.compile(r'/(func|dwi|fmap|perf|eeg|meg|ieeg|pet|beh|micr|nirs|motion|mrs)(/|$)'),
        ],
    )
    kept = {} if database is None else {'database_path': database, 'reset_database': wipe}
    layout = BIDSLayout(root, validate=False, indexer=indexer, **kept)
    files = layout.get(extension=['.nii', '.nii.gz'], return_type='filename')
    return sorted(Path(file) for file in files if Path(file).parent.name == 'anat')


def _read_index(root: Path, participants: Sequence[str], database: Path, wipe: bool) -> list[Path]:
    """Images of the participants by an index that is kept, of all participants."""
    everyone = list_participants(root)
    try:
        database.mkdir(parents=True, exist_ok=True)
        files = _index(root, everyone, database, wipe)
    except OSError as error:
        raise OutputError(
            f'--bids-database-dir {database} cannot be used ({error.strerror}); give another folder'
        ) from error
    outside = [path for path in files if root not in path.parents]
    if outside:
        raise InputError(
            f'--bids-database-dir {database} is the index of another dataset ({outside[0]}); '
            'give --bids-database-wipe, or another folder'
        )
    folders = {f'sub-{label}' for label in participants}
    return [path for path in files if path.relative_to(root).parts[0] in folders]


def _judge(path: Path, selection: Selection, metadata: Metadata) -> list[Row]:
    """The row of an image, or the two of a PDT2."""
    entities, suffix, _ = parse_name(path.name)
    site = metadata.site(path) if 'sub' in entities else None
    plain = tuple(entities.items())
    if suffix == 'PDT2':
        entities = dict(entities, acq=clean_label(entities.get('acq', '')) + 'PDT2')
        split = _in_order(entities)
        count = _volumes(path)
        reason = '' if count in (2, None) else f'a PDT2 has two volumes, not {count}'
        return [
            Row(
                path,
                contrast,
                suffix,
                split,
                reason or _reason(path, dict(plain), contrast, selection),
                volume,
                site,
            )
            for volume, contrast in enumerate(PDT2_CONTRASTS)
        ]
    contrast = suffix if suffix in CONTRASTS else ''
    reason = _reason(path, entities, suffix, selection)
    if not reason:
        count = _volumes(path)
        if count not in (1, None):
            reason = f'4D: {count} volumes; give one volume per file'
    return [Row(path, contrast, suffix, plain, reason, None, site)]


def _reason(path: Path, entities: dict, suffix: str, selection: Selection) -> str:
    """Why an image is skipped; empty for one that is used."""
    if suffix in NEVER:
        return NEVER[suffix]
    if suffix not in CONTRASTS:
        return f'other modality: {suffix}'
    if 'sub' not in entities:
        return 'its name has no sub-'
    if wrong := unusable_name(path.name):
        return wrong
    if any(key in entities for key in ('space', 'desc', 'label', 'res')):
        return 'named like a derivative, not like a raw scan'
    if 'inv' in entities:
        return 'one inversion of a sequence of several'
    part = entities.get('part', 'mag')
    if part != 'mag':
        return f'part-{part} is not a magnitude image'
    if 'chunk' in entities:
        return f'chunk-{entities["chunk"]} is a part of the field of view'
    if 'ce' in entities and not selection.include_contrast_enhanced:
        return (
            f'after contrast agent (ce-{entities["ce"]}); '
            'give --include-contrast-enhanced to harmonize it'
        )
    if suffix not in selection.modalities:
        return f'filtered out: {suffix} is not in --modalities'
    session = entities.get('ses')
    if selection.sessions and session is not None and session not in selection.sessions:
        return f'filtered out: ses-{session} is not in --session-label'
    if not path.exists():
        return 'its content is not here (a broken link; fetch it with git-annex or DataLad)'
    return rejects(entities, selection.filters.get(suffix, {})) or ''


def _volumes(path: Path) -> int | None:
    """Volumes of an image by its header; None where it cannot be read (reported later)."""
    from harmony_app.imaging.headers import open_image

    try:
        shape = open_image(path).shape
    except ScanError:
        return None
    return math.prod(shape[3:])


def _in_order(entities: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Entities in the order of the schema."""
    order = {key: index for index, key in enumerate(ENTITY_ORDER)}
    return tuple(sorted(entities.items(), key=lambda item: order.get(item[0], len(order))))


def _skipped(row: Row, reason: str) -> Row:
    return Row(row.path, row.contrast, row.suffix, row.entities, reason, row.volume, row.site)


def _check_found(inventory: Inventory, selection: Selection, participants: Sequence[str]) -> None:
    """Refuse an empty selection, and say what was there instead."""
    sessions = {dict(row.entities).get('ses') for row in inventory.rows} - {None}
    unknown = [label for label in selection.sessions if label not in sessions]
    if unknown and sessions:
        raise SelectionError(
            f'--session-label {" ".join(unknown)} is not in {inventory.root}; there are '
            f'{_some(sorted(sessions))}'
        )
    if inventory.scans:
        return
    filtered = [row for row in inventory.rows if row.reason.startswith('filtered out')]
    if filtered:
        raise SelectionError(
            f'the filters leave no scan of {len(filtered)} in {inventory.root}; '
            f'for example {filtered[0].path.name}: {filtered[0].reason}'
        )
    if inventory.rows:
        reasons = [f'{row.path.name} ({row.reason})' for row in inventory.rows]
        found = f'{len(inventory.rows)} images, none of them usable: {_some(reasons, 3)}'
    else:
        found = 'no image in any anat folder'
    raise InputError(
        f'no {", ".join(selection.modalities)} scan of {_some(participants)} in '
        f'{inventory.root}: found {found}'
    )


def _some(items: Sequence[str], count: int = 10) -> str:
    shown = ', '.join(items[:count])
    return f'{shown} and {len(items) - count} more' if len(items) > count else shown
