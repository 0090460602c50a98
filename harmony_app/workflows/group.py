"""The group level: the tables of all participants in one, and what they say together."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app.bids.atomic import write_json, write_table, write_text
from harmony_app.methods.base import CONTRASTS
from harmony_app.workflows.writing import QC_COLUMNS

STAGES = ('before', 'after')

REPORT = 'group_report.html'
"""Page of the group level; ``group.html`` is that of the evaluation."""

SUMMARY_COLUMNS = {
    'contrast': 'Contrast',
    'site': 'Scanner and protocol; all for every site together',
    'scans': 'Number of scans',
    **{
        f'{tissue}_median_{stage}_{moment}': f'{word} over scans of the median of {tissue.upper()}, '
        f'{stage} harmonization, in units of the white-matter peak'
        for stage in STAGES
        for tissue in ('gm', 'csf')
        for moment, word in (('mean', 'Mean'), ('sd', 'Standard deviation'))
    },
    **{
        f'{measure}_{stage}': f'Mean over scans of the distance of the tissue {name} to the target, '
        f'{stage} harmonization, in units of the white-matter peak'
        for measure, name in (('distance', 'medians'), ('level_distance', 'levels'))
        for stage in STAGES
    },
    'edge_agreement': 'Mean over scans of the correlation of gradients before and after, -1 to 1',
}
"""Columns of ``group_summary.tsv``."""


def gather(
    root: Path, rows: Sequence[Mapping[str, str]], contrasts: Sequence[str] = CONTRASTS
) -> list[str]:
    """Gather the quality tables of all participants.

    Writes ``group_<contrast>.tsv`` with one row for each scan, ``group_summary.tsv`` with
    one row for each contrast and site, a JSON dictionary beside each, and the page
    ``group_report.html``. The table of a contrast that was asked for and has no results any
    more is removed.

    Parameters
    ----------
    root : Path
        Output folder of the participant level.
    rows : sequence of mapping
        Rows of the quality tables that were selected.
    contrasts : sequence of str, optional
        Contrasts that were asked for.

    Returns
    -------
    list of str
        What was written, in words.
    """
    lines, summary = [], []
    for contrast in CONTRASTS:
        own = [row for row in rows if row['contrast'] == contrast]
        if not own and contrast in contrasts:
            remove_group_table(root / f'group_{contrast}.tsv')
        if not own:
            continue
        write_group_table(root / f'group_{contrast}.tsv', QC_COLUMNS, own)
        sites = sorted({row['site'] for row in own if 'site' in row})
        summary.append(_summarize(own, contrast, 'all'))
        summary += [
            _summarize([r for r in own if r.get('site') == site], contrast, site) for site in sites
        ]
        lines.append(_sentence(own, contrast))
    write_group_table(root / 'group_summary.tsv', SUMMARY_COLUMNS, summary)
    from harmony_app.workflows.group_page import group_page

    write_text(root / REPORT, group_page(root, rows, summary, SUMMARY_COLUMNS))
    return [*lines, f'written: {", ".join(report_files(rows))}']


def report_files(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of the files that :func:`gather` writes for some rows.

    Examples
    --------
    >>> report_files([{'contrast': 'T2w'}])
    ['group_T2w.tsv', 'group_summary.tsv', 'group_report.html']
    """
    found = {row['contrast'] for row in rows}
    return [f'group_{c}.tsv' for c in CONTRASTS if c in found] + ['group_summary.tsv', REPORT]


def write_group_table(
    path: Path, columns: Mapping[str, str], rows: Sequence[Mapping[str, object]]
) -> None:
    """Write a table with its data dictionary beside it.

    Parameters
    ----------
    path : Path
        The TSV; the dictionary has its name with ``.json``.
    columns : mapping of str to str
        Columns in order, and what each says; others of the rows are left out.
    rows : sequence of mapping
        Cells by column.
    """
    known = [{key: row[key] for key in columns if key in row} for row in rows]
    write_table(path, list(columns), known)
    write_json(path.with_suffix('.json'), {k: {'Description': v} for k, v in columns.items()})


def remove_group_table(path: Path) -> None:
    """Remove a table and its dictionary, where they are there."""
    for old in (path, path.with_suffix('.json')):
        old.unlink(missing_ok=True)


def _summarize(rows: Sequence[dict], contrast: str, site: str) -> dict:
    summary: dict = {'contrast': contrast, 'site': site, 'scans': len(rows)}
    for stage in STAGES:
        for tissue in ('gm', 'csf'):
            values = _numbers(rows, f'{tissue}_median_{stage}')
            if values:
                summary[f'{tissue}_median_{stage}_mean'] = statistics.fmean(values)
            if len(values) > 1:
                summary[f'{tissue}_median_{stage}_sd'] = statistics.stdev(values)
    distances = [f'{kind}_{stage}' for kind in ('distance', 'level_distance') for stage in STAGES]
    for key in (*distances, 'edge_agreement'):
        if values := _numbers(rows, key):
            summary[key] = statistics.fmean(values)
    return summary


def _sentence(rows: Sequence[dict], contrast: str) -> str:
    # of levels: a median holds the person's anatomy too
    before, after = (_numbers(rows, f'level_distance_{stage}') for stage in STAGES)
    text = f'{contrast}: {len(rows)} scans'
    if before and after:
        text += (
            f', mean distance to the target {statistics.fmean(before):.3f} before, '
            f'{statistics.fmean(after):.3f} after'
        )
    return text


def _numbers(rows: Sequence[dict], key: str) -> list[float]:
    return [float(row[key]) for row in rows if key in row]
