"""Distances of distributions against SciPy and against the normal distribution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy, wasserstein_distance

from harmony_app.evaluation.distributions import (
    kullback_leibler,
    tissue_divergence,
    tissue_wasserstein,
)


@pytest.fixture(scope='module')
def heads():
    """Two images of different shapes, with masks of their tissues."""
    generator = np.random.default_rng(2)

    def head(shape, levels):
        tissue = generator.integers(0, 3, shape)
        image = generator.normal(np.array(levels)[tissue], 0.05)
        return image, {name: tissue == i for i, name in enumerate(('GM', 'WM', 'CSF'))}

    return *head((10, 11, 12), (0.7, 1.0, 0.2)), *head((9, 13, 14), (0.6, 1.0, 0.4))


def test_wasserstein_of_every_tissue(heads):
    image, tissues, reference, reference_tissues = heads
    distances = tissue_wasserstein(image, reference, tissues, reference_tissues)
    assert list(distances) == ['GM', 'WM', 'CSF']
    for name, distance in distances.items():
        expected = wasserstein_distance(image[tissues[name]], reference[reference_tissues[name]])
        assert distance == pytest.approx(expected, abs=1e-12)
    # the levels were made 0.1, 0 and 0.2 apart
    assert list(distances.values()) == pytest.approx([0.1, 0, 0.2], abs=0.02)


def test_divergence_of_every_tissue_is_that_of_its_histogram(heads):
    image, tissues, reference, reference_tissues = heads
    divergences = tissue_divergence(image, reference, tissues, reference_tissues, (0, 1.5))
    assert divergences['WM'] < 0.1 < divergences['GM'] < divergences['CSF']
    for name, divergence in divergences.items():
        counts = [
            np.histogram(np.clip(values, 0, 1.5), bins=64, range=(0, 1.5))[0] + 0.5
            for values in (reference[reference_tissues[name]], image[tissues[name]])
        ]
        assert divergence == pytest.approx(entropy(*counts), abs=1e-12)


def test_divergence_of_normal_distributions():
    """That of N(0, 1) from N(m, 1) is m * m / 2."""
    generator = np.random.default_rng(0)
    reference, values = generator.normal(0, 1, 400_000), generator.normal(0.6, 1, 400_000)
    assert kullback_leibler(values, reference, (-5, 5)) == pytest.approx(0.18, abs=0.01)


def test_divergence_is_directed():
    """A model that leaves out a part of the reference is worse than one that adds to it."""
    narrow, wide = np.full(1000, 0.25), np.repeat([0.25, 0.75], 500)
    left_out = kullback_leibler(narrow, wide, (0, 1), bins=2)
    added = kullback_leibler(wide, narrow, (0, 1), bins=2)
    assert left_out > 3 > added == pytest.approx(np.log(2), abs=0.01)


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=20),
    st.lists(st.floats(-5, 5), min_size=1, max_size=20),
    st.floats(0.01, 10),
)
def test_divergence_is_finite_and_not_below_zero(values, reference, pseudo_count):
    options = {'interval': (-1, 1), 'bins': 8, 'pseudo_count': pseudo_count}
    divergence = kullback_leibler(np.array(values), np.array(reference), **options)
    assert 0 <= divergence < np.inf
    assert kullback_leibler(np.array(values), np.array(values), **options) == 0


def test_intensities_beyond_the_interval_are_in_the_outermost_bins():
    inside, beyond = np.array([0.1, 0.9]), np.array([-7.0, 30.0])
    assert kullback_leibler(inside, beyond, (0, 1), bins=4) == 0


def test_degenerate_input_is_told(heads):
    image, tissues, reference, reference_tissues = heads
    with pytest.raises(ValueError, match='give both the same'):
        tissue_wasserstein(image, reference, tissues, {'GM': reference_tissues['GM']})
    with pytest.raises(ValueError, match='give both the same'):
        tissue_divergence(image, reference, {}, {}, (0, 1))
    with pytest.raises(ValueError, match='the WM mask is empty'):
        tissue_wasserstein(image, image, {'WM': tissues['WM']}, {'WM': np.zeros(image.shape, bool)})
    with pytest.raises(ValueError, match='WM holds intensities that are not finite'):
        tissue_wasserstein(
            np.full(image.shape, np.nan), image, {'WM': tissues['WM']}, {'WM': tissues['WM']}
        )
    one = np.ones(3)
    for options, told in (
        ({'interval': (1, 1)}, 'interval'),
        ({'interval': (0, np.nan)}, 'interval'),
        ({'interval': (0, 1), 'bins': 1}, '2 bins'),
        ({'interval': (0, 1), 'pseudo_count': 0}, 'pseudo-count'),
    ):
        with pytest.raises(ValueError, match=told):
            kullback_leibler(one, one, **options)
    with pytest.raises(ValueError, match='no intensities'):
        kullback_leibler(np.array([]), one, (0, 1))
    with pytest.raises(ValueError, match='not finite'):
        kullback_leibler(np.array([np.nan]), one, (0, 1))
