"""Tissue volumes of people who travelled or came again: what of their spread is the scanner.

Beside before and after stands a third stage, the volumes before as ComBat corrects them: what
a table of volumes reaches without a harmonized image.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from harmony_app.imaging.profile import TISSUES
from harmony_app.workflows.evaluation_inputs import ResultScan
from harmony_app.workflows.evaluation_measures import STAGES, Measured, contrasts_of

COMBAT = 'combat'
"""Stage of the volumes before harmonization that ComBat corrected."""

FEWEST_FOR_COMBAT = 3
"""Fewest people of a site: a shift and a scale make the volumes of two people whatever is asked."""

VOLUME_STAGES = (*STAGES, COMBAT)
"""Stages of the table of volumes."""


def volume_rows(
    scans: Sequence[Measured], travelling: set[str], ages: Mapping[str, float]
) -> tuple[list[dict], list[str]]:
    """Volumes between every two sites, and longitudinal reliability, before, after and by ComBat.

    Parameters
    ----------
    scans : sequence of Measured
    travelling : set of str
        Labels of travelling subjects: only they tell sites from people.
    ages : mapping of str to float
        Age at every session, years; models have a slope where all of them are known.

    Returns
    -------
    rows : list of dict
    notes : list of str
    """
    rows, notes = [], []
    for contrast in contrasts_of(scans):
        own = [m for m in scans if m.scan.contrast == contrast and len(m.volumes) == len(STAGES)]
        try:
            own = combat_volumes(own, ages)
        except ValueError as error:
            notes.append(f'{contrast}: no volumes by ComBat: {error}')
        rows += _between_sites([m for m in own if m.scan.subject in travelling], contrast, notes)
        rows += _reliability(own, contrast, ages, notes)
    return rows, notes


def combat_volumes(own: Sequence[Measured], ages: Mapping[str, float]) -> list[Measured]:
    """Scans with the stage ``combat``: their volumes before, less what their site adds.

    Fitted on the scans themselves, the site as batch, age kept where every session has one and
    it varies within a site. Each tissue has its own shift and scale: three tissues are too few
    for the prior that the features of a site share. That scans are of one person ComBat does
    not know.

    Parameters
    ----------
    own : sequence of Measured
        Scans of one contrast with volumes before and after, ml.
    ages : mapping of str to float
        Age at every session, years.

    Raises
    ------
    ValueError
        Where a site is not known or has fewer than :data:`FEWEST_FOR_COMBAT` people, as
        :func:`~harmony_app.evaluation.combat.fit_combat`, or where a corrected volume is below 0.
    """
    from harmony_app.evaluation.combat import fit_combat

    sites = [measured.scan.site for measured in own]
    if not own:
        raise ValueError('no scan has tissue volumes before and after')
    if None in sites:
        raise ValueError(f'the site of {sites.count(None)} of {len(sites)} scans is not known')
    people: dict[str, set[str]] = {}
    for measured in own:
        people.setdefault(str(measured.scan.site), set()).add(measured.scan.subject)
    small = sorted(site for site, found in people.items() if len(found) < FEWEST_FOR_COMBAT)
    if small and len(people) > 1:
        raise ValueError(f'{FEWEST_FOR_COMBAT} people of every site are needed: {", ".join(small)}')
    known = [ages.get(measured.scan.visit) for measured in own]
    by_site: dict[str, set] = {}
    for site, age in zip(sites, known, strict=True):
        by_site.setdefault(site, set()).add(age)
    with_age = None not in known and any(len(found) > 1 for found in by_site.values())
    covariates = np.array(known, float)[:, None] if with_age else None
    before = np.array([[m.volumes['before'][tissue] for tissue in TISSUES] for m in own])
    for tissue, column in zip(TISSUES, before.T, strict=True):
        for site in by_site:
            if len(found := column[[s == site for s in sites]]) > 1 and np.ptp(found) == 0:
                raise ValueError(f'the volumes of {tissue} are all equal at site {site}')
    model = fit_combat(before, sites, covariates, empirical_bayes=False)
    corrected = model.apply(before, sites, covariates)
    if corrected.min() < 0:
        worst = own[int(corrected.min(axis=1).argmin())].scan.name
        raise ValueError(f'a corrected volume of {worst} is below 0')
    return [
        replace(m, volumes={**m.volumes, COMBAT: dict(zip(TISSUES, row.tolist(), strict=True))})
        for m, row in zip(own, corrected, strict=True)
    ]


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
            for stage in _stages(own)
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
                    # ComBat makes means equal but for the last digit, which tells nothing.
                    row[f'{name}_{stage}'] = round(float(table.loc[tissue, name]), 9) + 0.0
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
        for stage in _stages(own):
            shares = [100 * v[stage][tissue] / sum(v[stage].values()) for v in volumes.values()]
            try:
                found = longitudinal_reliability(shares, subjects, known if with_age else None)
            except ValueError as error:
                if stage == COMBAT:
                    notes.append(f'{contrast}: no reliability of {tissue} by ComBat: {error}')
                    continue
                notes.append(f'{contrast}: no longitudinal reliability: {error}')
                # What the sessions lack they lack for every tissue.
                return rows
            row |= {'subjects': found.subjects, 'sessions': found.sessions}
            row[f'icc_{stage}'] = found.icc
            row[f'residual_variance_{stage}'] = found.residual_variance
        rows.append(row)
    return rows


def _stages(own: Sequence[Measured]) -> list[str]:
    """Stages that every scan has volumes of."""
    return [stage for stage in VOLUME_STAGES if all(stage in m.volumes for m in own)]


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
            for stage in _stages(own)
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
