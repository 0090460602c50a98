"""Fluid told from brain by several contrasts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_app.imaging.fluid import FLOOR, fit_fluid_reader, session_fluid
from harmony_app.imaging.grid import WORKING_AFFINE, coarse_grid, halved
from harmony_app.imaging.template import load_template
from harmony_app.imaging.volume import Volume

SHAPE = (24, 24, 24)
LEVELS = {'PDw': (1.17, 1.0, 1.33), 'T2w': (1.5, 1.0, 4.3), 'FLAIR': (1.12, 1.0, 0.1)}
LESION = {'PDw': 1.3, 'T2w': 1.9, 'FLAIR': 1.5}


def session(seed=0, noise=0.03, contrasts=('PDw', 'T2w', 'FLAIR')):
    """Slabs of GM, WM with a lesion, and a slab that goes from GM to CSF; the true share of CSF."""
    rng = np.random.default_rng(seed)
    place = np.broadcast_to(np.arange(SHAPE[0])[:, None, None], SHAPE)
    fluid = np.clip((place - 18) / 4, 0, 1)
    white = (place >= 8) & (place < 16)
    lesion = np.zeros(SHAPE, bool)
    lesion[10:12, 10:12, 10:12] = True
    images = []
    for contrast in contrasts:
        grey_level, white_level, fluid_level = LEVELS[contrast]
        brain = np.where(white, white_level, grey_level)
        brain[lesion] = LESION[contrast]
        image = (1 - fluid) * brain + fluid * fluid_level
        images.append((image + noise * rng.standard_normal(SHAPE)).astype(np.float32))
    maps = np.stack([~white & (fluid == 0), white, fluid > 0.5])
    levels = [LEVELS[contrast][2] for contrast in contrasts]
    return images, levels, (255 * maps).astype(np.uint8), fluid, lesion


def fit(images, levels, tissues):
    return fit_fluid_reader(images, levels, np.ones(SHAPE, bool), tissues)


def test_it_reads_the_share_of_fluid_and_no_lesion():
    images, levels, tissues, fluid, lesion = session()
    share = fit(images, levels, tissues).read(images)
    assert np.abs(share - fluid)[fluid > 0].mean() < 0.05
    assert share[fluid == 0].mean() < 0.02
    # on T2w alone a lesion shines like a fifth of fluid
    assert share[lesion].mean() < 0.03


def test_a_voxel_of_the_brains_mean_holds_none_and_one_of_fluid_is_full():
    images, levels, tissues, *_ = session()
    reader = fit(images, levels, tissues)
    ends = np.stack([reader.brain, levels], axis=1).astype(np.float32)
    np.testing.assert_allclose(reader.read(list(ends)), [0, 1], atol=1e-5)


def test_two_contrasts_read_better_than_one():
    images, levels, tissues, fluid, _ = session(noise=0.1)
    errors = []
    for count in (1, 3):
        reader = fit(images[1 : 1 + count], levels[1 : 1 + count], tissues)
        errors.append(np.abs(reader.read(images[1 : 1 + count]) - fluid).mean())
    assert errors[1] < errors[0]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.1))
def test_a_share_is_a_share(seed, noise):
    images, levels, tissues, *_ = session(seed, noise)
    share = fit(images, levels, tissues).read([3 * image for image in images])
    assert share.min() >= 0
    assert share.max() <= 1


def test_a_share_below_the_floor_is_none():
    images, levels, tissues, *_ = session()
    reader = fit(images, levels, tissues)
    little = reader.brain + 0.9 * FLOOR * (np.array(levels) - reader.brain)
    assert not reader.read([np.array([v], np.float32) for v in little]).any()


def test_what_cannot_be_told_is_refused():
    images, levels, tissues, *_ = session(contrasts=('PDw',))
    with pytest.raises(ValueError, match='do not tell fluid from brain'):
        fit(images, levels, tissues)
    with pytest.raises(ValueError, match='too little brain'):
        fit(images, levels, np.zeros_like(tissues))


def test_a_session_tells_its_fluid_on_the_grid_of_2_mm():
    template = load_template()
    labels = template.tissues.argmax(axis=0)
    rng = np.random.default_rng(0)
    scans = []
    for contrast in ('PDw', 'T2w'):
        image = np.array(LEVELS[contrast], np.float32)[labels] * template.brain
        image = 300 * np.abs(image + 0.03 * rng.standard_normal(image.shape, np.float32))
        scans.append(Volume(image, WORKING_AFFINE))
    maps = (255 * template.tissues).astype(np.uint8)
    share = session_fluid(scans, [np.eye(4)] * 2, template.brain, maps) / 255
    assert share.shape == coarse_grid(2)[0]
    inside = halved(template.brain) > 0.99
    pure = {i: inside & (halved(labels == i) > 0.99) for i in range(3)}
    assert np.median(share[pure[2]]) > 0.9
    assert np.median(share[pure[0]]) < 0.05
    assert np.median(share[pure[1]]) < 0.05
    assert session_fluid(scans[:1], [np.eye(4)], template.brain, maps) is None
