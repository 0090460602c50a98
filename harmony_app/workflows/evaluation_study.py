"""What all scans of a study say together: tests over people, sites told apart, pictures.

People are the units of every test: values of one person are averaged first, since scans of
one head do not count as several.
"""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from harmony_app.imaging.profile import TISSUES
from harmony_app.workflows.evaluation_inputs import ScanPair
from harmony_app.workflows.evaluation_measures import PAIR_METRICS, STAGES, Measured, contrasts_of
from harmony_app.workflows.evaluation_volumes import volume_variations

SCAN_TESTS = {
    'gm_wm_auroc': 'higher',
    'distance': 'lower',
    'level_distance': 'lower',
    **{f'{tissue.lower()}_site_distance': 'lower' for tissue in TISSUES},
}
"""Measures of a scan that are tested, and where they are better."""

PAIR_TESTS = {name: 'lower' if name == 'rmse' else 'higher' for name in PAIR_METRICS}
"""Measures of a pair at two sites that are tested."""

SPREAD_TESTS = {f'{tissue.lower()}_volume_variation': 'lower' for tissue in TISSUES}
"""Spread of a travelling subject's volumes over the sites, percent."""

FEWEST_FOR_SIGNIFICANCE = 6
"""Fewest people with whom a two-sided signed-rank test can fall below 0.05."""

FOLDS = 5
"""Most folds of people that the site classification is tested on."""

PERMUTATIONS = {'svm': 99}
"""How often sites are shuffled for a p-value, by classifier; every time costs a whole training."""


def paired_statistics(
    scans: Sequence[Measured],
    pairs: Sequence[tuple[ScanPair, Mapping]],
    travelling: set[str],
    seed: int,
) -> tuple[list[dict], list[str]]:
    """Paired tests of before and after, over people, with Holm's correction over all of them.

    Parameters
    ----------
    scans : sequence of Measured
    pairs : sequence of (ScanPair, row)
        Rows of the table of pairs.
    travelling : set of str
        Labels of travelling subjects.
    seed : int
        Of the bootstrap.

    Returns
    -------
    rows : list of dict
    notes : list of str
        What was left out, and why.
    """
    from harmony_app.evaluation.statistics import bootstrap_interval, holm, paired_wilcoxon

    rows, notes = [], []
    for contrast in contrasts_of(scans):
        own = [m for m in scans if m.scan.contrast == contrast]
        records = [(m.scan.subject, m.row) for m in own]
        between = [
            (pair.first.subject, row)
            for pair, row in pairs
            if pair.first.contrast == contrast and not pair.rescan
        ]
        spreads = volume_variations(own, travelling)
        lonely = []
        for source, tests in (
            (records, SCAN_TESTS),
            (between, PAIR_TESTS),
            (spreads, SPREAD_TESTS),
        ):
            for measure, better in tests.items():
                before, after = _by_subject(source, measure)
                if len(before) < 2:
                    # Without a single value the reason is told where it was to be measured.
                    lonely += [measure] if before else []
                    continue
                test = paired_wilcoxon(before, after)
                interval = bootstrap_interval(before, after, seed)
                rows.append(
                    {
                        'contrast': contrast,
                        'measure': measure,
                        'better': better,
                        'subjects': test.pairs,
                        'mean_before': statistics.fmean(before),
                        'mean_after': statistics.fmean(after),
                        'difference': interval.mean,
                        'interval_low': interval.low,
                        'interval_high': interval.high,
                        'effect_size': test.effect_size,
                        'p_value': test.p_value,
                    }
                )
        if lonely:
            notes.append(
                f'{contrast}: no paired test of {", ".join(lonely)}: 1 person has values before '
                'and after, two are needed'
            )
    if rows:
        for row, p_value in zip(rows, holm([row['p_value'] for row in rows]), strict=True):
            row['p_holm'] = float(p_value)
        most = max(row['subjects'] for row in rows)
        if most < FEWEST_FOR_SIGNIFICANCE:
            notes.append(
                f'with {most} people no paired test can reach p < 0.05, whatever the effect '
                f'({FEWEST_FOR_SIGNIFICANCE} are needed), and bootstrap intervals are too narrow'
            )
    return rows, notes


def site_rows(scans: Sequence[Measured], seed: int) -> tuple[list[dict], list[str]]:
    """How well a classifier tells the site, by radiomic features, before and after.

    Sites of fewer than three people are left out.

    Returns
    -------
    rows : list of dict
    notes : list of str
    """
    from harmony_app.evaluation.radiomics import feature_table
    from harmony_app.evaluation.site_classification import (
        CLASSIFIERS,
        FEWEST_SUBJECTS,
        classify_sites,
    )

    rows, notes = [], []
    for contrast in contrasts_of(scans):
        own = _with_features(scans, contrast)
        people: dict[str, set[str]] = {}
        for measured in own:
            people.setdefault(str(measured.scan.site), set()).add(measured.scan.subject)
        small = sorted(site for site, subjects in people.items() if len(subjects) < FEWEST_SUBJECTS)
        own = [m for m in own if m.scan.site not in small]
        sites = sorted(set(people) - set(small))
        if len(sites) < 2:
            notes.append(
                f'{contrast}: no site classification: two sites of {FEWEST_SUBJECTS} people or '
                f'more are needed, there are {len(sites)}'
            )
            continue
        if small:
            notes.append(
                f'{contrast}: site classification leaves out {", ".join(small)}: fewer than '
                f'{FEWEST_SUBJECTS} people'
            )
        folds = min(FOLDS, *(len(people[site]) for site in sites))
        for stage in STAGES:
            _, table = feature_table([m.features[stage] for m in own])
            for classifier in CLASSIFIERS:
                try:
                    told = classify_sites(
                        table,
                        [str(m.scan.site) for m in own],
                        [m.scan.subject for m in own],
                        classifier=classifier,
                        folds=folds,
                        permutations=PERMUTATIONS.get(classifier, 0),
                        seed=seed,
                    )
                except ValueError as error:
                    notes.append(f'{contrast} {stage}: no site classification: {error}')
                    continue
                rows.append(
                    {
                        'contrast': contrast,
                        'stage': stage,
                        'classifier': classifier,
                        'sites': len(told.sites),
                        'subjects': len({m.scan.subject for m in own}),
                        'scans': len(own),
                        'balanced_accuracy': told.balanced_accuracy,
                        'chance': told.chance,
                        'auc': told.auc,
                        'f1': told.f1,
                        'p_value': told.permutation_p,
                    }
                )
    return rows, notes


def embedding_rows(scans: Sequence[Measured], seed: int) -> tuple[list[dict], list[str]]:
    """Scans as points in the plane by their radiomic features, before and after.

    Before and after are laid in the plane each for itself.

    Returns
    -------
    rows : list of dict
    notes : list of str
    """
    from harmony_app.evaluation.embedding import embed_pca, embed_tsne
    from harmony_app.evaluation.radiomics import feature_table

    rows, notes = [], []
    for contrast in contrasts_of(scans):
        own = [m for m in scans if m.scan.contrast == contrast and len(m.features) == len(STAGES)]
        for method, embed in (('pca', embed_pca), ('tsne', lambda t: embed_tsne(t, seed))):
            for stage in STAGES:
                try:
                    _, table = feature_table([m.features[stage] for m in own])
                    picture = embed(table)
                except ValueError as error:
                    note = f'{contrast}: no {method}: {error}'
                    notes += [note] if note not in notes else []
                    continue
                shares = picture.explained or (None, None)
                for measured, (x, y) in zip(own, picture.points.tolist(), strict=True):
                    rows.append(
                        {
                            'contrast': contrast,
                            'stage': stage,
                            'method': method,
                            'scan': measured.scan.name,
                            'subject': measured.scan.subject,
                            'site': measured.scan.site,
                            'x': x,
                            'y': y,
                            'explained_x': shares[0],
                            'explained_y': shares[1],
                        }
                    )
    return rows, notes


def _by_subject(
    records: Sequence[tuple[str, Mapping]], measure: str
) -> tuple[list[float], list[float]]:
    """Means over every person's values that exist both before and after."""
    found: dict[str, list[tuple[float, float]]] = {}
    for subject, row in records:
        before, after = (row.get(f'{measure}_{stage}') for stage in STAGES)
        if before is not None and after is not None:
            found.setdefault(subject, []).append((before, after))
    means = [np.mean(values, axis=0) for _, values in sorted(found.items())]
    return [float(m[0]) for m in means], [float(m[1]) for m in means]


def _with_features(scans: Sequence[Measured], contrast: str) -> list[Measured]:
    return [
        m
        for m in scans
        if m.scan.contrast == contrast
        and m.scan.site is not None
        and len(m.features) == len(STAGES)
    ]
