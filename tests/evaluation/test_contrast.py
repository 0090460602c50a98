"""Contrast against scikit-learn and against what maps of intensities must leave alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from harmony_app.evaluation.contrast import gm_wm_auroc, lesion_contrast_to_noise, lesion_ratio


@pytest.fixture(scope='module')
def scan():
    """Scan of whole numbers, so that there are ties, and masks of GM and WM."""
    generator = np.random.default_rng(3)
    tissue = generator.integers(0, 3, (12, 13, 14))
    image = np.round(generator.normal(60 + 15 * tissue, 12))
    return image, tissue == 1, tissue == 2


def test_area_is_that_of_scikit_learn(scan):
    image, gm, wm = scan
    brain = gm | wm
    expected = roc_auc_score(wm[brain], image[brain])
    assert 0.7 < expected < 0.9
    assert gm_wm_auroc(image, gm, wm) == pytest.approx(expected, abs=1e-12)
    assert gm_wm_auroc(image, wm, gm) == pytest.approx(1 - expected, abs=1e-12)


def test_area_is_that_over_all_thresholds(scan):
    """As the paper has it: classify by every threshold, and integrate the curve."""
    image, gm, wm = scan
    thresholds = np.r_[np.inf, np.unique(image)[::-1]]
    false, true = ([np.mean(image[mask] >= t) for t in thresholds] for mask in (gm, wm))
    area = np.sum(np.diff(false) * (np.array(true)[1:] + true[:-1]) / 2)
    assert gm_wm_auroc(image, gm, wm) == pytest.approx(area, abs=1e-12)


def test_direction_counts_unless_it_is_asked_not_to(scan):
    image, gm, wm = scan
    area = gm_wm_auroc(image, gm, wm)
    assert gm_wm_auroc(-image, gm, wm) == pytest.approx(1 - area)
    assert gm_wm_auroc(-image, gm, wm, either_direction=True) == pytest.approx(area)
    assert gm_wm_auroc(image, gm, wm, either_direction=True) == pytest.approx(area)


@given(st.floats(0.3, 3), st.floats(0.1, 100))
def test_increasing_maps_leave_the_area_alone(scan, gamma, scale):
    image, gm, wm = scan
    mapped = scale * np.maximum(image, 0) ** gamma
    assert gm_wm_auroc(mapped, gm, wm) == gm_wm_auroc(np.maximum(image, 0), gm, wm)


def test_extremes_of_the_area():
    gm = np.array([True, True, False, False])
    assert gm_wm_auroc(np.array([1, 2, 3, 4]), gm, ~gm) == 1
    assert gm_wm_auroc(np.array([3, 4, 1, 2]), gm, ~gm) == 0
    assert gm_wm_auroc(np.array([1, 2, 1, 2]), gm, ~gm) == 0.5


@given(st.floats(0.1, 50), st.floats(-100, 100))
def test_contrast_to_noise_knows_no_unit(scale, shift):
    generator = np.random.default_rng(1)
    image = generator.normal(size=200)
    lesion = np.arange(200) < 20
    image[lesion] += 5
    expected = lesion_contrast_to_noise(image, lesion, ~lesion)
    assert 4 < expected < 6
    assert lesion_contrast_to_noise(scale * image + shift, lesion, ~lesion) == pytest.approx(
        expected, rel=1e-6
    )


def test_dark_lesions_are_below():
    image, lesion = np.array([9.0, 10.0, 11.0, 5.0, 7.0]), np.array([0, 0, 0, 1, 1], bool)
    assert lesion_contrast_to_noise(image, lesion, ~lesion) == pytest.approx(-4)
    assert lesion_ratio(image, lesion, ~lesion) == pytest.approx(0.6)
    assert lesion_ratio(3 * image, lesion, ~lesion) == pytest.approx(0.6)


def test_smoothing_raises_contrast_to_noise_and_not_the_ratio():
    image, lesion = np.array([8.0, 10.0, 12.0, 16.0]), np.array([0, 0, 0, 1], bool)
    smooth = np.array([9.0, 10.0, 11.0, 16.0])
    assert lesion_contrast_to_noise(smooth, lesion, ~lesion) == pytest.approx(6)
    assert lesion_ratio(smooth, lesion, ~lesion) == lesion_ratio(image, lesion, ~lesion)


def test_degenerate_input_is_told():
    image, some = np.array([1.0, 1.0, 1.0, -4.0]), np.array([1, 0, 0, 1], bool)
    nothing, first = np.zeros(4, bool), np.array([1, 0, 0, 0], bool)
    for measure in (gm_wm_auroc, lesion_contrast_to_noise, lesion_ratio):
        with pytest.raises(ValueError, match='is empty'):
            measure(image, some, nothing)
        with pytest.raises(ValueError, match='share 2 voxels'):
            measure(image, some, some)
        with pytest.raises(ValueError, match='not finite'):
            measure(np.full(4, np.nan), some, ~some)
    with pytest.raises(ValueError, match='constant in GM and WM'):
        gm_wm_auroc(np.ones(4), some, ~some)
    with pytest.raises(ValueError, match='no noise'):
        lesion_contrast_to_noise(image, some, ~some)
    with pytest.raises(ValueError, match='not above 0'):
        lesion_ratio(-image, first, ~first & ~some)
