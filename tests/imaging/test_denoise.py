"""The mean of neighbours that look alike is what its definition says, whatever is skipped."""

import itertools

import numpy as np
import pytest

from harmony_app.imaging import denoise
from harmony_app.imaging.denoise import edge_preserving_mean
from harmony_app.imaging.volume import Volume


def by_definition(data, noise):
    """The mean over a voxel and its neighbours inside the array, one voxel at a time."""
    for _ in range(denoise.ROUNDS):
        result = np.zeros_like(data)
        for place in np.argwhere(data > 0):
            low = np.maximum(place - 1, 0)
            near = data[tuple(slice(a, b + 2) for a, b in zip(low, place, strict=True))]
            weights = np.exp(-0.5 * ((near - data[tuple(place)]) / (denoise.SPREAD * noise)) ** 2)
            result[tuple(place)] = np.average(near, weights=weights)
        data = result
    return data


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    data = np.ones((13, 9, 11), np.float32) + rng.normal(0, 0.05, (13, 9, 11)).astype(np.float32)
    data[:, :, 5:] += 1
    return data


def test_the_mean_is_that_of_its_definition(noisy):
    result = edge_preserving_mean(Volume(noisy, np.eye(4)), 0.05)
    np.testing.assert_allclose(result.data, by_definition(noisy, 0.05), rtol=1e-5)


def test_air_around_and_inside_stays_zero_and_changes_nothing(noisy):
    noisy[4, 4, 4] = 0
    alone = edge_preserving_mean(Volume(noisy, np.eye(4)), 0.05).data
    np.testing.assert_allclose(alone, by_definition(noisy, 0.05), rtol=1e-5)
    assert alone[4, 4, 4] == 0
    padded = np.pad(noisy, [(5, 2), (0, 3), (1, 4)])
    result = edge_preserving_mean(Volume(padded, np.eye(4)), 0.05).data
    # air at the border is a neighbour that looks like nothing in the scan
    np.testing.assert_allclose(result[5:18, :9, 1:12], alone, atol=1e-4)
    assert not result[:5].any()
    assert not result[:, 9:].any()


def test_noise_falls_and_edges_stay(noisy):
    result = edge_preserving_mean(Volume(noisy, np.eye(4)), 0.05).data
    assert result[:, :, :4].std() < 0.4 * noisy[:, :, :4].std()
    step = result[:, :, 6:].mean() - result[:, :, :4].mean()
    assert step == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize('slab', [1, 4, 100])
def test_slabs_leave_no_seam(noisy, slab, monkeypatch):
    whole = edge_preserving_mean(Volume(noisy, np.eye(4)), 0.05).data
    monkeypatch.setattr(denoise, 'SLAB', slab)
    part = edge_preserving_mean(Volume(noisy, np.eye(4)), 0.05).data
    np.testing.assert_allclose(part, whole, rtol=1e-5)


def test_without_noise_or_scan_nothing_is_done(noisy):
    volume, nothing = Volume(noisy, np.eye(4)), Volume(np.zeros_like(noisy), np.eye(4))
    assert edge_preserving_mean(volume, 0.0) is volume
    assert not edge_preserving_mean(nothing, 0.1).data.any()


def test_each_pair_of_neighbours_is_looked_at_once():
    both = {*denoise._HALF, *[tuple(-n for n in place) for place in denoise._HALF]}
    assert both == set(itertools.product((-1, 0, 1), repeat=3)) - {(0, 0, 0)}
