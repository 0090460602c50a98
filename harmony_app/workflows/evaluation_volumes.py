"""Tissue volumes of people who travelled or came again: what of their spread is the scanner."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from harmony_app.imaging.profile import TISSUES
from harmony_app.workflows.evaluation_inputs import ResultScan
from harmony_app.workflows.evaluation_measures import STAGES, Measured, contrasts_of


def volume_rows(
    scans: Sequence[Measured], travelling: set[str], ages: Mapping[str, float]
) -> tuple[list[dict], list[str]]:
    """Volumes between every two sites, and longitudinal reliability, before and after.

    Parameters
    ----------
    scans : sequence of Measured
    travelling : set of str
        Labels of travelling subjects: only they tell sites from people.
    ages : mapping of str to float
        Age at every session, years; the model has a slope where all of them are known.

    Returns
    -------
    rows : list of dict
    notes : list of str
    """
    rows, notes = [], []
    for contrast in contrasts_of(scans):
        own = [m for m in scans if m.scan.contrast == contrast and len(m.volumes) == len(STAGES)]
        rows += _between_sites([m for m in own if m.scan.subject in travelling], contrast, notes)
        rows += _reliability(own, contrast, ages, notes)
    return rows, notes


def _between_sites(own: Sequence[Measured], contrast: str, notes: list[str]) -> list[dict]:
    from harmony_app.evaluation.volumes import scanner_differences

    rows = []
    volumes = _mean_volumes(own, lambda scan: (scan.subject, scan.site))
    people: dict[str, set[str]] = {}
    for subject, site in volumes:
        if site is not None:
            people.setdefault(site, set()).add(subject)
    for sites in combinations(sorted(people), 2):
        shared = sorted(people[sites[0]] & people[sites[1]])
        if len(shared) < 2:
            continue
        tables = {
            stage: scanner_differences(
                {
                    (subject, site, tissue): volumes[subject, site][stage][tissue]
                    for tissue in TISSUES
                    for site in sites
                    for subject in shared
                }
            ).set_index('tissue')
            for stage in STAGES
        }
        for tissue in TISSUES:
            row: dict = {
                'contrast': contrast,
                'analysis': 'sites',
                'tissue': tissue,
                'site': sites[0],
                'other_site': sites[1],
                'subjects': len(shared),
            }
            for stage, table in tables.items():
                for name in ('bias', 'bias_sd', 'mean_difference', 'rmsd'):
                    row[f'{name}_{stage}'] = float(table.loc[tissue, name])
            rows.append(row)
    if not rows:
        notes.append(
            f'{contrast}: no volumes between sites: two travelling subjects who share two sites '
            'are needed'
        )
    return rows


def _reliability(
    own: Sequence[Measured], contrast: str, ages: Mapping[str, float], notes: list[str]
) -> list[dict]:
    from harmony_app.evaluation.reliability import longitudinal_reliability

    volumes = _mean_volumes(own, lambda scan: (scan.subject, scan.visit))
    subjects = [subject for subject, _ in volumes]
    known = [ages[visit] for _, visit in volumes if visit in ages]
    with_age = len(known) == len(volumes) and len(set(known)) > 1
    rows = []
    for tissue in TISSUES:
        row: dict = {'contrast': contrast, 'analysis': 'longitudinal', 'tissue': tissue}
        try:
            for stage in STAGES:
                shares = [100 * v[stage][tissue] / sum(v[stage].values()) for v in volumes.values()]
                found = longitudinal_reliability(shares, subjects, known if with_age else None)
                row |= {'subjects': found.subjects, 'sessions': found.sessions}
                row[f'icc_{stage}'] = found.icc
                row[f'residual_variance_{stage}'] = found.residual_variance
        except ValueError as error:
            notes.append(f'{contrast}: no longitudinal reliability: {error}')
            # What the sessions lack they lack for every tissue.
            return rows
        rows.append(row)
    return rows


def _mean_volumes(
    own: Sequence[Measured], key: Callable[[ResultScan], tuple]
) -> dict[tuple, dict[str, dict[str, float]]]:
    """Volumes by stage and tissue, averaged over the scans of one key."""
    groups: dict[tuple, list] = {}
    for measured in own:
        groups.setdefault(key(measured.scan), []).append(measured.volumes)
    return {
        name: {
            stage: {t: statistics.fmean(v[stage][t] for v in found) for t in TISSUES}
            for stage in STAGES
        }
        for name, found in groups.items()
    }


def volume_variations(own: Sequence[Measured], travelling: set[str]) -> list[tuple[str, dict]]:
    """Coefficient of variation over sites of every travelling subject's volumes, percent.

    Returns
    -------
    list of (str, dict)
        Subject, and ``<tissue>_volume_variation_<stage>`` for every tissue and stage.
    """
    from harmony_app.evaluation.volumes import coefficient_of_variation

    complete = [m for m in own if m.scan.subject in travelling and len(m.volumes) == len(STAGES)]
    volumes = _mean_volumes(
        [m for m in complete if m.scan.site is not None], lambda scan: (scan.subject, scan.site)
    )
    sites: dict[str, int] = {}
    for subject, _ in volumes:
        sites[subject] = sites.get(subject, 0) + 1
    rows: dict[str, dict] = {subject: {} for subject, count in sites.items() if count > 1}
    for stage in STAGES:
        for tissue in TISSUES:
            own_volumes = {
                (subject, site, tissue): values[stage][tissue]
                for (subject, site), values in volumes.items()
                if subject in rows and _positive(volumes, subject, stage, tissue)
            }
            if not own_volumes:
                continue
            for found in coefficient_of_variation(own_volumes).itertuples():
                column = f'{tissue.lower()}_volume_variation_{stage}'
                rows[found.subject][column] = float(found.variation)
    return list(rows.items())


def _positive(volumes: Mapping, subject: str, stage: str, tissue: str) -> bool:
    return any(v[stage][tissue] > 0 for (who, _), v in volumes.items() if who == subject)
