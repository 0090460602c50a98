import numpy as np
import pytest
import torch

from harmony_app.engine.super_resolution import FitSettings, make_consistent, super_resolve
from harmony_app.evaluation.metrics import psnr, ssim
from harmony_app.imaging.resample import resample
from harmony_app.imaging.slice_profile import thickening_matrix
from harmony_app.imaging.volume import Volume

FACTOR, SLICES, EDGE = 4, 16, 64
NOISE = 0.02
LESION = (slice(30, 34), slice(20, 24), slice(37, 41))
QUICK = FitSettings(steps=60, batch=8)


def blobs(rng: np.random.Generator) -> np.ndarray:
    """Rounded shapes of many sizes and intensities in a ball, the same along all axes."""
    shape = (EDGE, EDGE, SLICES * FACTOR)
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij')).astype(np.float32)
    middle = (np.array(shape) - 1)[:, None, None, None] / 2
    ball = (((at - middle) / middle) ** 2).sum(0) < 0.9
    image = np.where(ball, np.float32(1), 0)
    for _ in range(150):
        centre, radii = rng.uniform(8, 56, 3), np.exp(rng.uniform(0.3, 2.2, 3))
        offset = (at - centre[:, None, None, None]) / radii[:, None, None, None]
        image = np.where(ball & ((offset**2).sum(0) < 1), np.float32(rng.uniform(0.4, 1.7)), image)
    return image


@pytest.fixture(scope='module')
def case():
    """Thin slices with a planted lesion in even surroundings, and the scan of them."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(3)
    truth = blobs(rng)
    around = tuple(slice(s.start - 8, s.stop + 8) for s in LESION)
    truth[around] = 1.0
    truth[LESION] = 1.6
    scan = truth @ thickening_matrix(SLICES, FACTOR).T
    scan += NOISE * rng.standard_normal(scan.shape, np.float32)
    affine = np.diag([1, 1, FACTOR, 1.0])
    affine[:3, 3] = -20, 5, 7
    return truth, Volume(scan, affine)


@pytest.fixture(scope='module')
def thin(case):
    return super_resolve(case[1], FACTOR, QUICK)


@pytest.fixture(scope='module')
def spline(case, thin):
    return resample(case[1], thin.shape, thin.affine)


def test_it_is_nearer_to_thin_slices_than_splines_are(case, thin, spline):
    truth, mask = case[0], case[0] > 0
    assert psnr(thin.data, truth, mask, 1.7) > psnr(spline.data, truth, mask, 1.7) + 0.5
    assert ssim(thin.data, truth, mask, 1.7) > ssim(spline.data, truth, mask, 1.7) + 0.01


def test_a_lesion_is_neither_lost_nor_is_one_invented(case, thin, spline):
    truth = case[0]
    small = tuple(slice(s.start + 1, s.stop - 1) for s in LESION)
    assert spline.data[small].mean() - 0.02 < thin.data[small].mean() < 1.7
    # the even surroundings stay even: farther from their mean than splines only by noise
    around = np.zeros(truth.shape, bool)
    around[tuple(slice(s.start - 4, s.stop + 4) for s in LESION)] = True
    around[tuple(slice(s.start - 2, s.stop + 2) for s in LESION[:2])] = False
    assert truth[around].std() == 0
    assert np.abs(thin.data[around] - 1).max() < np.abs(spline.data[around] - 1).max() + 3 * NOISE


def test_what_is_thickened_again_is_the_scan(case, thin):
    again = thin.data @ thickening_matrix(SLICES, FACTOR).T
    difference = again - case[1].data
    assert np.abs(difference.mean()) < 0.2 * NOISE
    assert np.sqrt(np.mean(difference**2)) < 3 * NOISE
    assert case[1].data.min() <= thin.data.min()
    assert thin.data.max() <= case[1].data.max()


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_an_untrained_network_is_the_spline_on_the_same_field_of_view(case, axis):
    volume = case[1]
    order = np.roll([0, 1, 2], axis + 1)
    affine = volume.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, order]
    turned = Volume(volume.data.transpose(order), affine)
    axis = int(np.argmax(turned.zooms))
    found = super_resolve(turned, FACTOR, FitSettings(steps=0, rounds=0))
    assert found.shape[axis] == SLICES * FACTOR
    assert np.allclose(found.zooms, 1)
    corner = np.full(3, -0.5)
    assert np.allclose(
        found.affine[:3, :3] @ corner + found.affine[:3, 3],
        turned.affine[:3, :3] @ corner + turned.affine[:3, 3],
    )
    assert np.allclose(found.data, resample(turned, found.shape, found.affine).data, atol=1e-5)


def test_it_gives_the_same_voxels_each_time_and_in_every_unit(case):
    volume, settings = case[1], FitSettings(steps=4)
    first = super_resolve(volume, FACTOR, settings)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    again = super_resolve(volume, FACTOR, settings)
    torch.set_rng_state(state)
    assert np.array_equal(first.data, again.data)
    scaled = super_resolve(volume.with_data(volume.data * 512), FACTOR, settings)
    assert np.allclose(scaled.data / 512, first.data, atol=2e-3)


def test_an_empty_scan_stays_empty():
    empty = Volume(np.zeros((16, 16, 6), np.float32), np.diag([1, 1, 5, 1.0]))
    assert not super_resolve(empty, 5).data.any()


def test_back_projection_gives_what_the_scan_shows_and_leaves_noise(case):
    scan = case[1].data
    flat = np.zeros((*scan.shape[:2], SLICES * FACTOR), np.float32)
    thicken = thickening_matrix(SLICES, FACTOR).T
    found = make_consistent(flat, scan, FACTOR, 0.0, 3)
    assert np.abs(found @ thicken - scan).mean() < 0.1 * np.abs(scan).mean()
    near = scan @ np.repeat(np.eye(SLICES, dtype=np.float32), FACTOR, 0).T
    assert np.array_equal(make_consistent(near, near @ thicken, FACTOR, NOISE, 2), near)
