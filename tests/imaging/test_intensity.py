"""White-matter peak, bias field and edges on arrays whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.imaging.bias import correct_bias
from harmony_app.imaging.edges import edge_agreement
from harmony_app.imaging.intensity import histogram_mode, white_matter_peak
from harmony_app.imaging.masks import head_mask, otsu_threshold
from harmony_app.imaging.volume import Volume


def ball(shape=(48, 48, 48), radius=20):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1)
    return np.linalg.norm(index - (np.array(shape) - 1) / 2, axis=-1) < radius


def brain_like(seed=0, wm=100.0):
    """White ball in grey with some dark lesions; data, brain, tissues."""
    rng = np.random.default_rng(seed)
    brain, white = ball(radius=20), ball(radius=15)
    data = np.where(white, wm, np.where(brain, 0.7 * wm, 0)).astype(np.float32)
    data[white & (rng.random(white.shape) < 0.15)] = 0.4 * wm
    data = np.where(brain, data + rng.normal(0, 0.05 * wm, data.shape), 0).astype(np.float32)
    tissues = np.stack([brain & ~white, white, np.zeros_like(brain)]).astype(np.uint8) * 255
    return data, brain, tissues


@given(scale=st.floats(1e-3, 1e4))
def test_the_peak_follows_the_scale(scale):
    data, brain, tissues = brain_like()
    peak = white_matter_peak(data, brain, tissues)
    scaled = white_matter_peak(data * np.float32(scale), brain, tissues)
    assert scaled == pytest.approx(scale * peak, rel=1e-3)


def test_lesions_do_not_move_the_peak():
    data, brain, tissues = brain_like()
    assert white_matter_peak(data, brain, tissues) == pytest.approx(100, rel=0.015)
    sure = data[(tissues[1] > 0) & brain]
    assert abs(sure.mean() - 100) > 5, 'the mean would have been moved'


def test_maps_of_both_kinds_mean_the_same():
    data, brain, tissues = brain_like()
    as_float = white_matter_peak(data, brain, tissues.astype(np.float32) / 255)
    assert as_float == white_matter_peak(data, brain, tissues)


def test_no_white_matter_is_an_error():
    data, brain, tissues = brain_like()
    with pytest.raises(ValueError, match='white matter'):
        white_matter_peak(data, brain, np.zeros_like(tissues))


def test_the_bandwidth_bridges_the_gaps_of_eight_bits():
    # 8-bit copies have empty bins between their values; the mode must not fall on one spike.
    values = np.round(np.random.default_rng(0).normal(40, 3, 20_000))
    assert histogram_mode(values) == pytest.approx(40, abs=0.4)


def test_a_planted_bias_field_is_taken_away():
    data, brain, _ = brain_like()
    data = np.where(brain, np.maximum(data, 1), 0)
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in data.shape], indexing='ij')
    field = np.exp(0.3 * x - 0.2 * y**2).astype(np.float32)
    volume = Volume((data * field).astype(np.float32), np.diag([4, 4, 4, 1.0]))
    corrected, estimated = correct_bias(volume, brain)
    white = ball(radius=12)
    left = np.log(estimated.data[white] / field[white]).std()
    assert left < 0.35 * np.log(field[white]).std()
    assert not corrected.data[~brain].any()
    assert np.log(estimated.data[brain]).mean() == pytest.approx(0, abs=0.05)
    again, _ = correct_bias(volume, brain)
    assert corrected.data.tobytes() == again.data.tobytes()


def test_a_scan_too_small_for_a_field_is_given_back():
    tiny = Volume(np.ones((8, 8, 8), np.float32), np.eye(4))
    assert correct_bias(tiny)[1] is None


def test_edges_agree_across_contrasts_and_not_across_anatomy():
    data, brain, _ = brain_like()
    inverted = np.where(brain, 200 - data, 0)
    moved = np.roll(data, 7, axis=0)
    assert edge_agreement(data, data, brain) == pytest.approx(1)
    assert edge_agreement(data, inverted, ball(radius=15)) == pytest.approx(1, abs=1e-4)
    assert edge_agreement(data, moved, brain) < 0.5
    assert edge_agreement(data, np.ones_like(data), brain) == 0
    with pytest.raises(ValueError):
        edge_agreement(data, data, np.zeros_like(brain))


def test_the_head_is_found_with_its_cavities():
    head = ball((60, 60, 60), 26)
    data = np.where(head, 100.0, 0)
    data[ball((60, 60, 60), 8)] = 0
    data += np.abs(np.random.default_rng(0).normal(0, 4, data.shape))
    found = head_mask(Volume(data.astype(np.float32), np.diag([3, 3, 3, 1.0])))
    dice = 2 * (found & head).sum() / (found.sum() + head.sum())
    assert dice > 0.97
    assert 10 < otsu_threshold(data) < 100
