"""The page of a participant, from what lies in the output tree alone."""

import logging
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.atomic import write_text
from harmony_app.config import DEFAULT_AGGREGATE
from harmony_app.reports.html import (
    Link,
    asset,
    facts,
    folded,
    heading,
    items,
    link,
    message,
    page,
    paragraph,
    table,
)
from harmony_app.reports.methods_text import methods_text
from harmony_app.reports.references import cited_in
from harmony_app.reports.viewer import shown_scan, viewer, viewer_scripts
from harmony_app.workflows.report_facts import gather_facts
from harmony_app.workflows.report_inputs import (
    ReportScan,
    ReportSession,
    RunLog,
    Subject,
    gather_subject,
    read_runs,
)
from harmony_app.workflows.report_scan import Views, imputed_part, scan_part, stage_volumes

logger = logging.getLogger('harmony_app')

LARGEST = 15_000_000
"""Bytes that a page never passes: what mail and old machines bear."""

_LADDER = (Views(detailed=True), Views(detailed=False), Views(pictures=False))
"""What a page shows, richest first: the first that fits is taken."""

_STEPS = (1, 2, 3, 4)
"""Edges of the voxels of the view in three dimensions, in those of the images, finest first."""

_SCAN_BYTES = 9_000_000
"""Characters that a scan may take at 1 mm, before and after: more are not even tried."""

_CRASH_LINES = 12

_INPUT_COLUMNS = {
    'path': 'File of the input dataset',
    'volume': 'Volume of a PDT2 image',
    'contrast': 'Contrast',
    'site': 'Scanner and protocol',
    'status': 'used or skipped',
    'reason': 'Why it was skipped',
    'result': 'How it ended',
    'notes': 'What was mended, interpolated or seen when it was read',
}


def write_report(
    root: Path,
    label: str,
    aggregate: int = DEFAULT_AGGREGATE,
    view_3d: bool = False,
    runs: Sequence[RunLog] | None = None,
) -> list[Path]:
    """Write the page of a participant; with many sessions an overview and a page for each.

    Parameters
    ----------
    root : Path
        Output folder.
    label : str
        Participant without ``sub-``.
    aggregate : int
        Sessions of one page, at most.
    view_3d : bool
        Whether the pages have a view in three dimensions.
    runs : sequence of RunLog, optional
        From :func:`~harmony_app.workflows.report_inputs.read_runs`, where several pages are made.

    Returns
    -------
    list of Path
        Files written.

    Raises
    ------
    OutputError
        Where a page cannot be written.
    """
    subject = gather_subject(root, label, read_runs(root) if runs is None else runs)
    old = {path for path in root.glob(f'sub-{label}_ses-*.html') if path.is_file()}
    whole = root / f'sub-{label}.html'
    if len(subject.sessions) <= aggregate:
        pages = {whole: _subject_page(root, subject, subject.sessions, view_3d)}
    else:
        pages = {
            root / f'{session.name}.html': _subject_page(root, subject, [session], view_3d)
            for session in subject.sessions
        }
        pages[whole] = _overview(subject)
    for path, text in pages.items():
        write_text(path, text)
    for path in old - set(pages):
        path.unlink()
    return list(pages)


def _subject_page(
    root: Path, subject: Subject, sessions: Sequence[ReportSession], view_3d: bool
) -> str:
    scripts = [asset('assets/compare.js')]
    for views in _LADDER:
        parts: dict[str, str] = {}
        drawn: list[tuple[ReportScan, tuple[float, float]]] = []
        for session in sessions:
            for scan in session.scans:
                part = scan_part(root, subject, scan, views)
                parts[scan.name] = f'<div id="{escape(scan.name)}"></div>\n{part.html}'
                if view_3d and part.window:
                    drawn.append((scan, part.window))
            for contrast, path in session.imputed:
                parts[f'{session.name}, imputed {contrast}'] = imputed_part(contrast, path)
        text = _assembled(root, subject, sessions, parts, scripts)
        if len(text.encode()) <= LARGEST:
            break
    if drawn:
        live = [*scripts, *viewer_scripts()]
        room = LARGEST - len(text.encode()) - sum(len(script.encode()) for script in live) - 10_000
        if view := _viewer(root, drawn, room):
            text = _assembled(root, subject, sessions, parts, live, view)
    return text


def _assembled(
    root: Path,
    subject: Subject,
    sessions: Sequence[ReportSession],
    parts: Mapping[str, str],
    scripts: Sequence[str],
    view: str = '',
) -> str:
    scans = [scan for session in sessions for scan in session.scans]
    sections = {'What was found': _found(subject, sessions), **parts}
    if view:
        sections['3D view'] = view
    if errors := _errors(root, scans):
        sections['Errors'] = errors
    sections['Settings'] = _run_settings(subject, scans)
    sections['Methods'] = _methods(subject, sessions)
    one = len(sessions) == 1 and sessions[0].label is not None
    title = sessions[0].name if one else f'sub-{subject.label}'
    return page(f'Harmonization of {title}', _introduction(sessions), sections, scripts)


def _introduction(sessions: Sequence[ReportSession]) -> str:
    """How it went: what failed and what to look at first."""
    scans = [scan for session in sessions for scan in session.scans]
    told = []
    for scan in scans:
        if scan.status == 'failed':
            told.append(message('failed', f'failed {scan.name}', scan.told))
    for scan in scans:
        if scan.status == 'skipped':
            told.append(message('doubtful', f'skipped {scan.name}', scan.message))
        told += [message('doubtful', f'check {scan.name}', doubt) for doubt in scan.doubts]
    done = sum(scan.status == 'done' for scan in scans)
    if done == len(scans) and not told:
        told.append(message('good', 'all well', f'{_count(done, "scan")} harmonized.'))
    else:
        told.append(paragraph(f'{done} of {_count(len(scans), "scan")} harmonized.'))
    named = facts(
        {
            'sessions': str(len(sessions)),
            'contrasts': ', '.join(dict.fromkeys(scan.contrast for scan in scans)) or 'none',
            'harmony-app': __version__,
        }
    )
    return named + '\n'.join(told)


def _found(subject: Subject, sessions: Sequence[ReportSession]) -> str:
    """Every image of the input, used or skipped, and how it ended."""
    visits = {session.label or '' for session in sessions}
    scans = {scan.name: scan for scan in subject.scans}
    rows = []
    for row in subject.inputs:
        entities = dict(part.split('-', 1) for part in row.get('entities', '').split())
        if entities.get('ses', '') not in visits and len(sessions) < len(subject.sessions):
            continue
        name = '_'.join([*row.get('entities', '').split(), row.get('contrast', '')])
        word = {'use': 'used', 'skip': 'skipped'}.get(row.get('status', ''), '')
        told = {}
        if scan := scans.get(name):
            told = {'result': scan.status, 'notes': '; '.join(scan.notes)}
        rows.append({**row, 'status': word, **told})
    if not rows:
        return paragraph('The list of inputs of the run is not there any more.')
    used = sum(row['status'] == 'used' for row in rows)
    words = f'{_count(len(rows), "image")} in the anat folders, {used} used.'
    return paragraph(words) + table(rows, _INPUT_COLUMNS)


def _errors(root: Path, scans: Sequence[ReportScan]) -> str:
    parts = []
    for scan in scans:
        if scan.status != 'failed':
            continue
        parts += [heading(scan.name), paragraph(scan.told)]
        if scan.crash:
            parts.append(f'<p>Crash file: {link(Link(scan.crash, scan.crash))}</p>')
            lines = _last_lines(root / scan.crash)
            if lines:
                parts.append(folded('Its last lines', f'<pre>{escape(lines)}</pre>'))
    return '\n'.join(parts)


def _run_settings(subject: Subject, scans: Sequence[ReportScan]) -> str:
    """Settings and versions of each run that the scans are of."""
    parts = []
    for name in dict.fromkeys(scan.run for scan in scans if scan.run):
        run = subject.runs.get(name)
        if run is None:
            continue
        environment = run.settings.get('environment', {})
        chosen = run.settings.get('run', {})
        short = {
            'method': chosen.get('method'),
            'target': ', '.join(chosen.get('target', ())) or 'default styles of the model',
            'model': Path(str(environment['model_used'])).name
            if 'model_used' in environment
            else None,
            'device': environment.get('device_used'),
            'seed': chosen.get('random_seed'),
            'harmony-app': environment.get('harmony_app'),
        }
        rows = [
            {'setting': key, 'value': _plain(value)}
            for fields in (chosen, environment)
            for key, value in fields.items()
        ]
        parts += [
            heading(f'Run {name}'),
            facts({key: str(value) for key, value in short.items() if value is not None}),
            folded(
                'All settings and versions',
                table(rows, {'setting': 'Name', 'value': 'Value'}),
            ),
        ]
    return '\n'.join(parts) or paragraph('The settings of the run are not there any more.')


def _methods(subject: Subject, sessions: Sequence[ReportSession]) -> str:
    told = gather_facts([Subject(subject.label, tuple(sessions), (), subject.runs)])
    if told is None:
        return paragraph('No scan was harmonized, so there is nothing to cite.')
    text = methods_text(told)
    words = (
        'What was done to the scans of this page, to paste into a paper; it is generated from the settings '
        'that were used. That of all participants together is in '
    )
    return (
        f'<p class="note">{escape(words)}{link(Link("logs/CITATION.md", "logs/CITATION.md"))}, with '
        f'{link(Link("logs/CITATION.bib", "logs/CITATION.bib"))}.</p>'
        f'<pre>{escape(text)}</pre>'
        + heading('References')
        + items([work.sentence() for work in cited_in(text)])
    )


def _overview(subject: Subject) -> str:
    """Page of a participant with many sessions: one line for each, with its page."""
    rows = []
    for session in subject.sessions:
        counts = {
            status: sum(scan.status == status for scan in session.scans)
            for status in ('done', 'failed', 'skipped')
        }
        rows.append(
            {
                'session': Link(session.name, f'{session.name}.html'),
                **counts,
                'to_check': sum(bool(scan.doubts) for scan in session.scans),
            }
        )
    columns = {
        'session': 'Session, with its page',
        'done': 'Scans harmonized',
        'failed': 'Scans that failed',
        'skipped': 'Scans without a target',
        'to_check': 'Scans to look at before they are used',
    }
    return page(
        f'Harmonization of sub-{subject.label}',
        _introduction(subject.sessions),
        {'Sessions': table(rows, columns), 'What was found': _found(subject, subject.sessions)},
    )


def _viewer(root: Path, drawn: Sequence[tuple[ReportScan, tuple[float, float]]], room: int) -> str:
    """The view in three dimensions with the finest voxels that fit; empty where none do."""
    for step in _STEPS:
        if _SCAN_BYTES * len(drawn) / step**3 > max(room, 0):
            continue
        shown = [
            shown_scan(scan.name, stage_volumes(root, scan), window, step) for scan, window in drawn
        ]
        if sum(scan.size for scan in shown) <= room:
            return viewer(shown)
    logger.warning('the page of %s has no room for a 3D view', drawn[0][0].visit)
    return ''


def _last_lines(path: Path) -> str:
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').rstrip().splitlines()
    except OSError:
        return ''
    return '\n'.join(lines[-_CRASH_LINES:])


def _plain(value: object) -> str:
    return ', '.join(map(str, value)) if isinstance(value, list) else str(value)


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"s" * (number != 1)}'
