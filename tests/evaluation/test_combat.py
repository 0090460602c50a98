"""ComBat against the numbers of neuroCombat and against tables whose site effect is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.evaluation.combat import fit_combat

AGE = np.array([61, 70, 58, 66, 74, 63, 69, 71, 57, 65, 60, 68], float)
SEX = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0], float)
SITES = list('aaaabbbbbccc')
COVARIATES = np.column_stack([AGE, SEX])

# Scans 0, 5 and 11 of the table below, by neuroCombat 0.2.12 with NumPy 2.3.5, the tolerance of its
# iteration set from 1e-4 to 1e-12, and np.int (which NumPy no longer has) set to int.
# Keys: reference site, covariates entered, empirical Bayes.
NEUROCOMBAT = {
    (None, True, True): [
        [87.79174078, 104.33523075, 106.91882853, 123.30788634],
        [96.0782732, 103.05780962, 113.14717958, 124.0771902],
        [89.63154222, 101.76986361, 110.27257047, 116.86193195],
    ],
    (None, True, False): [
        [88.53572777, 104.42586959, 106.44985802, 123.14379604],
        [95.844275, 103.11318854, 113.50233076, 123.78527165],
        [88.05776307, 102.13187469, 110.84650548, 117.08186983],
    ],
    (None, False, True): [
        [86.32267194, 105.26796761, 106.45265396, 121.05521225],
        [92.86764611, 103.26212301, 113.11230476, 124.37382551],
        [91.93711952, 102.74448104, 112.10906933, 115.65095791],
    ],
    ('b', True, True): [
        [89.4819362, 110.61600245, 114.59293028, 132.51764953],
        [99.02172704, 109.72689214, 120.45819669, 133.14932688],
        [90.42781862, 108.42740556, 119.04968867, 126.34640072],
    ],
    ('b', False, False): [
        [84.57600131, 112.57978019, 113.75281655, 131.62732382],
        [99.02172704, 109.72689214, 120.45819669, 133.14932688],
        [93.77205691, 113.98673408, 121.55143828, 124.57317307],
    ],
}


def make_table():
    scan, feature = np.arange(12)[:, None], np.arange(4)[None]
    table = 100 + 20 * feature - 0.3 * AGE[:, None] * (1 + 0.5 * feature) + 4 * SEX[:, None]
    table = table + 5 * np.sin(3 * scan + 2 * feature + scan * feature)
    table[4:9] = table[4:9] * 1.2 - 7 + 2 * feature
    table[9:] += 9 - feature
    return table


@pytest.mark.parametrize('reference, adjusted, prior', NEUROCOMBAT)
def test_numbers_of_neurocombat(reference, adjusted, prior):
    covariates = COVARIATES if adjusted else None
    model = fit_combat(make_table(), SITES, covariates, reference, prior)
    result = model.apply(make_table(), SITES, covariates)
    wanted = NEUROCOMBAT[reference, adjusted, prior]
    np.testing.assert_allclose(result[[0, 5, 11]], wanted, atol=1e-7)


def test_the_reference_stays_as_it_is():
    table = make_table()
    model = fit_combat(table, SITES, COVARIATES, reference='b')
    np.testing.assert_allclose(model.apply(table, SITES, COVARIATES)[4:9], table[4:9])


def test_without_prior_all_sites_have_one_mean_and_one_deviation():
    table = make_table()
    result = fit_combat(table, SITES, empirical_bayes=False).apply(table, SITES)
    first, second, third = result[:4], result[4:9], result[9:]
    np.testing.assert_allclose(first.mean(axis=0), second.mean(axis=0))
    np.testing.assert_allclose(first.mean(axis=0), third.mean(axis=0))
    np.testing.assert_allclose(first.std(axis=0, ddof=1), second.std(axis=0, ddof=1))


def test_the_effect_of_age_is_kept_and_that_of_site_is_removed():
    generator = np.random.default_rng(3)
    age = generator.uniform(20, 80, 200)
    site = np.repeat(['a', 'b'], 100)
    age[100:] += 15  # the older were scanned at b
    expected, noise = 500 - 2 * age[:, None], generator.normal(0, 5, (200, 6))
    truth, table = expected + noise, expected + noise
    table[100:] = expected[100:] + 1.5 * noise[100:] + 30
    result = fit_combat(table, site, age[:, None], reference='a').apply(table, site, age[:, None])
    before, after = np.abs(table - truth).mean(), np.abs(result - truth).mean()
    assert after < 0.1 * before
    slope = np.polyfit(age, result.mean(axis=1), 1)[0]
    assert slope == pytest.approx(-2, abs=0.05)


def test_a_scan_that_was_not_fitted():
    table = make_table()
    model = fit_combat(table, SITES, COVARIATES)
    one = model.apply(table[7:8], ['b'], COVARIATES[7:8])
    np.testing.assert_allclose(one, model.apply(table, SITES, COVARIATES)[7:8])
    with pytest.raises(ValueError, match='no scan of z was fitted'):
        model.apply(table[:1], ['z'], COVARIATES[:1])
    with pytest.raises(ValueError, match='4 features and 2 covariates, not 4 and 0'):
        model.apply(table, SITES)


@given(st.floats(0.01, 100), st.floats(-1000, 1000))
def test_the_unit_does_not_matter(scale, offset):
    table = make_table()
    plain = fit_combat(table, SITES, COVARIATES).apply(table, SITES, COVARIATES)
    other = table * scale + offset
    result = fit_combat(other, SITES, COVARIATES).apply(other, SITES, COVARIATES)
    np.testing.assert_allclose((result - offset) / scale, plain, atol=1e-5)


def test_features_that_share_shift_and_scale_exactly():
    """A prior without spread is the estimate itself, not a division of 0 by 0."""
    table = make_table()[:, [0, 0, 0]]
    prior, plain = (fit_combat(table, SITES, empirical_bayes=eb) for eb in (True, False))
    np.testing.assert_allclose(prior.shifts, plain.shifts)
    np.testing.assert_allclose(prior.scales, plain.scales)


def spoil(row, column, value):
    table = make_table()
    table[row, column] = value
    return table


@pytest.mark.parametrize(
    'table, sites, covariates, options, message',
    [
        (make_table(), ['a'] * 12, None, {}, 'all scans are of one site, a'),
        (make_table(), ['a'] * 11 + ['b'], None, {}, 'site b has one scan'),
        (make_table(), SITES[1:], None, {}, '12 scans need as many sites'),
        (make_table()[0], SITES, None, {}, 'a table of scans and features'),
        (spoil(2, 2, np.nan), SITES, None, {}, 'finite'),
        (make_table(), SITES, np.full((12, 1), np.inf), {}, 'finite'),
        (spoil(slice(4, 9), 2, 1.0), SITES, None, {}, 'feature 2 is constant at site b'),
        (make_table(), SITES, np.ones((12, 1)), {}, 'a covariate is constant'),
        (make_table(), SITES, np.zeros((12, 1)), {}, 'a covariate is constant'),
        (make_table(), SITES, AGE[:, None] * [1, 2], {}, 'follows from the others'),
        (make_table(), SITES, None, {'reference': 'z'}, 'reference z: sites are a, b, c'),
        (make_table()[:, :1], SITES, None, {}, 'two features at least'),
    ],
)
def test_what_cannot_be_fitted_is_told(table, sites, covariates, options, message):
    with pytest.raises(ValueError, match=message):
        fit_combat(table, sites, covariates, **options)
