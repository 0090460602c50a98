"""Tests of pairs against SciPy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from harmony_app.evaluation.statistics import PairedTest, bootstrap_interval, holm, paired_wilcoxon


@pytest.fixture(scope='module')
def pairs():
    generator = np.random.default_rng(4)
    before = generator.normal(0.80, 0.05, 25)
    return before, before + generator.normal(0.02, 0.03, 25)


def test_wilcoxon_is_that_of_scipy(pairs):
    result = paired_wilcoxon(*pairs)
    expected = stats.wilcoxon(pairs[1], pairs[0])
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.statistic == expected.statistic
    assert (result.pairs, result.unequal) == (25, 25)


def test_effect_size_has_a_direction(pairs):
    before, after = pairs
    rose, fell = paired_wilcoxon(before, after), paired_wilcoxon(after, before)
    assert 0 < rose.effect_size == pytest.approx(-fell.effect_size)
    assert rose.p_value == pytest.approx(fell.p_value)
    assert paired_wilcoxon(before, before + 1 + before).effect_size == 1


def test_few_pairs_have_an_exact_p_value():
    """All of five pairs rise: one of the 32 orders of signs, on either side."""
    result = paired_wilcoxon(np.zeros(5), np.arange(1.0, 6.0))
    assert result.p_value == pytest.approx(2 / 32)
    assert result.statistic == 0


def test_equal_pairs_speak_against_nothing():
    assert paired_wilcoxon([1, 2, 3], [1, 2, 3]) == PairedTest(1.0, 0.0, 0.0, 3, 0)
    # equal pairs among others are left out
    some = paired_wilcoxon([0, 0, 0, 9, 9], [1, 2, 3, 9, 9])
    assert (some.pairs, some.unequal, some.p_value) == (5, 3, 0.25)


def test_bootstrap_is_near_that_of_scipy(pairs):
    before, after = pairs
    interval = bootstrap_interval(before, after, seed=0)
    expected = stats.bootstrap(
        (after - before,), np.mean, method='percentile', random_state=1
    ).confidence_interval
    spread = expected.high - expected.low
    assert interval.mean == pytest.approx(np.mean(after - before))
    assert interval.low == pytest.approx(expected.low, abs=0.05 * spread)
    assert interval.high == pytest.approx(expected.high, abs=0.05 * spread)


def test_bootstrap_depends_on_its_seed_alone(pairs):
    first = bootstrap_interval(*pairs, seed=1, resamples=500)
    assert first == bootstrap_interval(*pairs, seed=1, resamples=500)
    assert first != bootstrap_interval(*pairs, seed=2, resamples=500)


def test_more_confidence_is_wider(pairs):
    wide, narrow = (bootstrap_interval(*pairs, seed=0, confidence=c) for c in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(9)
    covered = 0
    for _ in range(200):
        difference = generator.normal(1, 2, 40)
        interval = bootstrap_interval(np.zeros(40), difference, seed=0, resamples=400)
        covered += interval.low <= 1 <= interval.high
    assert 180 <= covered <= 198


@pytest.mark.parametrize('size', (1, 2, 5, 12))
def test_holm_is_that_of_statsmodels(size):
    # rounded, so that some are equal
    p_values = np.random.default_rng(size).beta(0.3, 3, size).round(2)
    expected = multipletests(p_values, method='holm')[1]
    assert holm(p_values) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_stays_below_bonferroni(p_values):
    given_values, corrected = np.array(p_values), holm(p_values)
    assert (np.diff(corrected[np.argsort(given_values)]) >= 0).all()
    assert (corrected >= given_values).all()
    assert (corrected <= np.minimum(given_values * given_values.size, 1)).all()
    assert corrected.min() == min(given_values.min() * given_values.size, 1)


def test_degenerate_input_is_told(pairs):
    before, after = pairs
    for test in (paired_wilcoxon, lambda a, b: bootstrap_interval(a, b, seed=0)):
        with pytest.raises(ValueError, match='no pairs'):
            test(before, after[1:])
        with pytest.raises(ValueError, match='1 pairs are too few'):
            test(before[:1], after[:1])
        with pytest.raises(ValueError, match='not finite'):
            test(before, np.full(25, np.nan))
    with pytest.raises(ValueError, match='confidence'):
        bootstrap_interval(before, after, seed=0, confidence=95)
    with pytest.raises(ValueError, match='1 resample'):
        bootstrap_interval(before, after, seed=0, resamples=0)
    with pytest.raises(ValueError, match='no p-values'):
        holm([])
    for wrong in (1.2, -0.1, np.nan):
        with pytest.raises(ValueError, match='between 0 and 1'):
            holm([0.5, wrong])
