"""Radiomic features of made scans: reference values, names, degenerate regions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from harmony_app.evaluation.radiomics import (
    REGIONS,
    feature_table,
    first_order_features,
    region_features,
    regional_features,
    scan_features,
    tissue_regions,
)

IBSI = {
    'mean': 2.15,
    'variance': 3.05,
    'skewness': 1.08,
    'kurtosis': -0.355,
    'median': 1,
    'minimum': 1,
    'percentile_10': 1,
    'percentile_90': 4,
    'maximum': 6,
    'interquartile_range': 3,
    'range': 5,
    'mean_absolute_deviation': 1.55,
    'robust_mean_absolute_deviation': 1.11,
    'median_absolute_deviation': 1.15,
    'coefficient_of_variation': 0.812,
    'quartile_coefficient_of_dispersion': 0.6,
    'energy': 567,
    'root_mean_square': 2.77,
    'entropy': 1.27,
    'uniformity': 0.512,
}
"""Reference values of the digital phantom of IBSI (arXiv:1612.07003, sections 3.3 and 3.4)."""


@pytest.fixture(scope='module')
def scan():
    """Blocks of GM, WM and CSF with noise, and their maps; voxels beside them are no brain."""
    generator = np.random.default_rng(8)
    tissues = np.zeros((3, 24, 24, 24), np.uint8)
    tissues[0, 2:8, 2:22, 2:22] = 255
    tissues[1, 8:16, 2:22, 2:22] = 255
    tissues[2, 16:22, 2:22, 2:22] = 255
    data = np.einsum('t,txyz->xyz', (0.7, 1.0, 0.2), tissues / 255)
    brain = data > 0
    noise = 0.03 * generator.normal(size=data.shape)
    return np.where(brain, data + noise, 0).astype(np.float32), brain, tissues


@pytest.mark.parametrize('name', IBSI)
def test_statistics_of_the_ibsi_phantom(name):
    values = np.repeat([1, 3, 4, 6], [50, 1, 16, 7])  # its histogram
    features = first_order_features(values, values)
    assert features.keys() == IBSI.keys()
    assert features[name] == pytest.approx(IBSI[name], abs=0.006, rel=5e-3)


def test_the_features_of_a_scan_have_stable_names(scan):
    features = scan_features(*scan)
    names = list(features)
    for part in ('firstorder_mean', 'glcm_contrast', 'glrlm_entropy', 'glszm_percentage'):
        assert [n for n in names if n.endswith(part)] == [f'{r}_{part}' for r in REGIONS]
    other = scan_features(scan[0] ** 2, *scan[1:], step=1)
    assert list(other) == names
    assert len(names) == 4 * (20 + 14 + 16 + 16)


def test_tissues_are_measured_where_their_maps_say(scan):
    features = scan_features(*scan)
    for region, mean in zip(REGIONS[1:], (0.7, 1.0, 0.2), strict=True):
        assert features[f'{region}_firstorder_mean'] == pytest.approx(mean, abs=0.01)
    regions = tissue_regions(*scan)
    assert regions['GM'].shape == (12, 12, 12)
    assert {name: int(mask.sum()) for name, mask in regions.items()} == {
        'brain': 1000, 'GM': 300, 'WM': 400, 'CSF': 300
    }  # fmt: skip


def test_maps_of_both_kinds_are_read_alike(scan):
    data, brain, tissues = scan
    assert scan_features(data, brain, tissues) == scan_features(data, brain, tissues / 255)


def test_the_mean_over_cubes_lowers_the_noise(scan):
    fine, coarse = (scan_features(*scan, step=step) for step in (1, 2))
    ratio = fine['WM_firstorder_variance'] / coarse['WM_firstorder_variance']
    assert ratio == pytest.approx(8, rel=0.3)
    assert fine['WM_glcm_contrast'] > 4 * coarse['WM_glcm_contrast']


def test_a_wider_bin_sees_less_contrast(scan):
    fine, wide = (scan_features(*scan, bin_width=width) for width in (0.01, 0.05))
    assert fine['WM_glcm_contrast'] > 3 * wide['WM_glcm_contrast']
    assert fine['WM_firstorder_mean'] == wide['WM_firstorder_mean']


def test_a_constant_region_has_every_feature():
    features = region_features(np.full((4, 3, 2), 0.1, np.float32), np.ones((4, 3, 2), bool))
    for name in (
        'firstorder_skewness',
        'firstorder_kurtosis',
        'firstorder_entropy',
        'glcm_contrast',
        'glcm_entropy',
        'glcm_correlation',
        'glrlm_level_variance',
        'glszm_entropy',
    ):
        assert features[name] == 0
    assert features['glszm_large_emphasis'] == 24**2
    assert features['firstorder_mean'] == pytest.approx(0.1)
    assert all(np.isfinite(value) for value in features.values())


@given(
    npst.arrays(np.float32, (3, 4, 3), elements=st.sampled_from([0.0, 0.1, 0.7, 1.0, 5.0])),
    npst.arrays(bool, (3, 4, 3)).filter(np.any),
)
@settings(max_examples=60, deadline=None)
def test_no_region_gives_a_feature_that_is_not_finite(data, mask):
    assert all(np.isfinite(value) for value in region_features(data, mask).values())


def test_what_lies_beside_the_region_does_not_count(scan):
    data, _, _ = scan
    mask = np.zeros(data.shape, bool)
    mask[4:9, 3:9, 10:14] = True
    expected = region_features(data, mask)
    assert region_features(np.where(mask, data, 3.0), mask) == expected


def test_a_tissue_that_is_not_seen_is_named(scan):
    data, brain, tissues = scan
    with pytest.raises(ValueError, match='region CSF: the region is empty'):
        scan_features(np.where(tissues[2], 0, data), brain, tissues)
    with pytest.raises(ValueError, match='region lesion: '):
        regional_features(data, {'lesion': np.zeros(data.shape, bool)})


def test_what_does_not_fit_is_refused(scan):
    data, brain, tissues = scan
    with pytest.raises(ValueError, match='unequal shapes'):
        scan_features(data, brain[1:], tissues)
    with pytest.raises(ValueError, match='unequal shapes'):
        scan_features(data, brain, tissues[:2])
    with pytest.raises(ValueError, match='step'):
        scan_features(data, brain, tissues, step=0)
    with pytest.raises(ValueError, match='no scans'):
        feature_table([])
    with pytest.raises(ValueError, match='different features'):
        feature_table([{'a': 1.0}, {'b': 1.0}])
