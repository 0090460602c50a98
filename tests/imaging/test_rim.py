"""What a mask cut off the cortex comes back; fluid, dura and scalp stay out."""

import numpy as np
import pytest
from scipy import ndimage

from harmony_app.imaging import fluid, profile
from harmony_app.imaging.rim import GREY, REACH, brain_span, take_in_rim

LEVELS = {
    'T1w': {'GM': 70, 'WM': 100, 'CSF': 20, 'scalp': 160},
    'T2w': {'GM': 150, 'WM': 100, 'CSF': 430, 'scalp': 90},
    'FLAIR': {'GM': 115, 'WM': 100, 'CSF': 18, 'scalp': 140},
}


def head(contrast, seed=0):
    """A ball of brain in fluid, bone and scalp: scan, mask 2 mm too small, maps, true brain."""
    centre = np.indices((72, 72, 72)) - 35.5
    radius = np.sqrt((centre**2).sum(0))
    levels = LEVELS[contrast]
    data = np.zeros(radius.shape, np.float32)
    for border, name in (
        (34, 'scalp'),
        (31, None),
        (28, 'CSF'),
        (25, 'GM'),
        (19, 'WM'),
        (8, 'CSF'),
    ):
        data[radius <= border] = levels[name] if name else 5
    data[29:32, 3:8, 30:40] = levels['GM']
    data += np.random.default_rng(seed).normal(0, 2, data.shape).astype(np.float32)
    mask = radius <= 23
    tissues = np.zeros((3, *data.shape), np.uint8)
    tissues[1, radius <= 19] = 255
    tissues[2, radius <= 8] = 255
    tissues[1, radius <= 8] = 0
    tissues[0, mask & (radius > 19)] = 255
    return data, mask, tissues, radius <= 25


@pytest.mark.parametrize('contrast', LEVELS)
def test_cut_cortex_is_taken_in(contrast):
    data, mask, tissues, truth = head(contrast)
    brain, maps = take_in_rim(data, mask, tissues)
    rim = truth & ~mask
    assert (brain & rim).sum() > 0.95 * rim.sum()
    # half of a voxel of blur beyond the border
    assert (brain & ~truth).sum() < 0.06 * truth.sum()
    assert (brain & mask).sum() == mask.sum()
    new = brain & ~mask
    assert (maps[:, new].sum(0) == 255).all()
    assert (maps[0, rim & brain] == round(255 * GREY)).mean() > 0.9
    # it is grey matter where one tissue is asked for, and tells no level
    assert maps[0, rim & brain].max() < 255 * min(profile.CERTAIN, fluid.CERTAIN / 255)
    assert (np.argmax(maps[:, rim & brain], axis=0) == 0).mean() > 0.9
    np.testing.assert_array_equal(maps[:, mask], tissues[:, mask])


def test_nothing_beyond_reach_and_no_sheet_of_a_voxel():
    data, mask, tissues, truth = head('T1w')
    data[:, :, 35] = 75
    brain, _ = take_in_rim(data, mask, tissues)
    assert ndimage.distance_transform_edt(~mask)[brain].max() <= REACH
    sheet = np.zeros_like(mask)
    sheet[:, :, 35] = True
    assert not (brain & sheet & ~ndimage.binary_dilation(truth, iterations=2)).any()


def test_the_unit_does_not_matter():
    data, mask, tissues, _ = head('T1w')
    first, _ = take_in_rim(data, mask, tissues)
    second, _ = take_in_rim(data * np.float32(0.01), mask, tissues)
    np.testing.assert_array_equal(first, second)


def test_a_scan_that_does_not_show_its_tissues_keeps_its_mask():
    data, mask, tissues, _ = head('T1w')
    assert brain_span(np.zeros_like(data), mask, tissues) is None
    brain, maps = take_in_rim(np.zeros_like(data), mask, tissues)
    assert brain is mask
    assert maps is tissues
    nothing = np.zeros_like(mask)
    assert take_in_rim(data, nothing, tissues)[0] is nothing
