"""Texture against the IBSI reference values, scikit-image and plain counting."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.feature import graycomatrix, graycoprops

from harmony_app.evaluation.texture import (
    DIRECTIONS,
    cooccurrence_features,
    cooccurrence_matrix,
    discretize,
    run_lengths,
    size_features,
    zone_sizes,
)

PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
"""The digital phantom of IBSI (arXiv:1612.07003, section 5.1); 0 is outside its region."""

GLCM = {
    'maximum': 0.509,
    'average': 2.15,
    'variance': 3.13,
    'entropy': 2.57,
    'energy': 0.291,
    'contrast': 5.12,
    'dissimilarity': 1.38,
    'difference_variance': 3.21,
    'difference_entropy': 1.64,
    'inverse_difference': 0.688,
    'homogeneity': 0.631,
    'correlation': 0.183,
    'cluster_shade': 17.4,
    'cluster_prominence': 147,
}
"""Its reference values, 3D merged (section 3.6)."""

GLRLM = {
    'small_emphasis': 0.729,
    'large_emphasis': 2.76,
    'low_level_emphasis': 0.607,
    'high_level_emphasis': 9.64,
    'small_low_emphasis': 0.372,
    'small_high_emphasis': 8.67,
    'large_low_emphasis': 2.16,
    'large_high_emphasis': 15.6,
    'level_nonuniformity': 281,
    'level_nonuniformity_normalized': 0.43,
    'size_nonuniformity': 328,
    'size_nonuniformity_normalized': 0.501,
    'percentage': 0.68,
    'level_variance': 3.48,
    'size_variance': 0.598,
    'entropy': 2.62,
}
"""3D merged (section 3.7)."""

GLSZM = {
    'small_emphasis': 0.255,
    'large_emphasis': 550,
    'low_level_emphasis': 0.253,
    'high_level_emphasis': 15.6,
    'small_low_emphasis': 0.0256,
    'small_high_emphasis': 2.76,
    'large_low_emphasis': 503,
    'large_high_emphasis': 1490,
    'level_nonuniformity': 1.4,
    'level_nonuniformity_normalized': 0.28,
    'size_nonuniformity': 1,
    'size_nonuniformity_normalized': 0.2,
    'percentage': 0.0676,
    'level_variance': 2.64,
    'size_variance': 331,
    'entropy': 2.32,
}
"""3D (section 3.8)."""

volumes = npst.arrays(
    np.int64,
    st.tuples(*[st.integers(1, 4)] * 3),
    elements=st.integers(0, 3),
)
"""Small grey levels with holes."""


def rounded(value):
    """To the three digits that the reference values have."""
    return round(value, 2 - math.floor(math.log10(abs(value)))) if value else 0.0


def neighbours(levels):
    """Ordered pairs of levels of neighbouring voxels of the region, one by one."""
    for place in itertools.product(*map(range, levels.shape)):
        for step in DIRECTIONS:
            other = tuple(np.add(place, step))
            if all(0 <= i < n for i, n in zip(other, levels.shape, strict=True)):
                pair = levels[place], levels[other]
                if min(pair) > 0:
                    yield pair


@pytest.mark.parametrize('name', GLCM)
def test_cooccurrence_of_the_ibsi_phantom(name):
    features = cooccurrence_features(cooccurrence_matrix(PHANTOM))
    assert features.keys() == GLCM.keys()
    assert rounded(features[name]) == pytest.approx(GLCM[name], rel=1e-9)


@pytest.mark.parametrize('name', GLRLM)
def test_runs_of_the_ibsi_phantom(name):
    features = size_features(*run_lengths(PHANTOM), voxels=13 * (PHANTOM > 0).sum())
    assert features.keys() == GLRLM.keys()
    assert rounded(features[name]) == pytest.approx(GLRLM[name], rel=1e-9)


@pytest.mark.parametrize('name', GLSZM)
def test_zones_of_the_ibsi_phantom(name):
    features = size_features(*zone_sizes(PHANTOM), voxels=(PHANTOM > 0).sum())
    # 1494.6 rounds to 1490, the consensus of the initiative.
    assert rounded(features[name]) == pytest.approx(GLSZM[name], rel=1e-9)


def test_cooccurrence_of_a_slice_is_that_of_scikit_image():
    image = np.random.default_rng(3).integers(0, 6, (20, 17)).astype(np.uint8)
    image[0, 0] = 5
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    theirs = graycomatrix(image, [1], angles, levels=6, symmetric=True).sum(axis=(2, 3))
    theirs = theirs / theirs.sum()
    ours = cooccurrence_matrix(image[:, :, None].astype(int) + 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    features = cooccurrence_features(ours)
    features['ASM'] = features['energy']
    for name in ('contrast', 'dissimilarity', 'homogeneity', 'ASM', 'correlation', 'entropy'):
        expected = graycoprops(theirs[:, :, None, None], name)[0, 0]
        if name == 'entropy':
            expected /= np.log(2)  # theirs is in nat
        assert features[name] == pytest.approx(expected)


@given(volumes)
@settings(max_examples=40, deadline=None)
def test_pairs_are_those_that_are_counted_one_by_one(levels):
    expected = np.zeros((levels.max(),) * 2)
    for first, second in neighbours(levels):
        expected[first - 1, second - 1] += 1
        expected[second - 1, first - 1] += 1
    matrix = cooccurrence_matrix(levels)
    np.testing.assert_allclose(matrix, expected / max(expected.sum(), 1))
    assert all(np.isfinite(value) for value in cooccurrence_features(matrix).values())


@given(volumes)
@settings(max_examples=40, deadline=None)
def test_runs_hold_every_voxel_once_and_break_where_the_level_does(levels):
    matrix, lengths = run_lengths(levels)
    voxels = np.bincount(levels.ravel(), minlength=levels.max() + 1)[1:]
    np.testing.assert_array_equal(matrix @ lengths, 13 * voxels)
    # Every pair of equal neighbours joins two voxels to one run.
    joints = np.zeros(levels.max(), int)
    for first, second in neighbours(levels):
        joints[first - 1] += first == second
    np.testing.assert_array_equal(matrix.sum(axis=1), 13 * voxels - joints)


@given(volumes)
@settings(max_examples=40, deadline=None)
def test_zones_are_the_connected_parts_of_each_level(levels):
    from scipy import ndimage

    matrix, sizes = zone_sizes(levels)
    for level in range(1, levels.max() + 1):
        zones, count = ndimage.label(levels == level, np.ones((3, 3, 3)))
        expected = sorted(np.bincount(zones.ravel())[1:].tolist())
        assert np.repeat(sizes, matrix[level - 1]).tolist() == expected
        assert len(expected) == count


def test_texture_does_not_depend_on_the_orientation():
    turned = PHANTOM.transpose(2, 0, 1)[::-1]
    np.testing.assert_allclose(cooccurrence_matrix(turned), cooccurrence_matrix(PHANTOM))
    np.testing.assert_array_equal(run_lengths(turned)[0], run_lengths(PHANTOM)[0])


def test_features_of_no_neighbours_are_zero():
    lonely = np.zeros((3, 3, 3), int)
    lonely[0, 0, 0] = lonely[2, 2, 2] = 2
    assert set(cooccurrence_features(cooccurrence_matrix(lonely)).values()) == {0.0}


def test_bins_start_at_the_same_intensity_and_hold_what_lies_beyond():
    data = np.array([-1.0, 0.0, 0.3, 0.999, 1.0, 9.0]).reshape(6, 1, 1)
    levels = discretize(data, np.ones(data.shape, bool), bin_width=0.1, upper=1.0)
    assert levels.ravel().tolist() == [1, 1, 4, 10, 10, 10]


@pytest.mark.parametrize(
    'data, mask, width, message',
    (
        (np.ones((2, 2, 2)), np.zeros((2, 2, 2), bool), 0.1, 'empty'),
        (np.ones((2, 2, 2)), np.ones((2, 2, 3), bool), 0.1, '3D scan'),
        (np.ones((2, 2)), np.ones((2, 2), bool), 0.1, '3D scan'),
        (np.ones((2, 2, 2)), np.ones((2, 2, 2), bool), 0.0, 'bin width'),
        (np.full((2, 2, 2), np.nan), np.ones((2, 2, 2), bool), 0.1, 'finite'),
    ),
)
def test_what_cannot_be_discretized_is_refused(data, mask, width, message):
    with pytest.raises(ValueError, match=message):
        discretize(data, mask, width)
