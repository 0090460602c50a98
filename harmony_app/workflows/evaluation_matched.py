"""Every two scanners beside each other: what MISPEL's evaluation asks of matched scans (section 2.5)."""

import statistics
from collections.abc import Mapping, Sequence

from harmony_app.workflows.evaluation_measures import STAGES

OVERLAPS = ('ssim', 'gm_dice', 'wm_dice')
"""Measures of a pair of scans that are averaged over people."""

VOLUMES = ('bias', 'rmsd')
"""Measures of the volumes of two sites, of GM and of WM."""


def matched_rows(
    pairs: Sequence[Mapping], scans: Sequence[Mapping], volumes: Sequence[Mapping]
) -> list[dict]:
    """Rows of every two sites that share people, by contrast and site.

    Parameters
    ----------
    pairs, scans, volumes : sequence of mapping
        Rows of the tables of these names.

    Returns
    -------
    list of dict
        Values of one person are averaged first. ``gm_wm_auroc`` is the mean over both sites of
        the scans of the people who share them.
    """
    groups: dict[tuple, dict[str, list[Mapping]]] = {}
    for row in pairs:
        if row['kind'] == 'sites':
            sites = sorted((row['site'], row['other_site']))
            people = groups.setdefault((row['contrast'], *sites), {})
            people.setdefault(row['subject'], []).append(row)
    rows = []
    for (contrast, *sites), people in sorted(groups.items()):
        row: dict = {
            'contrast': contrast,
            'site': sites[0],
            'other_site': sites[1],
            'subjects': len(people),
        }
        own = {
            subject: [
                scan
                for scan in scans
                if (scan['contrast'], scan['subject']) == (contrast, subject)
                and scan['site'] in sites
            ]
            for subject in people
        }
        for stage in STAGES:
            for name in OVERLAPS:
                _keep_mean(row, f'{name}_{stage}', people)
            _keep_mean(row, f'gm_wm_auroc_{stage}', own)
        for found in volumes:
            told = found['contrast'], found['analysis'], found.get('site'), found.get('other_site')
            if told == (contrast, 'sites', *sites) and found['tissue'] in ('GM', 'WM'):
                for name in VOLUMES:
                    for stage in STAGES:
                        key = f'{found["tissue"].lower()}_{name}_{stage}'
                        row[key] = found[f'{name}_{stage}']
        rows.append(row)
    return rows


def _keep_mean(row: dict, name: str, people: Mapping[str, Sequence[Mapping]]) -> None:
    """Mean over people of the means of their rows, where any has the column."""
    values = [
        [found[name] for found in rows if found.get(name) is not None] for rows in people.values()
    ]
    if known := [statistics.fmean(own) for own in values if own]:
        row[name] = statistics.fmean(known)
