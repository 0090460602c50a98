"""What the results say of a participant: scans that were found, how they ended, and with what."""

import json
import logging
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harmony_app.bids.atomic import read_table
from harmony_app.bids.derivatives import derivative_path, sidecar_path
from harmony_app.bids.entities import parse_name
from harmony_app.bids.publish import read_marker
from harmony_app.errors import InputError
from harmony_app.imaging.grid import SPACE
from harmony_app.methods.base import CONTRASTS, Style
from harmony_app.workflows.evaluation_inputs import ResultScan, result_scans
from harmony_app.workflows.names import session_name

logger = logging.getLogger('harmony_app')

_RUN = re.compile(r'\d{8}-\d{6}_\w+')


@dataclass(frozen=True)
class RunLog:
    """What a run left in ``logs``.

    Parameters
    ----------
    name : str
        Name of the run: its folder.
    settings : mapping
        Content of ``harmony_app.toml``; empty where it cannot be read.
    inputs, outcomes : mapping of str to list
        Rows of ``inputs.tsv`` and ``outcomes.tsv`` by label of the participant.
    """

    name: str
    settings: Mapping
    inputs: Mapping[str, list[dict[str, str]]]
    outcomes: Mapping[str, list[dict[str, str]]]


@dataclass(frozen=True)
class ReportScan:
    """A scan, as a page tells it.

    Parameters
    ----------
    name, contrast, visit : str
        Its name, contrast and session.
    status : str
        ``done``, ``failed`` or ``skipped``.
    message : str
        What to know of it; why it failed.
    run : str
        Run that the status is of; empty where it is not known.
    crash : str
        Crash file, as seen from the output folder; empty without.
    result : ResultScan or None
        Its row of the quality tables, where it has results.
    styles : tuple of mapping
        Its rows of ``desc-style_qc.tsv``.
    sidecar, before : mapping
        Sidecars of the harmonized and of the preprocessed image; empty where they are absent.
    target : Style or None
        What it was brought to.
    """

    name: str
    contrast: str
    visit: str
    status: str
    message: str = ''
    run: str = ''
    crash: str = ''
    result: ResultScan | None = None
    styles: tuple[Mapping[str, str], ...] = ()
    sidecar: Mapping = field(default_factory=dict)
    before: Mapping = field(default_factory=dict)
    target: Style | None = None

    @property
    def told(self) -> str:
        """Its message, without the path of a crash file: the page links to it."""
        return f'{self.visit} stopped; see Errors' if self.crash else self.message

    @property
    def notes(self) -> list[str]:
        """What was mended, interpolated or doubted when the scan was read."""
        return [str(note) for note in self.sidecar.get('SourceScan', {}).get('Notes', [])]

    @property
    def doubts(self) -> list[str]:
        """Reasons to look at a result before it is used."""
        told = [part for part in self.message.split('; ') if part] if self.status == 'done' else []
        quality = self.result.quality if self.result else {}
        if quality.get('artifact_flag') == 'doubtful':
            level = quality.get('artifact_level', '')
            told.append(f'the scan may have artifacts (level {level}, doubtful): look at it')
        # Of an earlier run the marker may be gone; the sidecar is not.
        doubted = [note for note in self.notes if 'doubtful' in note]
        if doubted and not any('registration' in part for part in told):
            told += doubted
        return told


@dataclass(frozen=True)
class ReportSession:
    """A session, as a page tells it.

    Parameters
    ----------
    name : str
        For example ``sub-01_ses-a``.
    label : str or None
        Label without ``ses-``.
    scans : tuple of ReportScan
    imputed : tuple of (str, Path)
        Contrast and image of what was made without being acquired.
    mask_given : bool
        Whether its brain mask is that of another dataset.
    """

    name: str
    label: str | None
    scans: tuple[ReportScan, ...]
    imputed: tuple[tuple[str, Path], ...] = ()
    mask_given: bool = False


@dataclass(frozen=True)
class Subject:
    """A participant, as a page tells it.

    Parameters
    ----------
    label : str
        Without ``sub-``.
    sessions : tuple of ReportSession
    inputs : tuple of mapping
        Rows of ``inputs.tsv``: every image that was found.
    runs : mapping of str to RunLog
        Runs that the scans are of, by name.
    """

    label: str
    sessions: tuple[ReportSession, ...]
    inputs: tuple[Mapping[str, str], ...]
    runs: Mapping[str, RunLog]

    @property
    def scans(self) -> list[ReportScan]:
        """Scans of all sessions."""
        return [scan for session in self.sessions for scan in session.scans]


def read_runs(root: Path) -> list[RunLog]:
    """Logs of the runs, oldest first."""
    folders = [path for path in (root / 'logs').glob('*') if _RUN.fullmatch(path.name)]
    runs = []
    for folder in sorted(folders):
        try:
            settings = tomllib.loads((folder / 'harmony_app.toml').read_text(encoding='utf-8'))
        except (OSError, ValueError):
            settings = {}
        inputs = _by_subject(_rows(folder / 'inputs.tsv'), 'path')
        outcomes = _by_subject(_rows(folder / 'outcomes.tsv'), 'scan')
        runs.append(RunLog(folder.name, settings, inputs, outcomes))
    return runs


def list_subjects(root: Path, runs: Sequence[RunLog], wanted: Sequence[str] = ()) -> list[str]:
    """Labels of the participants that a page can be made of.

    Parameters
    ----------
    root : Path
        Output folder.
    runs : sequence of RunLog
        From :func:`read_runs`: of who crashed nothing else may be there.
    wanted : sequence of str
        Labels; all by default.

    Raises
    ------
    InputError
        Where there is none, or a wanted one is not there.
    """
    found = {path.name.removeprefix('sub-') for path in root.glob('sub-*') if path.is_dir()}
    for marker in (root / 'logs' / 'sessions').glob('sub-*.json'):
        found.add(parse_name(f'{marker.stem}_T1w')[0]['sub'])
    found |= {label for run in runs for label in run.outcomes}
    if not found:
        raise InputError(
            f'{root} holds no results of the participant level; run it without --reports-only first'
        )
    if unknown := [label for label in wanted if label not in found]:
        raise InputError(
            f'--participant-label {" ".join(unknown)} has no results in {root}; there are '
            f'{", ".join(sorted(found)[:10])}'
        )
    return sorted(label for label in found if not wanted or label in wanted)


def gather_subject(root: Path, label: str, runs: Sequence[RunLog]) -> Subject:
    """Everything that the results say of a participant.

    Parameters
    ----------
    root : Path
        Output folder.
    label : str
        Participant without ``sub-``.
    runs : sequence of RunLog
        From :func:`read_runs`.
    """
    markers = {}
    for path in sorted((root / 'logs' / 'sessions').glob(f'sub-{label}*.json')):
        if parse_name(f'{path.stem}_T1w')[0].get('sub') == label:
            markers[path.stem] = read_marker(root, path.stem) or {}
    states = _states(label, markers, runs)
    results, styles = _results(root, label)
    targets = {
        (visit, contrast): fields
        for visit, marker in markers.items()
        for contrast, fields in marker.get('targets', {}).items()
    }
    scans: dict[str, list[ReportScan]] = {visit: [] for visit in markers}
    for name in sorted(set(states) | set(results), key=_order):
        entities, contrast, _ = parse_name(name)
        visit = session_name(label, entities.get('ses'))
        result = results.get(name)
        scans.setdefault(visit, []).append(
            ReportScan(
                name,
                contrast,
                visit,
                **states.get(name, {'status': 'done'}),
                result=result,
                styles=tuple(row for row in styles if row.get('result') == name),
                sidecar=_sidecar(root, result, 'harmonized'),
                before=_sidecar(root, result, 'preproc'),
                target=_target(targets.get((visit, contrast)), result),
            )
        )
    sessions = tuple(
        ReportSession(
            visit,
            _session_label(visit),
            tuple(found),
            _imputed(root, label, visit),
            _mask_given(root, label, visit),
        )
        for visit, found in sorted(scans.items())
    )
    named = {scan.run for found in scans.values() for scan in found}
    kept = {run.name: run for run in runs if run.name in named}
    return Subject(label, sessions, tuple(_inputs(label, runs)), kept)


def _states(label: str, markers: Mapping[str, dict], runs: Sequence[RunLog]) -> dict[str, dict]:
    """Status, message, run and crash file of each scan: of the newest run that worked on it."""
    states: dict[str, dict] = {}
    for marker in markers.values():
        for name, state in marker.get('scans', {}).items():
            states[name] = {
                'status': state['status'],
                'message': state['message'],
                'run': marker.get('run', ''),
            }
    for run in runs:
        for row in run.outcomes.get(label, ()):
            if row.get('status') not in ('done', 'failed', 'skipped'):
                continue
            states[row['scan']] = {
                'status': row['status'],
                'message': row.get('message', ''),
                'run': run.name,
                'crash': f'logs/{run.name}/{row["crash"]}' if 'crash' in row else '',
            }
    return states


def _results(root: Path, label: str) -> tuple[dict[str, ResultScan], list[dict[str, str]]]:
    """Rows of the quality tables by scan, and those of the representations."""
    folder = root / f'sub-{label}'
    rows, styles = [], []
    for anat in (folder / 'anat', *sorted(folder.glob('ses-*/anat'))):
        for table in sorted(anat.glob('*_desc-harmonized_qc.tsv')):
            rows += [row for row in _rows(table) if 'scan' in row]
        for table in sorted(anat.glob('*_desc-style_qc.tsv')):
            styles += _rows(table)
    return {scan.name: scan for scan in result_scans(root, rows)}, styles


def _inputs(label: str, runs: Sequence[RunLog]) -> list[dict[str, str]]:
    """Every image that was found, by the newest run that did not merely filter it out."""
    rows: dict[tuple, dict[str, str]] = {}
    for run in runs:
        for row in run.inputs.get(label, ()):
            key = row['path'], row.get('volume', '')
            filtered = row.get('reason', '').startswith('filtered out')
            if key not in rows or not filtered:
                rows[key] = row
    return [rows[key] for key in sorted(rows)]


def _imputed(root: Path, label: str, visit: str) -> tuple[tuple[str, Path], ...]:
    shared = {'sub': label, 'ses': _session_label(visit) or ''}
    found = []
    for contrast in CONTRASTS:
        path = derivative_path(root, shared, contrast, desc='imputed', space=SPACE, res='1')
        if path.is_file():
            found.append((contrast, path))
    return tuple(found)


def _mask_given(root: Path, label: str, visit: str) -> bool:
    shared = {'sub': label, 'ses': _session_label(visit) or ''}
    mask = derivative_path(root, shared, 'mask', desc='brain', space=SPACE, res='1')
    return 'given' in str(_json(sidecar_path(mask)).get('Description', ''))


def _sidecar(root: Path, result: ResultScan | None, desc: str) -> dict:
    if result is None:
        return {}
    found = _json(sidecar_path(result.image(root, desc)))
    # Without images on the template's grid those on the scan's own say the same.
    own = derivative_path(root, dict(result.entities), result.contrast, desc=desc)
    return found or _json(sidecar_path(own))


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _target(fields: Mapping | None, result: ResultScan | None) -> Style | None:
    """The style that a scan was brought to; None where another of its contrast was used since."""
    if not fields or result is None:
        return None
    try:
        style = Style.from_dict(dict(fields))
    except (KeyError, TypeError, ValueError):
        return None
    return style if style.name == result.quality.get('target') else None


def _order(name: str) -> tuple:
    entities, contrast, _ = parse_name(name)
    place = CONTRASTS.index(contrast) if contrast in CONTRASTS else len(CONTRASTS)
    return entities.get('ses', ''), place, name


def _session_label(visit: str) -> str | None:
    return parse_name(f'{visit}_T1w')[0].get('ses')


def _by_subject(rows: Sequence[dict[str, str]], column: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        label = parse_name(row.get(column, ''))[0].get('sub')
        if label:
            found.setdefault(label, []).append(row)
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return read_table(path)
    except (OSError, UnicodeDecodeError):
        return []
