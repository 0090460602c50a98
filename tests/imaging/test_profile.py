"""The measured style: what it says of tissues, and how little the anatomy moves it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.imaging.profile import (
    MOST_PERSONAL,
    TissueProfile,
    blend_profiles,
    measure_profile_coarse,
    personal_profile,
)

GM, WM, CSF = 0.6, 1.0, 0.2


def head(displacement: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head of nested shells at 2 mm whose maps lie some voxels beside it."""
    axes = np.meshgrid(*[np.linspace(-1, 1, 80)] * 3, indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes))
    shells = [(radius > 0.55) & (radius <= 0.8), radius <= 0.55, (radius > 0.8) & (radius < 0.95)]
    clean = np.tensordot([GM, WM, CSF], np.array(shells, np.float32), axes=1)
    noise = np.random.default_rng(0).standard_normal(clean.shape)
    data = np.where(clean > 0, clean + 0.02 * noise, 0).astype(np.float32)
    tissues = np.roll(np.array(shells, np.float32), displacement, axis=1)
    return data, np.roll(radius < 0.95, displacement, axis=0), tissues


def test_levels_are_those_of_the_pure_tissues():
    profile = measure_profile_coarse(*head(0))
    np.testing.assert_allclose(profile.levels, (GM, WM, CSF), atol=0.02)


@pytest.mark.parametrize('displacement', [3, 5])
def test_displaced_maps_move_the_level_of_csf_less_than_its_median(displacement):
    here, moved = measure_profile_coarse(*head(0)), measure_profile_coarse(*head(displacement))
    change = {
        kind: abs(getattr(moved, kind)[2] - getattr(here, kind)[2])
        for kind in ('levels', 'medians')
    }
    assert change['levels'] <= change['medians'] + 1e-3
    assert change['levels'] < 0.1


def test_fluid_as_bright_as_grey_matter_is_left_out_where_the_session_tells_it():
    """A third of the surest grey matter is fluid, a little brighter, as in PDw."""
    data, brain, tissues = head(0)
    data = data.copy()
    data[tissues[2] > 0] += 0.45  # fluid at 0.65 beside grey matter at 0.6
    wet = tissues[0] > 0
    wet[:, :50] = False
    data[wet] += 0.05
    fluid = np.where(wet | (tissues[2] > 0), 1, 0).astype(np.float32)
    told = measure_profile_coarse(data, brain, tissues, fluid)
    alone = measure_profile_coarse(data, brain, tissues)
    assert abs(told.levels[0] - GM) < 0.01
    assert abs(told.levels[0] - GM) < abs(alone.levels[0] - GM)
    assert told.levels[1:] == alone.levels[1:]


def test_fluid_that_grey_matter_differs_from_changes_nothing():
    data, brain, tissues = head(0)
    fluid = (np.random.default_rng(1).random(data.shape) > 0.5).astype(np.float32)
    assert measure_profile_coarse(data, brain, tissues, fluid) == measure_profile_coarse(
        data, brain, tissues
    )


def test_a_style_without_levels_takes_its_medians():
    fields = TissueProfile((0.7, 1.0, 0.2), (0.1,) * 3, (0.5,) * 100, ()).to_dict()
    del fields['levels']
    assert TissueProfile.from_dict(fields).levels == (0.7, 1.0, 0.2)


def test_levels_survive_writing_averaging_and_blending():
    a = TissueProfile((0.7, 1.0, 0.2), (0.1,) * 3, (0.5,) * 100, (), (0.75, 1.0, 0.15))
    b = TissueProfile((0.5, 1.0, 0.2), (0.1,) * 3, (0.5,) * 100, (), (0.55, 1.0, 0.25))
    assert TissueProfile.from_dict(a.to_dict()) == a
    assert TissueProfile.average([a, b]).levels == pytest.approx((0.65, 1.0, 0.2))
    assert blend_profiles(a, b, 0.25).levels == pytest.approx((0.70, 1.0, 0.175))
    assert a.distance(b, 'levels') == pytest.approx(np.hypot(0.2, 0.1))


def test_one_bad_scan_does_not_spoil_an_average():
    good = [TissueProfile((g, 1.0, 0.2), (0.1,) * 3, (0.5,) * 100, ()) for g in (0.68, 0.7, 0.72)]
    bad = TissueProfile((0.1, 0.9, 0.9), (0.1,) * 3, (0.9,) * 100, ())
    assert TissueProfile.average([*good, bad]).levels[0] == pytest.approx(0.69)
    assert TissueProfile.average(good).medians == pytest.approx((0.7, 1.0, 0.2))


def test_levels_must_be_three():
    fields = TissueProfile((0.7, 1.0, 0.2), (0.1,) * 3, (0.5,) * 100, ()).to_dict()
    with pytest.raises(ValueError, match='3 levels'):
        TissueProfile.from_dict(fields | {'levels': [1.0]})


LEVELS = st.tuples(*[st.floats(0.05, 4)] * 3)


@given(LEVELS, LEVELS, LEVELS)
def test_a_person_differs_from_both_averages_alike_and_by_a_bounded_part(own, here, there):
    own, here, there = (
        TissueProfile(levels, (0.1,) * 3, (0.5,) * 100, ()) for levels in (own, here, there)
    )
    goal = personal_profile(own, here, there)
    ratio = np.divide(goal.levels, there.levels)
    wanted = np.divide(own.levels, here.levels)
    bounded = np.clip(wanted, 1 - MOST_PERSONAL, 1 + MOST_PERSONAL)
    np.testing.assert_allclose(ratio, bounded, rtol=1e-9)
    assert personal_profile(here, here, there) == there


def test_black_fluid_moves_by_no_more_than_a_person_may_differ():
    black, seen = (
        TissueProfile((0.6, 1.0, csf), (0.1,) * 3, (0.5,) * 100, ()) for csf in (0.0, 0.2)
    )
    assert personal_profile(black, black, seen).levels[2] == pytest.approx(
        0.2 * (1 - MOST_PERSONAL)
    )
    assert personal_profile(seen, black, seen).levels[2] == pytest.approx(0.2 * (1 + MOST_PERSONAL))
