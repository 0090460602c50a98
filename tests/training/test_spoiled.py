"""Artifacts of slices: severe ones are the mild ones, only worse."""

import numpy as np
import pytest

from harmony_app.training.spoiled import KINDS, corrupt, draw_kind, draw_severities


@pytest.fixture(scope='module')
def image():
    rows, columns = np.mgrid[:64, :64]
    image = (np.hypot(rows - 31, columns - 33) < 22).astype(np.float32)
    return image * (0.7 + 0.3 * np.sin(rows / 4) ** 2).astype(np.float32)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('seed', [4, 7])
def test_a_severer_artifact_is_the_same_one_and_damages_more(image, kind, seed):
    before = image.copy()
    found = [corrupt(image, kind, severity, seed) for severity in (0.0, 0.5, 0.6, 1.0)]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(found[0], image)
    changes = [result - image for result in found[1:]]
    damage = [np.abs(change).mean() for change in changes]
    assert 0 < damage[0] < damage[1] < damage[2]
    assert np.corrcoef(changes[0].ravel(), changes[1].ravel())[0, 1] > 0.9
    for result in found:
        assert result.shape == image.shape
        assert result.dtype == np.float32
        assert result.min() >= 0


def test_ghosts_reach_the_air(image):
    air = image == 0
    for kind in ('motion', 'ghosting', 'spikes', 'noise'):
        assert corrupt(image, kind, 0.8, 3)[air].mean() > 0.01, kind


def test_corruption_refuses_what_it_does_not_know(image):
    with pytest.raises(ValueError, match='unknown artifact'):
        corrupt(image, 'flicker', 0.5, 0)
    with pytest.raises(ValueError, match='within 0 and 1'):
        corrupt(image, 'noise', 1.5, 0)


def test_one_source_alone_is_bad_in_two_of_five_examples():
    rng = np.random.default_rng(2)
    drawn = np.array([draw_severities(rng) for _ in range(2000)])
    alone = (drawn.max(1) >= 0.5) & (drawn.min(1) == 0)
    assert alone.mean() == pytest.approx(0.4, abs=0.04)
    assert (drawn.max(1) == 0).mean() == pytest.approx(0.45, abs=0.04)
    assert drawn[alone].argmax(1).mean() == pytest.approx(0.5, abs=0.06)
    assert {draw_kind(rng)[0] for _ in range(200)} == set(KINDS)
