import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.imaging.resample import resample
from harmony_app.imaging.slice_profile import (
    respacing_matrix,
    slice_profile,
    spline_matrix,
    thickening_matrix,
    thin_factor,
)
from harmony_app.imaging.volume import Volume

factors, counts = st.integers(2, 8), st.integers(3, 20)


@given(factors, counts)
def test_thick_slices_of_what_does_not_change_are_what_it_is(factor, count):
    matrix = thickening_matrix(count, factor)
    assert matrix.shape == (count, count * factor)
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-5)
    # every thin slice is seen as much as any other: nothing falls between two slices
    assert np.allclose(matrix.sum(axis=0), 1 / factor, atol=1e-5)


@pytest.mark.parametrize('width', [0.8, 1.0])
def test_a_profile_is_half_as_high_where_its_width_ends(width):
    fine = slice_profile(400, width)
    above = np.flatnonzero(fine >= fine.max() / 2)
    assert (above[-1] - above[0] + 1) / 400 == pytest.approx(width, abs=0.01)


@given(factors, counts)
def test_splines_are_those_of_resampling(factor, count):
    lines = np.random.default_rng(count).random((2, 2, count)).astype(np.float32)
    step = np.diag([1, 1, 1 / factor, 1.0])
    step[2, 3] = 0.5 / factor - 0.5
    expected = resample(Volume(lines, np.eye(4)), (2, 2, count * factor), step).data
    found = lines @ spline_matrix(count, factor).T
    assert np.allclose(np.clip(found, lines.min(), lines.max()), expected, atol=1e-5)


def test_values_further_apart_are_means_and_not_samples():
    noise = np.random.default_rng(0).standard_normal((500, 60)).astype(np.float32)
    same, coarse = (noise @ respacing_matrix(60, r, 20).T for r in (1.0, 3.0))
    assert np.allclose(same, noise[:, 20:40], atol=1e-5)
    assert coarse.std() < 0.7


@pytest.mark.parametrize(
    'zooms, choices',
    [
        ((0.9, 0.9, 3.0), (3, 3)),
        ((5.5, 0.5, 0.5), (6, 6)),
        ((1.0, 1.0, 12.0), (8, 8)),
        ((2.0, 2.0, 2.0), (None, None)),
        ((4.0, 4.0, 5.0), (None, None)),
        ((0.9, 0.9, 2.0), (None, 2)),
        ((0.5, 0.5, 1.2), (None, None)),
    ],
)
def test_slices_are_divided_where_their_plane_is_finer(zooms, choices):
    assert tuple(thin_factor(zooms, choice) for choice in ('auto', 'on')) == choices
    assert thin_factor(zooms, 'off') is None
