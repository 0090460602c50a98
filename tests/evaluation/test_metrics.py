"""Metrics against hand-made numbers and against scikit-image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import metrics as skimage_metrics

from harmony_app.evaluation.metrics import histogram_distance, pcc, psnr, rmse, ssim


@pytest.fixture(scope='module')
def pair():
    generator = np.random.default_rng(5)
    reference = generator.random((24, 26, 28)).astype(np.float32)
    image = (0.8 * reference + 0.1 + 0.05 * generator.normal(size=reference.shape)).astype(
        np.float32
    )
    return image, reference


def everywhere(image):
    return np.ones(image.shape, bool)


def window():
    """The 11 x 11 x 11 Gaussian of sigma 1.5 that Wang 2004 uses, made by hand."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    return np.einsum('i,j,k->ijk', taps, taps, taps)


def test_ssim_of_one_voxel_by_hand(pair):
    image, reference = (a.astype(np.float64) for a in pair)
    mask = np.zeros(image.shape, bool)
    mask[12, 9, 14] = True
    x, y = (a[7:18, 4:15, 9:20] for a in (image, reference))
    weights = window()
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * x * x).sum() - mx**2, (weights * y * y).sum() - my**2
    covariance = (weights * x * y).sum() - mx * my
    c1, c2 = (0.01 * 2.0) ** 2, (0.03 * 2.0) ** 2
    by_hand = ((2 * mx * my + c1) * (2 * covariance + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(image, reference, mask, data_range=2.0) == pytest.approx(by_hand, abs=1e-9)


def test_ssim_in_a_box_is_that_of_the_whole_image(pair):
    """The crop to the mask changes nothing."""
    image, reference = pair
    mask = np.zeros(image.shape, bool)
    mask[3:9, 10:20, 0:7] = True
    _, full = skimage_metrics.structural_similarity(
        image,
        reference,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert ssim(image, reference, mask, data_range=1.0) == pytest.approx(
        full[mask].mean(), abs=1e-6
    )


def test_ssim_sees_only_the_mask(pair):
    image, reference = pair
    mask = np.zeros(image.shape, bool)
    mask[:8] = True
    spoiled = image.copy()
    spoiled[14:] = 7
    assert ssim(spoiled, reference, mask, 1.0) == pytest.approx(ssim(image, reference, mask, 1.0))


def test_equal_images(pair):
    _, reference = pair
    mask = everywhere(reference)
    assert ssim(reference, reference, mask, 1.0) == pytest.approx(1)
    assert rmse(reference, reference, mask) == 0
    assert psnr(reference, reference, mask, 1.0) == float('inf')
    assert pcc(reference, reference, mask) == pytest.approx(1)
    assert histogram_distance(reference, reference, mask, mask) == 0


def test_agreement_with_scikit_image(pair):
    image, reference = pair
    mask = everywhere(image)
    expected = skimage_metrics.peak_signal_noise_ratio(reference, image, data_range=1.0)
    assert psnr(image, reference, mask, 1.0) == pytest.approx(expected, abs=1e-4)
    expected = np.sqrt(skimage_metrics.mean_squared_error(image, reference))
    assert rmse(image, reference, mask) == pytest.approx(expected, rel=1e-5)
    assert pcc(image, reference, mask) == pytest.approx(
        np.corrcoef(image.ravel(), reference.ravel())[0, 1], abs=1e-6
    )


def test_psnr_and_rmse_by_hand():
    image, reference = np.array([3.0, 1.0, 100.0]), np.array([0.0, 5.0, 0.0])
    mask = np.array([True, True, False])
    assert rmse(image, reference, mask) == pytest.approx(np.sqrt((9 + 16) / 2))
    assert psnr(image, reference, mask, 10.0) == pytest.approx(10 * np.log10(100 / 12.5))


def test_pcc_of_opposite_and_constant_images():
    ramp, mask = np.arange(5.0), np.ones(5, bool)
    assert pcc(ramp, -2 * ramp + 1, mask) == pytest.approx(-1)
    assert np.isnan(pcc(ramp, np.ones(5), mask))


@given(st.floats(-3, 3), st.integers(2, 50))
def test_a_shift_is_its_histogram_distance(shift, size):
    values = np.random.default_rng(size).random(size)
    mask = np.ones(size, bool)
    # In another order too: place does not count.
    distance = histogram_distance(values, values[::-1] + shift, mask, mask)
    assert distance == pytest.approx(abs(shift), abs=1e-9)


def test_histogram_distance_of_regions_of_unequal_size():
    """Half of the reference lies at 1, half at 2: the mean way from 0 is 1.5."""
    distance = histogram_distance(
        np.zeros((2, 2)),
        np.array([1.0, 2.0, 50.0]),
        np.ones((2, 2), bool),
        np.array([1, 1, 0], bool),
    )
    assert distance == pytest.approx(1.5)


@pytest.mark.parametrize('metric', (rmse, pcc, lambda *a: ssim(*a, 1.0), lambda *a: psnr(*a, 1.0)))
def test_wrong_input_is_told(metric):
    image = np.zeros((12, 12, 12))
    with pytest.raises(ValueError, match='empty'):
        metric(image, image, np.zeros(image.shape, bool))
    with pytest.raises(ValueError, match='unequal shapes'):
        metric(image, image[1:], everywhere(image))


@pytest.mark.parametrize('metric', (ssim, psnr))
@pytest.mark.parametrize('data_range', (0, -1, float('nan')))
def test_a_range_not_above_zero_is_told(metric, data_range):
    image = np.zeros((12, 12, 12))
    with pytest.raises(ValueError, match='data range'):
        metric(image, image, everywhere(image), data_range)
