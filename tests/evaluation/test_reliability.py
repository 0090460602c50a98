"""The mixed model against simulated variances, the analysis of variance, and statsmodels."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.regression.mixed_linear_model import MixedLM

from harmony_app.evaluation.reliability import longitudinal_reliability, reliability_table


def simulate(people, sessions, between, residual, seed, slope=0.0):
    """Volumes, people and ages; sessions is the number for each, or numbers."""
    generator = np.random.default_rng(seed)
    sessions = np.broadcast_to(sessions, people)
    subject = np.repeat(np.arange(people), sessions)
    age = generator.uniform(50, 80, people)[subject]
    age += np.concatenate([2.0 * np.arange(n) for n in sessions])
    bias = generator.normal(0, np.sqrt(between), people)[subject]
    noise = generator.normal(0, np.sqrt(residual), subject.size)
    return 40 + slope * age + bias + noise, subject, age


def analysis_of_variance(volumes, people, sessions):
    """Balanced one-way random effects: residual and between variance, correlation."""
    table = volumes.reshape(people, sessions)
    means = table.mean(axis=1)
    within = np.sum((table - means[:, None]) ** 2) / (people * (sessions - 1))
    among = sessions * means.var(ddof=1)
    between = (among - within) / sessions
    return within, between, between / (between + within)


def test_known_variances_are_recovered():
    result = longitudinal_reliability(*simulate(3000, 3, 4.0, 1.0, seed=1, slope=-0.2))
    assert result.between_variance == pytest.approx(4, rel=0.05)
    assert result.residual_variance == pytest.approx(1, rel=0.05)
    assert result.icc == pytest.approx(0.8, abs=0.01)
    assert result.slope == pytest.approx(-0.2, abs=0.01)
    assert (result.subjects, result.sessions) == (3000, 9000)


@given(st.integers(0, 10_000), st.integers(3, 12), st.integers(2, 4))
def test_balanced_data_give_the_analysis_of_variance(seed, people, sessions):
    volumes, subjects, _ = simulate(people, sessions, 2.0, 1.0, seed)
    within, between, icc = analysis_of_variance(volumes, people, sessions)
    result = longitudinal_reliability(volumes, subjects)
    if between > 0:
        assert result.residual_variance == pytest.approx(within, rel=1e-4)
        assert result.between_variance == pytest.approx(between, rel=1e-4, abs=1e-4)
        assert result.icc == pytest.approx(icc, abs=1e-5)
    else:
        assert (result.icc, result.between_variance) == (0, 0)
        assert result.residual_variance == pytest.approx(volumes.var(ddof=1))


@pytest.mark.parametrize('seed', range(4))
def test_unbalanced_data_give_what_statsmodels_gives(seed):
    sessions = np.random.default_rng(seed).integers(1, 5, 60)
    volumes, subjects, ages = simulate(60, sessions, 2.0, 1.0, seed, slope=-0.1)
    design = np.column_stack([np.ones_like(ages), ages - ages.mean()])
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # a reference that did not converge is none
        fit = MixedLM(volumes, design, subjects).fit(reml=True)
    result = longitudinal_reliability(volumes, subjects, ages)
    between = float(np.asarray(fit.cov_re)[0, 0])
    assert result.residual_variance == pytest.approx(fit.scale, rel=1e-3)
    assert result.between_variance == pytest.approx(between, rel=1e-3)
    assert result.slope == pytest.approx(fit.fe_params[1], rel=1e-3)


@given(st.floats(1e-3, 1e6), st.floats(-1e6, 1e6))
def test_unit_and_zero_do_not_count(scale, shift):
    volumes, subjects, ages = simulate(8, 3, 2.0, 1.0, seed=7)
    plain = longitudinal_reliability(volumes, subjects, ages)
    # as far from zero as double precision leaves the digits alone
    other = longitudinal_reliability(scale * volumes + scale * shift / 1e3, subjects, ages + 3)
    assert other.icc == pytest.approx(plain.icc, abs=1e-5)
    assert other.residual_variance == pytest.approx(scale**2 * plain.residual_variance, rel=1e-4)
    assert other.slope == pytest.approx(scale * plain.slope, rel=1e-3, abs=1e-6 * scale)


def test_age_explains_what_is_no_noise():
    volumes, subjects, ages = simulate(100, 3, 1.0, 0.01, seed=3, slope=-0.5)
    with_age = longitudinal_reliability(volumes, subjects, ages)
    without = longitudinal_reliability(volumes, subjects)
    assert with_age.residual_variance < 0.02 < without.residual_variance
    assert without.slope is None


def test_few_subjects_get_the_global_maximum():
    """Volumes on which a search from one point ends at a correlation of 0.87."""
    generator = np.random.default_rng(10)
    ages = np.repeat(generator.uniform(50, 80, 3), 2) + np.tile([0.0, 2.0], 3)
    volumes = 40 - 0.1 * ages + np.repeat(generator.normal(0, 2, 3), 2)
    volumes += generator.normal(0, 0.1, 6)
    result = longitudinal_reliability(volumes, np.repeat(range(3), 2), ages)
    assert result.icc == pytest.approx(0.9968, abs=1e-4)


def test_table_of_tissues():
    parts, expected = [], []
    for tissue, between in (('GM', 9.0), ('WM', 1.0)):
        volumes, subjects, ages = simulate(40, 2, between, 1.0, seed=5)
        columns = {'subject': subjects, 'tissue': tissue, 'volume': volumes, 'age': ages}
        parts.append(pd.DataFrame(columns))
        expected.append(longitudinal_reliability(volumes, subjects, ages))
    table = pd.concat(parts)
    result = reliability_table(table.sample(frac=1, random_state=1)).sort_values('tissue')
    assert result.tissue.tolist() == ['GM', 'WM']
    for row, one in zip(result.itertuples(), expected, strict=True):
        assert row.icc == pytest.approx(one.icc, abs=1e-6)
        assert row.residual_variance == pytest.approx(one.residual_variance, rel=1e-6)
        assert (row.subjects, row.sessions) == (40, 80)
    without = reliability_table(table.drop(columns='age'), with_age=False)
    assert without.slope.isna().all()
    with pytest.raises(ValueError, match='no column age'):
        reliability_table(table.drop(columns='age'))
    with pytest.raises(ValueError, match='^GM: all volumes are equal'):
        reliability_table(table.assign(volume=1.0))


def test_degenerate_input_is_told():
    volumes, subjects, ages = simulate(5, 2, 1.0, 1.0, seed=0)

    def told(match, volumes=volumes, subjects=subjects, ages=ages):
        with pytest.raises(ValueError, match=match):
            longitudinal_reliability(volumes, subjects, ages)

    told('subjects: 2 of', volumes[:4], subjects[:4], ages[:4])
    told('too few repeated sessions', volumes[::2], subjects[::2], ages[::2])
    # one repeat is all that the slope takes
    told('too few repeated sessions', volumes[[0, 1, 2, 4]], subjects[[0, 1, 2, 4]], ages[:4])
    told('all volumes are equal', volumes=np.ones(10))
    told('repeated sessions do not differ', volumes=np.repeat(range(5), 2) ** 2.0, ages=None)
    told('repeated sessions do not differ', volumes=3 * ages + subjects**2)
    told('all ages are equal', ages=np.full(10, 60.0))
    told('some volumes are not finite', volumes=np.full(10, np.nan))
    told('some ages are not finite', ages=np.full(10, np.inf))
    told('give as many', volumes=volumes[:-1], ages=None)
    told('give as many', ages=ages[:-1])
    told('give as many', volumes=[], subjects=[], ages=None)
