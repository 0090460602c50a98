"""The page of the evaluation: what was compared, pictures by site, tables, outliers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harmony_app import __version__
from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.registration import GOOD_QUALITY
from harmony_app.reports import group_figures
from harmony_app.reports.html import Link, folded, heading, image, items, page, paragraph, table
from harmony_app.workflows.evaluation_inputs import ResultScan
from harmony_app.workflows.evaluation_measures import STAGES
from harmony_app.workflows.evaluation_tables import TABLES
from harmony_app.workflows.group_page import UNKNOWN, scan_link

FARTHEST = 3
"""Scans of each contrast that are listed for the largest distance and the lowest agreement."""

_PICTURES = {'pca': 'PCA', 'tsne': 't-SNE'}
_OUTLIER_COLUMNS = {
    'scan': 'Scan, with a link to its page',
    'contrast': 'Contrast',
    'site': 'Scanner and protocol',
    'reason': 'Why it is listed',
    'value': 'The number',
}


def evaluation_page(
    root: Path,
    scans: Sequence[ResultScan],
    travelling: set[str],
    tables: Mapping[str, Sequence[Mapping]],
    intensities: Sequence[Mapping[str, np.ndarray]],
    results: Sequence[str],
    notes: Sequence[str],
    seed: int,
    walks: Sequence[tuple[bytes, str]] = (),
) -> str:
    """The page as HTML.

    Parameters
    ----------
    root : Path
        Output folder; figures are linked relative to it.
    scans : sequence of ResultScan
    travelling : set of str
        Labels of travelling subjects.
    tables : mapping of str to sequence of mapping
        Rows by name of the table.
    intensities : sequence of mapping
        Quantiles by stage, in the order of the scans.
    results : sequence of str
        The main figures in words.
    notes : sequence of str
        What was left out, and why; what to keep in mind.
    seed : int
        Of everything that drew.
    walks : sequence of (bytes, str)
        Pictures of images between the thetas, and what they show.
    """
    links = {scan.name: scan_link(root, scan) for scan in scans}
    outliers = outlier_rows(tables['scans'])
    sections = {}
    if results:
        sections['In short'] = items(results) + (paragraph(_SHORT, note=True) if notes else '')
    sections['Outliers'] = _outliers(outliers, links)
    if pictures := _distributions(scans, tables['scans'], intensities):
        sections['Distributions by site'] = pictures
    if pictures := _embeddings(tables['embedding']):
        sections['Scans in the plane'] = pictures
    if pictures := _thetas(scans, walks):
        sections['Contrast representations'] = pictures
    for name, title, words in (
        ('pairs', 'Pairs of travelling subjects', _PAIRS),
        ('statistics', 'Tests', _TESTS),
        ('matched', 'Pairs of sites', _MATCHED),
        ('volumes', 'Volumes', _VOLUMES),
        ('sites', 'Sites told apart', _SITES),
        ('scans', 'Scans', ''),
    ):
        if tables[name]:
            sections[title] = _section(name, tables[name], words, links)
    sections['Notes'] = items(notes) if notes else paragraph('None: nothing was left out.')
    return page(
        'Harmonization: evaluation', _introduction(scans, travelling, tables, seed), sections
    )


def outlier_rows(rows: Sequence[Mapping]) -> list[dict]:
    """Scans to look at: doubtful registration, artifacts, and the farthest of each contrast.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the table of scans.

    Returns
    -------
    list of dict
        ``scan``, ``contrast``, ``site``, ``reason`` and ``value``. Of a few scans some are always
        the farthest: being listed says to look, not that something is wrong.

    Examples
    --------
    >>> rows = [{'scan': 'sub-01_T1w', 'contrast': 'T1w', 'registration_quality': 0.3}]
    >>> [(row['scan'], row['value']) for row in outlier_rows(rows)]
    [('sub-01_T1w', 0.3)]
    """
    found = [
        (row, f'registration quality below {GOOD_QUALITY:g}', row['registration_quality'])
        for row in rows
        if row.get('registration_quality', 1.0) < GOOD_QUALITY
    ]
    found += [
        (row, 'artifacts of the scan: poor', row['artifact_level'])
        for row in rows
        if row.get('artifact_flag') == 'poor'
    ]
    for contrast in dict.fromkeys(row['contrast'] for row in rows):
        own = [row for row in rows if row['contrast'] == contrast]
        for column, reason, sign in (
            # of levels: a median holds the person's anatomy too
            ('level_distance_after', 'largest distance of the levels to the target after', -1),
            ('gm_site_distance_after', 'largest distance of GM to other sites after', -1),
            ('edge_agreement', 'lowest agreement of edges', 1),
        ):
            known = [row for row in own if column in row]
            # With no more scans than are listed, a list of the farthest says nothing.
            if len(known) > FARTHEST:
                known.sort(key=lambda row: (sign * row[column], row['scan']))
                found += [(row, reason, row[column]) for row in known[:FARTHEST]]
    return [
        {
            'scan': row['scan'],
            'contrast': row['contrast'],
            'site': row.get('site'),
            'reason': reason,
            'value': float(value),
        }
        for row, reason, value in found
    ]


def _introduction(
    scans: Sequence[ResultScan],
    travelling: set[str],
    tables: Mapping[str, Sequence[Mapping]],
    seed: int,
) -> str:
    people = sorted({scan.subject for scan in scans})
    sites = sorted({scan.site for scan in scans if scan.site is not None})
    pairs = [row for row in tables['pairs'] if row['kind'] == 'sites']
    facts = [
        f'{len(scans)} scans of {len(people)} participants, '
        f'{len({scan.visit for scan in scans})} sessions',
        'contrasts: '
        + ', '.join(
            f'{contrast} ({sum(scan.contrast == contrast for scan in scans)})'
            for contrast in dict.fromkeys(scan.contrast for scan in scans)
        ),
        f'{len(sites)} sites: {", ".join(sites)}' if sites else 'no site is known',
        f'{len(travelling)} travelling subjects, {len(pairs)} pairs of scans at two sites, '
        f'{len(tables["pairs"]) - len(pairs)} pairs at one site (the ceiling)',
        'method: ' + ', '.join(_told(scans, 'method')),
        'target: ' + ', '.join(_told(scans, 'target')),
        f'harmony-app {__version__}, random seed {seed}',
    ]
    told = paragraph(
        'Before is the preprocessed scan, after the harmonized one, both on the template grid with '
        'the white-matter peak at 1. Tissues are those of the registered template maps, but for '
        'the volumes, which come from a segmentation of each scan. Every table is also a file: '
        'group_evaluation_*.tsv, with a JSON that says what each column is.',
        note=True,
    )
    return items(facts) + told


def _told(scans: Sequence[ResultScan], key: str) -> list[str]:
    return sorted({scan.quality[key] for scan in scans if key in scan.quality}) or ['not known']


def _outliers(rows: Sequence[Mapping], links: Mapping[str, Link | None]) -> str:
    if not rows:
        return paragraph(
            'No scan to look at: every registration is good, no scan is known to be poor, and there '
            'are few scans to rank.'
        )
    words = (
        f'Every registration of a quality below {GOOD_QUALITY:g}, every scan whose artifacts are '
        f'poor, and the {FARTHEST} farthest scans '
        'of each contrast, which some scans always are. Follow a link to look.'
    )
    return paragraph(words, note=True) + table(_linked(rows, links), _OUTLIER_COLUMNS)


def _distributions(
    scans: Sequence[ResultScan],
    rows: Sequence[Mapping],
    intensities: Sequence[Mapping[str, np.ndarray]],
) -> str:
    parts = []
    for contrast in dict.fromkeys(scan.contrast for scan in scans):
        values: dict[str, dict[str, list[np.ndarray]]] = {stage: {} for stage in STAGES}
        strips: dict[str, dict[str, dict[str, list[float]]]] = {}
        for scan, row, quantiles in zip(scans, rows, intensities, strict=True):
            if scan.contrast != contrast or set(quantiles) != set(STAGES):
                continue
            site = scan.site or UNKNOWN
            measures = {'GM-WM AUROC': {s: row.get(f'gm_wm_auroc_{s}') for s in STAGES}}
            for stage in STAGES:
                values[stage].setdefault(site, []).append(quantiles[stage][0])
                for index, tissue in enumerate(TISSUES, 1):
                    if tissue != 'WM':  # at 1 in every scan
                        median = float(np.median(quantiles[stage][index]))
                        measures.setdefault(f'{tissue} median (WM at 1)', {})[stage] = median
            for measure, stages in measures.items():
                for stage, number in stages.items():
                    if number is not None:
                        by_stage = strips.setdefault(measure, {stage: {} for stage in STAGES})
                        by_stage[stage].setdefault(site, []).append(number)
        if not values['before']:
            continue
        label = 'brain: intensity / white-matter peak'
        strips = {name: strips[name] for name in sorted(strips)}
        parts += [
            heading(contrast),
            image(
                group_figures.density_figure(values, label),
                f'Densities of the brain intensities of {contrast} scans by site, before and after',
            ),
            image(
                group_figures.strip_figure(strips),
                f'Tissue medians and contrast of {contrast} scans by site, before and after',
            ),
        ]
    if not parts:
        return ''
    return paragraph(_DISTRIBUTIONS, note=True) + '\n'.join(parts)


def _embeddings(rows: Sequence[Mapping]) -> str:
    parts = []
    for contrast in dict.fromkeys(row['contrast'] for row in rows):
        values: dict[str, dict[str, list]] = {}
        people: dict[str, dict[str, list]] = {}
        axes: dict[str, tuple[str, str]] = {}
        for row in rows:
            if row['contrast'] == contrast:
                title = f'{_PICTURES[row["method"]]} {row["stage"]}'
                site = row['site'] or UNKNOWN
                point = row['x'], row['y']
                values.setdefault(title, {}).setdefault(site, []).append(point)
                people.setdefault(title, {}).setdefault(row['subject'], []).append(point)
                axes[title] = _axis_labels(row)
        points = {
            title: {site: np.array(own) for site, own in found.items()}
            for title, found in values.items()
        }
        parts += [
            heading(contrast),
            image(
                group_figures.scatter_figure(points, axes, people=people),
                f'{contrast} scans by their radiomic features in the plane, before and after',
            ),
        ]
    if not parts:
        return ''
    words = (
        'Radiomic features of every scan; scans of one site lie together where the site shows. Each '
        'picture has axes of its own. Grey lines lead from the middle of a person to the scans of that '
        'person: short ones say that people, not sites, set scans apart. Distances '
        'of t-SNE mean nothing beyond who is near whom.'
    )
    return paragraph(words, note=True) + '\n'.join(parts)


def _axis_labels(row: Mapping) -> tuple[str, str]:
    if row['method'] != 'pca' or row['explained_x'] is None:
        return '', ''
    return tuple(
        f'component {number} ({100 * row[f"explained_{axis}"]:.0f} % of variance)'
        for number, axis in enumerate('xy', 1)
    )


def _thetas(scans: Sequence[ResultScan], walks: Sequence[tuple[bytes, str]]) -> str:
    """Theta of the scans by site, with the target's, a panel for each contrast."""
    parts = []
    for contrast in dict.fromkeys(scan.contrast for scan in scans):
        own = [scan for scan in scans if scan.contrast == contrast and len(scan.theta) > 1]
        if not own:
            continue
        points: dict[str, list] = {}
        for scan in own:
            points.setdefault(scan.site or UNKNOWN, []).append(scan.theta[:2])
        targets = sorted({scan.target_theta[:2] for scan in own if len(scan.target_theta) > 1})
        picture = group_figures.scatter_figure(
            {f'{contrast}, before': {site: np.array(found) for site, found in points.items()}},
            {f'{contrast}, before': ('theta 1', 'theta 2')},
            np.array(targets).reshape(-1, 2),
        )
        parts.append(image(picture, f'Contrast representations of {contrast} scans by site'))
    if not parts:
        return ''
    words = 'What the network reads of the contrast of each scan; the cross is the target.'
    text = paragraph(words, note=True) + '\n'.join(parts)
    if walks:
        text += paragraph(_WALKS, note=True) + '\n'.join(image(*walk) for walk in walks)
    return text


_DISTRIBUTIONS = (
    'Thin lines and points are scans, thick lines and bars the means of the sites. Sites of the same '
    'people should lie on each other after; what differs between the scans of one site is people.'
)
_WALKS = (
    'One anatomy, that of the scan with the ring, decoded at nine thetas (crosses, by letter): what '
    'the model takes to lie between the sites and beyond them. No scan was harmonized so.'
)
_SHORT = 'What was left out, and what to keep in mind, stands under Notes at the end.'
_PAIRS = (
    'Two scans of one person, before against before and after against after, inside the brain that '
    'both share, once the second is aligned rigidly to the first. Rescans at one site are what '
    'harmonization can reach at best.'
)
_TESTS = (
    'Paired over people: values of one person are averaged first. An interval that leaves out 0 and '
    'a small p (Holm) speak for a change; the column better says which change is an improvement.'
)
_MATCHED = (
    'Every two sites that share people: their scans should look alike (SSIM), their tissues should '
    'lie on each other (Dice) and have one volume (bias, RMSD), and grey and white matter should '
    'stay as well apart as they were (AUROC).'
)
_VOLUMES = (
    'Volumes of one person at two sites should not differ, and those of repeated sessions differ '
    'by biology only. ComBat corrects the volumes before harmonization in a table, without an image: it '
    'is fitted on these very scans, which flatters it.'
)
_SITES = (
    'A classifier that has never seen a person tells the site of the scan. The nearer to chance, '
    'the less is left of the scanner.'
)


def _section(
    name: str, rows: Sequence[Mapping], words: str, links: Mapping[str, Link | None]
) -> str:
    columns = TABLES[name]
    text = paragraph(words, note=True) if words else ''
    if name == 'volumes':
        for analysis in dict.fromkeys(row['analysis'] for row in rows):
            own = [row for row in rows if row['analysis'] == analysis]
            text += table(own, columns)
        return text
    shown = table(_linked(rows, links), columns)
    return text + (folded(f'{len(rows)} rows', shown) if name in ('scans', 'pairs') else shown)


def _linked(rows: Sequence[Mapping], links: Mapping[str, Link | None]) -> list[dict]:
    """Rows whose scans lead to their pages, or to their figures."""
    linked = []
    for row in rows:
        found = {key: links.get(row[key]) for key in ('scan', 'other_scan') if key in row}
        linked.append({**row, **{key: to for key, to in found.items() if to}})
    return linked
