"""Overlap against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score

from harmony_app.evaluation.overlap import (
    LABELS,
    Overlap,
    dice,
    jaccard,
    tissue_overlap,
    volume_difference,
)


@pytest.fixture(scope='module')
def segmentations():
    generator = np.random.default_rng(8)
    reference = generator.integers(0, 4, (9, 10, 11)).astype(np.uint8)
    changed = generator.random(reference.shape) < 0.3
    return np.where(changed, generator.integers(0, 4, reference.shape), reference), reference


def test_every_tissue_is_as_scikit_learn_has_it(segmentations):
    labels, reference = segmentations
    results = tissue_overlap(labels, reference)
    assert list(results) == ['GM', 'WM', 'CSF']
    codes = list(LABELS.values())
    options = {'labels': codes, 'average': None}
    expected = f1_score(reference.ravel(), labels.ravel(), **options)
    assert [r.dice for r in results.values()] == pytest.approx(expected)
    expected = jaccard_score(reference.ravel(), labels.ravel(), **options)
    assert [r.jaccard for r in results.values()] == pytest.approx(expected)
    for code, result in zip(codes, results.values(), strict=True):
        volume, truth = np.sum(labels == code), np.sum(reference == code)
        assert result.volume_difference == pytest.approx((volume / truth - 1) * 100)
        assert result.absolute_volume_difference == abs(result.volume_difference)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_dice_and_jaccard_know_each_other(pairs):
    mask, reference = np.array(pairs).T
    assume(mask.any() or reference.any())
    overlap = dice(mask, reference)
    assert overlap == dice(reference, mask)
    assert jaccard(mask, reference) == pytest.approx(overlap / (2 - overlap))


def test_a_tissue_that_is_missed_and_one_that_is_met():
    reference = np.array([1, 1, 2, 3])
    assert tissue_overlap(reference, reference)['CSF'] == Overlap(1, 1, 0)
    assert tissue_overlap(np.array([1, 1, 3, 3]), reference)['WM'] == Overlap(0, 0, -100)


def test_labels_of_another_table():
    fast = {'CSF': 1, 'GM': 2, 'WM': 3}
    results = tissue_overlap(np.array([1, 2, 3, 3]), np.array([1, 2, 2, 3]), fast)
    assert list(results) == ['CSF', 'GM', 'WM']
    assert results['GM'].volume_difference == -50
    assert results['GM'].absolute_volume_difference == 50


def test_labels_kept_as_floats_count_too(segmentations):
    labels, reference = segmentations
    as_floats = tissue_overlap(labels.astype(np.float32), reference)
    assert as_floats == tissue_overlap(labels, reference)


def test_degenerate_input_is_told():
    some, nothing = np.array([True, False]), np.array([False, False])
    for measure in (dice, jaccard):
        assert measure(some, nothing) == 0
        with pytest.raises(ValueError, match='both masks are empty'):
            measure(nothing, nothing)
    with pytest.raises(ValueError, match='the reference is empty'):
        volume_difference(some, nothing)
    with pytest.raises(ValueError, match='unequal shapes'):
        dice(some, np.ones(3, bool))
    with pytest.raises(ValueError, match='no CSF'):
        tissue_overlap(np.array([1, 2, 3]), np.array([1, 2, 2]))
    with pytest.raises(ValueError, match='nearest neighbour'):
        tissue_overlap(np.array([1, 1.5, 3]), np.array([1, 2, 3]))
    with pytest.raises(ValueError, match='nearest neighbour'):
        tissue_overlap(np.array([1, np.nan, 3]), np.array([1, 2, 3]))
