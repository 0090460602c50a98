"""The field that the tissues of a registered scan show."""

import numpy as np
import pytest
from scipy import ndimage

from harmony_app.imaging.bias import FIELD_STEP, divide_field, tissue_field
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE, coarse_grid
from harmony_app.imaging.template import load_template
from harmony_app.imaging.volume import Volume

GREY = 0.7


@pytest.fixture(scope='module')
def head():
    """Template's brain and maps, and an image of it with a level for each tissue."""
    template = load_template()
    brain, tissues = template.brain, template.tissues
    image = np.array([GREY, 1, 0.2], np.float32)[tissues.argmax(axis=0)] * brain
    rng = np.random.default_rng(0)
    image = np.abs(image + 0.02 * rng.standard_normal(image.shape, np.float32))
    return brain, tissues, image.astype(np.float32)


def smooth_field(strength, seed=0):
    """Smooth field over the working grid."""
    control = np.random.default_rng(seed).standard_normal((4, 4, 4))
    zoomed = ndimage.zoom(control, [n / 4 for n in WORKING_SHAPE], order=3, mode='nearest')
    return np.exp(strength * zoomed / zoomed.std()).astype(np.float32)


def spread(ratio, brain, tissues):
    """Standard deviation of what is left of a field in the brain's grey and white matter."""
    inside = brain & ((tissues[:2] > 0.5).any(axis=0))
    logs = np.log(ratio[inside])
    return float(logs.std())


@pytest.mark.parametrize('seed', [1, 2])
def test_most_of_a_smooth_field_goes(head, seed):
    brain, tissues, image = head
    field = smooth_field(0.05, seed)
    found = tissue_field(image * field, brain, tissues)
    assert found.shape == coarse_grid(FIELD_STEP)[0]
    left = divide_field(Volume(field, WORKING_AFFINE), found, np.eye(4)).data
    assert spread(left, brain, tissues) < 0.35 * spread(field, brain, tissues)


def test_a_scan_without_a_field_stays_as_it_is(head):
    brain, tissues, image = head
    found = tissue_field(image, brain, tissues)
    assert np.abs(found).max() < 0.03
    white = tissues[1, 2::4, 2::4, 2::4] > 0.95
    assert abs(found[white].mean()) < 0.005


def test_what_only_white_matter_shows_is_less_of_a_field(head):
    brain, tissues, image = head
    field = smooth_field(0.05)
    alone = image * np.where(tissues[1] > tissues[0], field, 1)
    shared = tissue_field(image * field, brain, tissues)
    white = tissues[1, 2::4, 2::4, 2::4] > 0.95
    assert tissue_field(alone, brain, tissues)[white].std() < 0.9 * shared[white].std()


def test_lesions_are_no_field(head):
    brain, tissues, image = head
    spots = ndimage.gaussian_filter(
        (np.random.default_rng(3).random(image.shape) > 0.9995).astype(np.float32), 3
    )
    lesions = (spots > 0.25 * spots.max()) & (tissues[1] > 0.8)
    assert lesions.sum() > 5000
    found = tissue_field(np.where(lesions, 2.0, image).astype(np.float32), brain, tissues)
    assert np.abs(found - tissue_field(image, brain, tissues)).max() < 0.03


def test_too_little_tissue_tells_nothing(head):
    brain, tissues, image = head
    seen = np.zeros_like(brain)
    seen[80:100, 80:120, 90:110] = True
    assert tissue_field(image * seen, brain & seen, tissues) is None
    assert tissue_field(image, np.zeros_like(brain), tissues) is None


def test_the_field_follows_the_scan_to_its_own_grid(head):
    brain, tissues, image = head
    field = smooth_field(0.08)
    found = tissue_field(image * field, brain, tissues)
    turn = np.eye(4)
    turn[:3, 3] = 7, -3, 5
    turn[:2, :2] = [[0.98, -0.199], [0.199, 0.98]]
    turn[:3, :3], _ = np.linalg.qr(turn[:3, :3])
    affine = np.linalg.inv(turn) @ WORKING_AFFINE @ np.diag([2, 2, 4, 1])
    ones = Volume(np.ones((96, 112, 48), np.float32), affine)
    there = divide_field(ones, found, turn).data
    ones = Volume(np.ones(WORKING_SHAPE, np.float32), WORKING_AFFINE)
    here = divide_field(ones, found, np.eye(4))
    # a field of centimetres on grids of 8 mm
    assert np.abs(there - here.data[::2, ::2, ::4]).max() < 0.01
