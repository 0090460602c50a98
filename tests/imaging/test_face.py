import numpy as np
import pytest

from harmony_app.imaging.face import FACE, is_defaced
from harmony_app.imaging.volume import Volume


def head(spacing=3.0, seed=0, air=False):
    """A box of tissue as large as a head; with ``air``, what is outside of it is clipped noise."""
    shape = (64, 80, 64)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -96, -128, -96
    data = np.random.default_rng(seed).normal(0 if air else 100, 10, shape)
    return Volume(np.maximum(np.rint(data), 0).astype(np.float32), affine)


def without_face(volume, matrix, share=1.0):
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing='ij'), axis=-1)
    to_template = matrix @ volume.affine
    place = index @ to_template[:3, :3].T + to_template[:3, 3]
    (_, _), (front, _), (bottom, top) = FACE
    border = bottom + share * (top - bottom)
    return volume.with_data(
        np.where((place[..., 1] > front - 3) & (place[..., 2] < border + 3), 0, volume.data)
    )


@pytest.fixture
def matrix():
    """A head that lies a little turned and shifted."""
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    turned[:3, 3] = 3, -4, 6
    return turned


def test_a_blanked_face_is_seen(matrix):
    assert not is_defaced(head(), matrix)
    assert is_defaced(without_face(head(), matrix), matrix)
    # a tool that leaves the eyes where they are
    assert is_defaced(without_face(head(), matrix, share=0.7), matrix)


def test_air_with_clipped_noise_is_no_defacing(matrix):
    volume = head(air=True)
    assert np.mean(volume.data == 0) > 0.5
    assert not is_defaced(volume, matrix)


def test_a_face_outside_the_field_of_view_says_nothing(matrix):
    whole = without_face(head(), matrix)
    high = Volume(whole.data[:, :, 30:], whole.affine @ np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 30], [0, 0, 0, 1.0]]
    ))  # fmt: skip
    assert not is_defaced(high, matrix)


def test_a_bare_brain_has_no_face_to_remove(matrix):
    assert not is_defaced(without_face(head(), matrix), matrix, skull_stripped=True)
