"""The group level: the tables of all participants in one, and what they say together."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app.bids.atomic import read_table, write_json, write_table
from harmony_app.errors import InputError
from harmony_app.methods.base import CONTRASTS
from harmony_app.workflows.writing import QC_COLUMNS

STAGES = ('before', 'after')

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
    'distance_before': 'Mean distance of the medians to the target before harmonization',
    'distance_after': 'Mean distance of the medians to the target after harmonization',
    'level_distance_before': 'Mean distance of the levels to the target before harmonization',
    'level_distance_after': 'Mean distance of the levels to the target after harmonization',
    'edge_agreement': 'Mean correlation of gradients before and after',
}
"""Columns of ``group_summary.tsv``."""


def gather(root: Path) -> list[str]:
    """Gather the quality tables of all participants.

    Writes ``group_<contrast>.tsv`` with one row for each scan, ``group_summary.tsv`` with
    one row for each contrast and site, and a JSON dictionary beside each.

    Parameters
    ----------
    root : Path
        Output folder of the participant level.

    Returns
    -------
    list of str
        What was written, in words.

    Raises
    ------
    InputError
        Where no participant has results.
    """
    rows = quality_rows(root)
    lines, summary = [], []
    for contrast in CONTRASTS:
        own = [row for row in rows if row.get('contrast') == contrast]
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
    return lines


def quality_rows(root: Path) -> list[dict[str, str]]:
    """Rows of the quality tables of all participants, by name of the scan.

    Raises
    ------
    InputError
        Where no participant has results.
    """
    tables = sorted(root.glob('sub-*/anat/*_desc-harmonized_qc.tsv'))
    tables += sorted(root.glob('sub-*/ses-*/anat/*_desc-harmonized_qc.tsv'))
    rows = sorted((row for table in tables for row in read_table(table)), key=lambda r: r['scan'])
    if not rows:
        raise InputError(
            f'{root} holds no results of the participant level; run it before the group level'
        )
    return rows


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
