"""Scans with graded artifacts: one pattern at every severity, slices of all orientations."""

import numpy as np
import pytest

from harmony_app.methods.base import CONTRASTS
from harmony_app.phantom.artifacts import ARTIFACTS
from harmony_app.training.spoiled_volumes import VolumeSampler, simulate_scan, spoil


@pytest.fixture(scope='module')
def scan(head):
    return simulate_scan(head, 'T1w', np.random.default_rng(5))


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_a_scan_is_that_of_the_head(head, contrast):
    scans = [simulate_scan(head, contrast, np.random.default_rng(seed)) for seed in range(6)]
    for scan in scans:
        assert scan.data.shape == head.maps[0].shape
        assert np.isfinite(scan.data).all()
        assert scan.data.min() >= 0
        assert not scan.data[~scan.view].any()
        assert not scan.head[~scan.view].any()
        assert scan.data[scan.head].mean() > 2 * scan.data[~scan.head].mean()
    again = simulate_scan(head, contrast, np.random.default_rng(0))
    np.testing.assert_array_equal(again.data, scans[0].data)


@pytest.mark.parametrize('kind', ARTIFACTS)
def test_worse_is_the_same_only_more_so(scan, kind):
    before = scan.data.copy()
    none, mild, severe = (spoil(scan, kind, severity, 3, (1, 0, 2)) for severity in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(scan.data, before)
    np.testing.assert_array_equal(none, before)
    assert 0 < np.abs(mild - before).mean() < np.abs(severe - before).mean()
    assert not severe[~scan.view].any()


def test_ghosts_follow_the_first_axis(scan):
    """The axis of phase encoding is where the copies lie."""
    for first in range(3):
        axes = (first, *(i for i in range(3) if i != first))
        change = spoil(scan, 'ghosting', 1.0, 3, axes) - scan.data
        spread = [
            np.abs(np.fft.rfft(change, axis=axis)).mean(
                axis=tuple(i for i in range(3) if i != axis)
            )
            for axis in range(3)
        ]
        sharp = [part[len(part) // 4 :].sum() / part.sum() for part in spread]
        assert np.argmax(sharp) == first


def test_slices_of_a_draw(head):
    drawn = VolumeSampler([head], slices=2, artifacts=2).draw(np.random.default_rng(4))
    assert drawn.kinds[0] == 'none'
    assert drawn.kinds[1] == drawn.kinds[2]
    assert drawn.severity[0] == 0
    assert drawn.severity[1] < drawn.severity[2]
    x, y, z = head.maps[0].shape
    assert [i.shape for i in drawn.images] == [(5, 2, x, y), (5, 2, x, z), (5, 2, y, z)]
    for images, views in zip(drawn.images, drawn.views, strict=True):
        assert not images[:, ~views].any()
        assert (images.mean(axis=(2, 3)) > 0).all()


def test_unknown_artifacts_are_refused(scan):
    with pytest.raises(ValueError, match='unknown artifact'):
        spoil(scan, 'flicker', 0.5, 0)
