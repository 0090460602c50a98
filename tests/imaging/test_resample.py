"""Interpolation on other grids: in place, in range, nothing invented."""

import numpy as np
import pytest

from harmony_app.imaging.resample import isotropic_grid, resample
from harmony_app.imaging.volume import Volume


def wave(shape, affine):
    """A smooth function of position, 1 to 3, sampled on a grid."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    return Volume((2 + np.sin(x / 9) * np.cos(y / 7) * np.cos(z / 8)).astype(np.float32), affine)


def grid(zooms, origin=(-20.0, -20.0, -20.0)):
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = origin
    return affine


def turned():
    angle = 0.2
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = (2.5, -1.5, 3.0)
    return matrix


def test_same_grid_gives_the_same_voxels():
    source = wave((20, 21, 22), grid((2, 2, 2)))
    out = resample(source, source.shape, source.affine)
    np.testing.assert_allclose(out.data, source.data, atol=1e-5)


def test_a_turned_smooth_function_is_found_where_it_went():
    source = wave((40, 40, 40), grid((1, 1, 1)))
    affine = grid((1, 1, 1), (-10, -10, -10))
    out = resample(source, (20, 20, 20), affine, turned())
    expected = wave((20, 20, 20), np.linalg.inv(turned()) @ affine)
    inside = out.data > 0
    assert inside.mean() > 0.95
    deep = (slice(4, -4),) * 3
    np.testing.assert_allclose(out.data[deep], expected.data[deep], atol=2e-3)


@pytest.mark.parametrize('order', [0, 1, 3])
def test_zero_outside_and_never_beyond_the_range(order):
    data = np.zeros((16, 16, 16), np.float32)
    data[4:12, 4:12, 4:12] = 1000
    source = Volume(data, grid((1, 1, 1)))
    out = resample(source, (60, 60, 60), grid((0.7, 0.7, 0.7), (-28, -28, -28)), turned(), order)
    assert out.data.min() >= 0
    assert out.data.max() <= 1000
    back = np.linalg.inv(source.affine) @ np.linalg.inv(turned()) @ out.affine
    index = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing='ij'), -1)
    place = index @ back[:3, :3].T + back[:3, 3]
    outside = ((place < -0.51) | (place > 15.51)).any(-1)
    assert not out.data[outside].any()


def test_a_volume_without_overlap_is_empty():
    source = wave((8, 8, 8), grid((1, 1, 1)))
    assert not resample(source, (8, 8, 8), grid((1, 1, 1), (500, 0, 0))).data.any()


def test_coarser_grids_are_smoothed_first():
    noise = np.random.default_rng(0).normal(0, 1, (48, 48, 48)).astype(np.float32)
    out = resample(Volume(noise, np.eye(4)), (12, 12, 12), np.diag([4, 4, 4, 1.0]))
    # A point sample would keep the deviation of 1; the mean of 64 voxels has 0.125.
    assert out.data[2:-2, 2:-2, 2:-2].std() < 0.25


def test_labels_keep_their_values_and_masks_their_type():
    labels = np.random.default_rng(0).integers(0, 4, (10, 10, 10)).astype(np.uint8)
    out = resample(Volume(labels, np.eye(4)), (20, 20, 20), np.diag([0.5, 0.5, 0.5, 1]), order=0)
    assert out.data.dtype == np.uint8
    assert set(np.unique(out.data)) <= {0, 1, 2, 3}
    mask = resample(Volume(labels > 1, np.eye(4)), (10, 10, 10), np.eye(4), order=0)
    assert mask.data.dtype == bool
    np.testing.assert_array_equal(mask.data, labels > 1)


def test_thick_slices_become_thin_in_place():
    thick = wave((40, 40, 14), grid((1, 1, 3)))
    affine = thick.affine @ np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1 / 3, -1 / 3], [0, 0, 0, 1]]
    )
    expected = wave((40, 40, 42), affine)
    fine = resample(thick, (40, 40, 42), affine)
    np.testing.assert_allclose(fine.data[:, :, 6:-6], expected.data[:, :, 6:-6], atol=0.02)


def test_the_coarse_grid_has_the_same_centre():
    scan = wave((31, 40, 22), grid((0.9, 0.9, 3.3)))
    shape, affine = isotropic_grid(scan, 4.0)
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    wanted = scan.affine[:3, :3] @ ((np.array(scan.shape) - 1) / 2) + scan.affine[:3, 3]
    np.testing.assert_allclose(middle, wanted)
