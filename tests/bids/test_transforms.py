import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.bids.transforms import read_itk_affine, write_itk_affine


def make_transform(seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] += 0.2 * rng.standard_normal((3, 3))
    matrix[:3, 3] = 20 * rng.standard_normal(3)
    return matrix


@given(seed=st.integers(0, 1000))
def test_what_is_written_is_read_back(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp('xfm') / 'a_xfm.txt'
    matrix = make_transform(seed)
    assert np.allclose(read_itk_affine(write_itk_affine(path, matrix)), matrix, atol=1e-10)


def test_ants_moves_points_from_fixed_to_moving(tmp_path):
    ants = pytest.importorskip('ants')
    matrix = make_transform(1)
    path = write_itk_affine(tmp_path / 'a_xfm.txt', matrix)
    transform = ants.read_transform(str(path))
    moving_ras = np.array([10.0, -20.0, 30.0])
    fixed_ras = (matrix @ [*moving_ras, 1])[:3]
    lps = np.array([-1, -1, 1])
    point = transform.apply_to_point(tuple(fixed_ras * lps))
    assert np.allclose(np.array(point) * lps, moving_ras, atol=1e-6)


def test_a_transform_of_ants_is_read(tmp_path):
    ants = pytest.importorskip('ants')
    transform = ants.create_ants_transform(
        transform_type='AffineTransform',
        matrix=np.diag([1.1, 0.9, 1.0]),
        translation=(1.0, 2.0, 3.0),
        center=(5.0, 6.0, 7.0),
    )
    ants.write_transform(transform, str(tmp_path / 'b.txt'))
    matrix = read_itk_affine(tmp_path / 'b.txt')
    lps = np.array([-1, -1, 1])
    point = np.array([4.0, 5.0, 6.0])
    expected = np.array(transform.apply_to_point(tuple(point * lps))) * lps
    assert np.allclose((np.linalg.inv(matrix) @ [*point, 1])[:3], expected)


@pytest.mark.parametrize('text', ['', 'Parameters: 1 2 3\nFixedParameters: 0 0 0\n'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / 'c.txt').write_text(text)
    with pytest.raises(ValueError):
        read_itk_affine(tmp_path / 'c.txt')
