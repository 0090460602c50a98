"""Volumes between sites and over time, before, after and by ComBat."""

import numpy as np
import pytest

from harmony_app.evaluation.combat import fit_combat
from harmony_app.imaging.profile import TISSUES
from harmony_app.workflows.evaluation_inputs import ResultScan
from harmony_app.workflows.evaluation_measures import Measured
from harmony_app.workflows.evaluation_volumes import combat_volumes, volume_rows

SITE = {'A': (0.0, 0.0, 0.0), 'B': (30.0, -40.0, 10.0)}
"""What a site adds to GM, WM and CSF, ml."""


def make_scans(people=4, sites=('A', 'B'), names=None):
    """Everybody at every site; volumes after have half of what the site adds."""
    generator = np.random.default_rng(3)
    scans = []
    for number in range(people):
        person = np.array((700.0, 500.0, 200.0)) + 20 * number + generator.normal(0, 10, 3)
        for site in sites:
            noise = generator.normal(0, 1, 3)
            volumes = {
                stage: dict(
                    zip(TISSUES, person + share * np.array(SITE[site]) + noise, strict=True)
                )
                for stage, share in (('before', 1), ('after', 0.5))
            }
            name = f'sub-{number}_ses-{site}_T1w'
            entities = (('sub', str(number)), ('ses', site))
            known = site if names is None else names.get(site)
            scan = ResultScan(name, str(number), site, 'T1w', known, entities)
            scans.append(Measured(scan, {}, volumes, {}))
    return scans


def everybody(scans):
    return {m.scan.subject for m in scans}


def test_combat_takes_away_what_a_site_adds():
    scans = make_scans()
    rows, notes = volume_rows(scans, everybody(scans), {})
    assert not notes
    between = {row['tissue']: row for row in rows if row['analysis'] == 'sites'}
    for tissue, added in zip(TISSUES, SITE['B'], strict=True):
        row = between[tissue]
        assert row['mean_difference_before'] == pytest.approx(-added, abs=3)
        assert row['mean_difference_after'] == pytest.approx(-added / 2, abs=3)
        # Site means are equal, and all that is left is what the persons differ in.
        assert str(row['mean_difference_combat']) == '0.0'
        assert row['rmsd_combat'] < 5
    for row in rows:
        if row['analysis'] == 'longitudinal':
            assert row['residual_variance_combat'] < row['residual_variance_before']
            assert 0 <= row['icc_combat'] <= 1


def test_combat_keeps_age_where_it_is_known():
    scans = make_scans()
    ages = {m.scan.visit: 30.0 + 7 * int(m.scan.subject) + (m.scan.site == 'B') for m in scans}
    before = np.array([[m.volumes['before'][t] for t in TISSUES] for m in scans])
    sites = [m.scan.site for m in scans]
    for known in (ages, dict(list(ages.items())[1:])):
        covariates = np.array([[ages[m.scan.visit]] for m in scans]) if known == ages else None
        wanted = fit_combat(before, sites, covariates, empirical_bayes=False)
        found = combat_volumes(scans, known)
        reached = [[m.volumes['combat'][t] for t in TISSUES] for m in found]
        np.testing.assert_allclose(reached, wanted.apply(before, sites, covariates))


def test_an_age_that_follows_from_the_site_is_not_entered():
    scans = make_scans()
    ages = {m.scan.visit: 30.0 + (m.scan.site == 'B') for m in scans}
    assert combat_volumes(scans, ages) == combat_volumes(scans, {})


def test_what_combat_lacks_is_told_and_the_rest_stays():
    one = make_scans(sites=('A',))
    mixed = make_scans(names={'A': 'A'})
    lonely = [m for m in make_scans() if m.scan.site == 'A' or m.scan.subject == '0']
    equal = make_scans()
    for measured in equal:
        measured.volumes['before']['CSF'] = 9.0
    # The spread of B is widened to that of A, below 0.
    small = make_scans()
    for measured, ml in zip(small, (0.0, 1.0, 0.1, 1.1, 0.2, 1.2, 10.0, 1.3), strict=True):
        measured.volumes['before']['CSF'] = ml
    for scans, words in (
        (one, 'all scans are of one site'),
        (mixed, 'the site of 4 of 8 scans is not known'),
        (lonely, '3 people of every site are needed: B'),
        (equal, 'the volumes of CSF are all equal at site A'),
        (small, 'a corrected volume of sub-.* is below 0'),
        ([], 'no scan has tissue volumes'),
    ):
        with pytest.raises(ValueError, match=words):
            combat_volumes(scans, {})
    rows, notes = volume_rows(mixed, everybody(mixed), {})
    assert any(note.startswith('T1w: no volumes by ComBat: the site of 4') for note in notes)
    assert rows
    assert not any('combat' in column for row in rows for column in row)
