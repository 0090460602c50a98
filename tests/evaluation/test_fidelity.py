"""Structure that maps of intensities leave alone, and structure that is drawn in or wiped out."""

import numpy as np
import pytest
from scipy import ndimage

from harmony_app.evaluation.fidelity import Structure, fidelity, unmatched_edges
from harmony_app.imaging.edges import edge_agreement

CENTRE = (24, 24, 24)


def folded_head(seed=0, size=48):
    """Tissues with folded borders, at the levels of a T1w scan, with noise."""
    generator = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(generator.normal(size=(size,) * 3), 4)
    field /= field.std()
    # a ball of white matter about the centre, to draw into
    distance = np.linalg.norm(np.indices(field.shape) - size / 2, axis=0)
    field += 6 * np.exp(-((distance / 9) ** 2))
    head = np.select([field > 0.3, field > -0.6], [1.0, 0.7], 0.25)
    head = ndimage.gaussian_filter(head, 0.6) + generator.normal(0, 0.02, head.shape)
    return np.maximum(head, 0)


@pytest.fixture(scope='module')
def head():
    return folded_head()


@pytest.fixture(scope='module')
def mask(head):
    inside = np.zeros(head.shape, bool)
    inside[6:-6, 6:-6, 6:-6] = True
    return inside


def blob(shape, radius):
    return (
        np.linalg.norm(np.indices(shape) - np.array(CENTRE)[:, None, None, None], axis=0) < radius
    )


def test_an_image_is_true_to_itself(head, mask):
    result = fidelity(head, 300 * head + 20, mask)
    assert result.edge_agreement == pytest.approx(1)
    assert (result.appeared, result.vanished) == (0, 0)


@pytest.mark.parametrize('turned', (1, -1))
@pytest.mark.parametrize('gamma, limit', ((0.5, 0.002), (0.75, 0.002), (1.5, 0.002), (2, 0.015)))
def test_monotone_maps_neither_draw_nor_wipe(head, mask, gamma, limit, turned):
    mapped = turned * 40 * head**gamma
    result = fidelity(head, mapped, mask)
    assert result.appeared < limit
    assert result.vanished < limit
    assert result.edge_agreement == pytest.approx(edge_agreement(head, mapped, mask), abs=1e-6)


def test_a_steep_window_neither_draws_nor_wipes(head, mask):
    result = fidelity(head, 1 / (1 + np.exp(-8 * (head - 0.6))), mask)
    assert max(result.appeared, result.vanished) < 0.002


@pytest.mark.parametrize('level', (0.7, 0.8, 1.3))
def test_a_blob_is_found_where_it_was_drawn(head, mask, level):
    drawn = np.where(blob(head.shape, 3.5), level, head)
    result = fidelity(head, drawn, mask)
    assert result.appeared > 0.03 > 0.002 > result.vanished
    found = unmatched_edges(drawn, head, mask)
    # most of its surface, and nothing far from it
    assert found[blob(head.shape, 5)].sum() > 30
    assert not found[~blob(head.shape, 8)].any()
    assert not unmatched_edges(head, drawn, mask).any()


def test_what_was_drawn_one_way_vanishes_the_other(head, mask):
    drawn = np.where(blob(head.shape, 3.5), 0.7, head)
    there, back = fidelity(head, drawn, mask), fidelity(drawn, head, mask)
    assert (there.appeared, there.vanished) == (back.vanished, back.appeared)
    assert there.edge_agreement == pytest.approx(back.edge_agreement)


def test_another_head_is_not_true(head, mask):
    """Folds as dense as these meet by chance at times; most do not."""
    result = fidelity(head, folded_head(seed=1), mask)
    assert result.appeared > 0.5
    assert result.vanished > 0.5
    assert result.edge_agreement < 0.5


def test_noise_is_no_structure(head, mask):
    noisy = head + np.random.default_rng(5).normal(0, 0.03, head.shape)
    result = fidelity(head, noisy, mask)
    assert max(result.appeared, result.vanished) < 0.002


def test_a_small_mask_sees_what_a_large_one_sees(head, mask):
    """The box about the mask holds all that its edges depend on."""
    drawn = np.where(blob(head.shape, 3.5), 0.7, head)
    large = np.pad(drawn, 20, mode='edge'), np.pad(head, 20, mode='edge')
    small = np.zeros(large[0].shape, bool)
    small[40:50, 40:50, 40:50] = True
    cut = tuple([slice(40 - 18, 50 + 18)] * 3)
    found = unmatched_edges(*large, small)
    assert found.any()
    assert not found[~small].any()
    inside = unmatched_edges(*(image[cut] for image in large), small[cut])
    assert np.array_equal(found[cut], inside)


def test_degenerate_input_is_told(head, mask):
    with pytest.raises(ValueError, match='the result shows no strong edge'):
        fidelity(head, np.ones_like(head), mask)
    with pytest.raises(ValueError, match='the scan shows no strong edge'):
        fidelity(np.zeros_like(head), head, mask)
    with pytest.raises(ValueError, match='mask is empty'):
        fidelity(head, head, np.zeros_like(mask))
    for measure in (fidelity, unmatched_edges):
        with pytest.raises(ValueError, match='of one shape'):
            measure(head, head[1:], mask)
        with pytest.raises(ValueError, match='of one shape'):
            measure(head[0], head[0], mask[0])
        with pytest.raises(ValueError, match='not finite'):
            measure(head, np.full_like(head, np.nan), mask)


def test_edges_found_once_serve_many_results(head, mask):
    structure = Structure(head, mask)
    for seed in (1, 2):
        result = folded_head(seed=seed)
        assert structure.kept_in(result) == fidelity(head, result, mask)
