"""Which results of the participant level the group level works on."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.atomic import read_table
from harmony_app.bids.entities import parse_name
from harmony_app.bids.filters import Selection, rejects
from harmony_app.config import RunConfig
from harmony_app.errors import InputError, ScanError, SelectionError
from harmony_app.methods.base import CONTRASTS
from harmony_app.workflows.names import session_name

WITHOUT_EFFECT = {
    'method': '--method',
    'model': '--model',
    'target': '--target',
    'detail': '--detail',
    'fusion': '--fusion',
    'noise': '--noise',
    'site_average': '--site-average',
    'super_resolution': '--super-resolution',
    'impute': '--impute',
    'include_contrast_enhanced': '--include-contrast-enhanced',
    'skip_bids_validation': '--skip-bids-validation',
    'bids_database_dir': '--bids-database-dir',
    'skull_strip': '--skull-strip',
    'ignore': '--ignore',
    'output_spaces': '--output-spaces',
    'export_fmriprep': '--export-fmriprep',
    'device': '--device',
    'low_mem': '--low-mem',
    'plugin_file': '--use-plugin',
    'resource_monitor': '--resource-monitor',
    'clean_workdir': '--clean-workdir',
    'keep_workdir': '--keep-workdir',
    'sloppy': '--sloppy',
    'write_graph': '--write-graph',
    'stop_on_first_crash': '--stop-on-first-crash',
    'overwrite': '--overwrite',
    'skip_existing': '--skip-existing',
    'reports_only': '--reports-only',
    'report_3d': '--report-3d',
    'aggregate_session_reports': '--aggregate-session-reports',
    'phantom': '--phantom',
    'biology': '--biology',
    'site': '--site',
    'model_out': '--model-out',
    'minutes': '--minutes',
    'steps': '--steps',
    'batch_size': '--batch-size',
    'patience': '--patience',
    'precision': '--precision',
}
"""Settings that reports and evaluations do not read, and their options."""

_WORDS = ('scan', 'contrast', 'site', 'method', 'target', 'artifact_flag')


def quality_rows(root: Path) -> list[dict[str, str]]:
    """Rows of the quality tables of all participants, by name of the scan.

    Numbers that are not finite are left out of their rows.

    Parameters
    ----------
    root : Path
        Output folder of the participant level.

    Raises
    ------
    InputError
        Where no participant has results.
    ScanError
        Where a table is not one of the participant level.
    """
    tables = sorted(root.glob('sub-*/anat/*_desc-harmonized_qc.tsv'))
    tables += sorted(root.glob('sub-*/ses-*/anat/*_desc-harmonized_qc.tsv'))
    rows = [row for table in tables for row in _quality_table(table)]
    if not rows:
        raise InputError(
            f'{root} holds no results of the participant level; run it before the group level'
        )
    return sorted(rows, key=lambda row: row['scan'])


def select_rows(
    rows: Sequence[Mapping[str, str]], selection: Selection, root: Path
) -> list[Mapping[str, str]]:
    """Rows of the participants, sessions and contrasts that are wanted.

    As at the participant level, scans without a session pass whatever sessions are wanted.

    Parameters
    ----------
    rows : sequence of mapping
        As :func:`quality_rows` gives them.
    selection : Selection
        What the user wants; whether scans after contrast agent are among the results was
        decided at the participant level.
    root : Path
        Output folder, for messages.

    Raises
    ------
    SelectionError
        Where a participant or session has no results, or nothing is left.
    """
    named = [(row, parse_name(row['scan'])[0]) for row in rows]
    for flag, key, wanted in (
        ('--participant-label', 'sub', selection.participants),
        ('--session-label', 'ses', selection.sessions),
    ):
        known = sorted({entities[key] for _, entities in named if key in entities})
        unknown = [label for label in wanted if label not in known]
        if unknown and known:
            raise SelectionError(
                f'{flag} {" ".join(unknown)} has no results in {root}; there are {_some(known)}'
            )
    kept = [
        row
        for row, entities in named
        if row['contrast'] in selection.modalities
        and (not selection.participants or entities['sub'] in selection.participants)
        and (not selection.sessions or entities.get('ses', '') in ('', *selection.sessions))
        and rejects(entities, selection.filters.get(row['contrast'], {})) is None
    ]
    if not kept:
        found = [c for c in CONTRASTS if any(row['contrast'] == c for row in rows)]
        raise SelectionError(
            f'the filters leave none of the {len(rows)} results in {root} '
            f'({", ".join(found)}); give other labels, --modalities or filters'
        )
    return kept


def describe_group(
    config: RunConfig, rows: Sequence[Mapping[str, str]], files: Sequence[str]
) -> list[str]:
    """What the group level would read and write, in words.

    Parameters
    ----------
    config : RunConfig
        Task and output folder are told.
    rows : sequence of mapping
        What was selected.
    files : sequence of str
        Names of the files that would be written.
    """
    sessions: dict[str, list[str]] = {}
    for row in rows:
        entities, suffix, _ = parse_name(row['scan'])
        rest = [f'{k}-{label}' for k, label in entities.items() if k not in ('sub', 'ses')]
        visit = session_name(entities['sub'], entities.get('ses'))
        sessions.setdefault(visit, []).append('_'.join([*rest, suffix]))
    read = 'quality tables'
    if config.task == 'evaluate':
        read += ', images before and after, brain masks and tissue maps'
    lines = [
        f'harmony-app {__version__}: group level, task {config.task}, {len(rows)} scans in '
        f'{len(sessions)} sessions',
        f'  would read in {config.output_dir}: {read} of',
    ]
    lines += [f'    {visit}: {", ".join(scans)}' for visit, scans in sessions.items()]
    lines.append(f'  would write in {config.output_dir}, each table with a JSON beside it:')
    return [*lines, f'    {", ".join(files)}', '  nothing was written (--dry-run)']


def without_effect(config: RunConfig) -> list[str]:
    """Options that were given and that the group level does not read.

    Examples
    --------
    >>> without_effect(RunConfig(Path('in'), Path('out'), 'group', overwrite=True))
    ['--overwrite']
    """
    unread = WITHOUT_EFFECT
    if config.task != 'evaluate':
        unread = unread | {'derivatives': '--derivatives'}
    plain = RunConfig(config.bids_dir, config.output_dir)
    return [flag for name, flag in unread.items() if getattr(config, name) != getattr(plain, name)]


def _quality_table(path: Path) -> list[dict[str, str]]:
    try:
        rows = read_table(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is not text'
        raise ScanError(f'cannot read {path}: {reason}; run its session again') from error
    checked = []
    for row in rows:
        if 'sub' not in parse_name(row.get('scan', ''))[0] or row.get('contrast') not in CONTRASTS:
            raise ScanError(
                f'{path} has a row without a scan or contrast: it is no table of the participant '
                'level; run its session again'
            )
        checked.append({k: v for k, v in row.items() if k in _WORDS or _is_number(v)})
    return checked


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _some(items: Sequence[str], count: int = 10) -> str:
    shown = ', '.join(items[:count])
    return f'{shown} and {len(items) - count} more' if len(items) > count else shown
