"""The page of the group level: every scan with its numbers, and the way to its participant's page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app import __version__
from harmony_app.imaging.registration import GOOD_QUALITY
from harmony_app.methods.base import CONTRASTS
from harmony_app.reports import group_figures
from harmony_app.reports.html import (
    Link,
    facts,
    heading,
    image,
    message,
    page,
    paragraph,
    table,
)
from harmony_app.workflows.evaluation_inputs import ResultScan, result_scans
from harmony_app.workflows.evaluation_measures import STAGES
from harmony_app.workflows.writing import QC_COLUMNS

UNKNOWN = 'unknown site'

_COLUMNS = (
    'scan',
    'contrast',
    'site',
    'method',
    'target',
    'level_distance_before',
    'level_distance_after',
    'edge_agreement',
    'registration_quality',
    'artifact_flag',
)
"""Columns of the table of scans; the TSV files have all."""


def group_page(
    root: Path,
    rows: Sequence[Mapping[str, str]],
    summary: Sequence[Mapping],
    summary_columns: Mapping[str, str],
) -> str:
    """The page as HTML.

    Parameters
    ----------
    root : Path
        Output folder; pages of participants are linked relative to it.
    rows : sequence of mapping
        Rows of the quality tables that were selected.
    summary : sequence of mapping
        Rows of ``group_summary.tsv``.
    summary_columns : mapping of str to str
        Its columns, and what each says.
    """
    scans = result_scans(root, rows)
    listed = [
        {key: _value(row[key]) for key in _COLUMNS if key in row}
        | {'scan': scan_link(root, scan) or scan.name}
        for scan, row in zip(scans, rows, strict=True)
    ]
    columns = {key: QC_COLUMNS[key] for key in _COLUMNS}
    sections = {
        'By site': table(summary, summary_columns),
        'Scans': paragraph('Follow a link to the page of the participant.', note=True)
        + table(listed, columns),
    }
    if pictures := _pictures(scans):
        sections = {'Tissues by site': pictures, **sections}
    people = {scan.subject for scan in scans}
    sites = {scan.site for scan in scans if scan.site}
    introduction = facts(
        {
            'participants': str(len(people)),
            'scans': str(len(scans)),
            'sites': str(len(sites)) if sites else 'not known',
            'harmony-app': __version__,
        }
    ) + '\n'.join(_to_check(scans))
    return page('Harmonization of the group', introduction, sections)


def scan_link(root: Path, scan: ResultScan) -> Link | None:
    """To the scan on the page of its session or participant, else to its figure, else None."""
    for name in (scan.visit, f'sub-{scan.subject}'):
        if (root / f'{name}.html').is_file():
            return Link(scan.name, f'{name}.html', scan.name)
    figure = scan.figure(root)
    return Link(scan.name, figure.relative_to(root).as_posix()) if figure.is_file() else None


def _to_check(scans: Sequence[ResultScan]) -> list[str]:
    """Scans that are doubtful, one sentence for each reason."""
    laid = [s.name for s in scans if float(s.quality.get('registration_quality', 1)) < GOOD_QUALITY]
    told = []
    for names, words in (
        (laid, 'laid doubtfully on the template'),
        (
            [s.name for s in scans if s.quality.get('artifact_flag') == 'poor'],
            'with many artifacts',
        ),
        ([s.name for s in scans if s.quality.get('artifact_flag') == 'doubtful'], 'with artifacts'),
    ):
        if names:
            some = ', '.join(names[:10]) + (
                f' and {len(names) - 10} more' if len(names) > 10 else ''
            )
            told.append(message('doubtful', f'check {len(names)}', f'{words}: {some}'))
    return told or [message('good', 'nothing to check', 'No scan is doubtful.')]


def _pictures(scans: Sequence[ResultScan]) -> str:
    """Levels of the tissues by site, before and after."""
    parts = []
    for contrast in CONTRASTS:
        strips: dict[str, dict[str, dict[str, list[float]]]] = {}
        for scan in scans:
            for tissue in ('CSF', 'GM') if scan.contrast == contrast else ():
                for stage in STAGES:
                    text = scan.quality.get(f'{tissue.lower()}_level_{stage}')
                    if text is not None:
                        by_stage = strips.setdefault(
                            f'{tissue} level (WM at 1)', {stage: {} for stage in STAGES}
                        )
                        by_stage[stage].setdefault(scan.site or UNKNOWN, []).append(float(text))
        if strips:
            picture = group_figures.strip_figure(strips)
            told = f'Tissue levels of {contrast} scans by site, before and after'
            parts += [heading(contrast), image(picture, told)]
    return '\n'.join(parts)


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
