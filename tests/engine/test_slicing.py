import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.engine.slicing import MULTIPLE, ORIENTATIONS, slice_groups


@pytest.mark.parametrize('orientation', ORIENTATIONS)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 9))
def test_foreground_goes_to_slices_and_back_unchanged(orientation, seed, batch):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(5, 50, 3))
    mask = np.zeros(shape, bool)
    low = [rng.integers(0, n) for n in shape]
    box = tuple(slice(a, rng.integers(a, n) + 1) for a, n in zip(low, shape, strict=True))
    mask[box] = rng.random(mask[box].shape) > 0.5
    data = rng.random(shape).astype(np.float32) * mask
    back = np.zeros_like(data)
    seen = []
    for group in slice_groups(mask, orientation, batch):
        assert len(group.indices) <= batch
        slices = group.take(data)
        assert slices.shape == group.shape
        assert not any(edge % MULTIPLE for edge in (*group.rows, *group.columns))
        assert slices.any(axis=(1, 2)).all()
        group.put(back, slices)
        seen += group.indices.tolist()
    np.testing.assert_array_equal(back, data)
    assert (
        seen
        == np.flatnonzero(np.moveaxis(mask, ORIENTATIONS[orientation], 0).any(axis=(1, 2))).tolist()
    )


def test_axial_slices_are_those_of_one_height():
    data = np.zeros((16, 32, 20), np.float32)
    data[3, 20, 7] = 1
    (group,) = slice_groups(data > 0, 'axial', 4)
    assert group.indices.tolist() == [7]
    assert (group.rows, group.columns) == ((0, 16), (16, 32))
    assert group.take(data)[0, 3, 4] == 1


def test_an_empty_volume_has_no_groups():
    assert list(slice_groups(np.zeros((8, 8, 8), bool), 'coronal', 4)) == []


@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_slices_that_cross_a_box_are_taken_whole(orientation):
    mask = np.random.default_rng(0).random((20, 24, 28)) > 0.5
    box = slice(2, 5), slice(7, 9), slice(10, 30)
    axis = ORIENTATIONS[orientation]
    groups = list(slice_groups(mask, orientation, 2, box))
    seen = np.concatenate([group.indices for group in groups]).tolist()
    assert seen == list(range(box[axis].start, min(box[axis].stop, mask.shape[axis])))
    (whole,) = (g for g in slice_groups(mask, orientation, 100))
    taken = whole.take(mask)[seen]
    np.testing.assert_array_equal(np.concatenate([g.take(mask) for g in groups]), taken)
