"""What the sessions gave, as rows: pairs with their ceilings, and scans at the reference site."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from benchmarks.sessions import BEFORE
from harmony_app.evaluation.distributions import tissue_wasserstein
from harmony_app.evaluation.volumes import coefficient_of_variation
from harmony_app.imaging.profile import TISSUES

AT_SITE = tuple(
    f'{name}_{tissue}'
    for name in ('dice', 'jaccard', 'volume_error', 'network_dice')
    for tissue in TISSUES
)
"""Measures of a scan at the reference site that have a ceiling: the person's own scan there."""


def pair_rows(parts: Sequence[Mapping], contrasts: Sequence[str]) -> list[dict]:
    """Scores of all pairs, each with the ceiling of its person and target."""
    own = {
        (r['contrast'], r['subject'], r['source'], r['grid'], r['metric']): r['value']
        for part in parts
        for r in part['own']
    }
    rows = [
        {
            **row,
            'ceiling': own.get(
                (row['contrast'], row['subject'], row['target'], row['grid'], row['metric'])
            ),
        }
        for part in parts
        for row in part['pairs']
    ]
    return sorted(rows, key=lambda row: contrasts.index(row['contrast']))


def scan_rows(parts: Sequence[Mapping], contrasts: Sequence[str]) -> list[dict]:
    """Measures of all scans before and at the reference site, with ``values`` and ``features``."""
    rows = [row for part in parts for row in part['scans']]
    return sorted(rows, key=lambda row: contrasts.index(row['contrast']))


def site_rows(scans: Sequence[Mapping], methods: Sequence[str], reference: str) -> list[dict]:
    """Before and after of every scan of another site than the reference, and of every person.

    Parameters
    ----------
    scans : sequence of mapping
        Of :func:`scan_rows`.
    methods : sequence of str
        In the order of the rows.
    reference : str
        Session of the reference site.
    """
    found = {(s['contrast'], s['method'], s['subject'], s['session']): s['values'] for s in scans}
    rows = []
    for contrast, subject, session in _scans_of(scans):
        if session == reference:
            continue
        before = found[contrast, BEFORE, subject, session]
        ceiling = found.get((contrast, BEFORE, subject, reference), {})
        for method in methods:
            after = found.get((contrast, method, subject, session), {})
            for metric in AT_SITE:
                if metric in before and metric in after:
                    row = _row(contrast, metric, method, subject, session, reference)
                    row |= {'before': before[metric], 'after': after[metric]}
                    rows.append(row | {'ceiling': ceiling.get(metric)})
    for contrast in dict.fromkeys(s['contrast'] for s in scans):
        own = {name: v for name, v in found.items() if name[0] == contrast}
        rows += _variations(contrast, own, methods, reference)
    return rows


def distance_rows(
    quantiles: Mapping[tuple[str, str, str, str], np.ndarray],
    methods: Sequence[str],
    reference: str,
) -> list[dict]:
    """Wasserstein distance of a person's tissues between sites, mean over all pairs of sites.

    Parameters
    ----------
    quantiles : mapping of (contrast, method, subject, session) to ndarray, shape (3, N)
        Intensities of the true tissues, as quantiles.
    methods : sequence of str
        In the order of the rows.
    reference : str
        Session of the reference site.
    """
    people = dict.fromkeys((c, s) for c, _, s, _ in quantiles)
    rows = []
    for contrast, subject in people:
        sessions = {
            method: {
                session
                for c, m, s, session in quantiles
                if (c, m, s) == (contrast, method, subject)
            }
            for method in (BEFORE, *methods)
        }
        for method in methods:
            both = sorted(sessions[BEFORE] & sessions[method])
            if len(both) < 2:
                continue
            stages = {
                stage: _mean_distance(
                    [quantiles[contrast, name, subject, session] for session in both]
                )
                for stage, name in (('before', BEFORE), ('after', method))
            }
            for tissue in TISSUES:
                row = _row(contrast, f'between_sites_{tissue}', method, subject, 'all', reference)
                rows.append(row | {stage: stages[stage][tissue] for stage in stages})
    return rows


def _mean_distance(images: Sequence[np.ndarray]) -> dict[str, float]:
    masks = {}
    for index, name in enumerate(TISSUES):
        masks[name] = np.zeros(images[0].shape, bool)
        masks[name][index] = True
    found = [tissue_wasserstein(a, b, masks, masks) for a, b in combinations(images, 2)]
    return {name: float(np.mean([d[name] for d in found])) for name in TISSUES}


def _variations(
    contrast: str, found: Mapping[tuple, Mapping], methods: Sequence[str], reference: str
) -> list[dict]:
    """Coefficient of variation over the sites of every person, before and after."""
    rows = []
    for subject in dict.fromkeys(name[2] for name in found):
        own = {(m, session): v for (_, m, s, session), v in found.items() if s == subject}
        for method in methods:
            for tissue in TISSUES:
                stages = {'before': BEFORE, 'after': method}
                both = [
                    session
                    for name, session in own
                    if name == BEFORE
                    and all(f'ml_{tissue}' in own.get((m, session), {}) for m in stages.values())
                ]
                if len(both) < 2:
                    continue
                row = _row(contrast, f'volume_cv_{tissue}', method, subject, 'all', reference)
                for stage, name in stages.items():
                    volumes = {(subject, s, tissue): own[name, s][f'ml_{tissue}'] for s in both}
                    try:
                        row[stage] = float(coefficient_of_variation(volumes).variation[0])
                    except ValueError:
                        break  # a tissue without volume has no coefficient
                else:
                    rows.append(row)
    return rows


def _row(contrast, metric, method, subject, source, target) -> dict:
    return {
        'contrast': contrast,
        'grid': 'mni',
        'method': method,
        'metric': metric,
        'subject': subject,
        'source': source,
        'target': target,
    }


def _scans_of(scans: Sequence[Mapping]) -> list[tuple[str, str, str]]:
    """Contrast, person and session of all unharmonized scans, in order."""
    return [(s['contrast'], s['subject'], s['session']) for s in scans if s['method'] == BEFORE]
