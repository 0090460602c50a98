import numpy as np
import pytest
import torch

from harmony_app.engine.compute import Compute
from harmony_app.evaluation.theta_space import decode_thetas, theta_lattice
from harmony_app.imaging.volume import Volume
from harmony_app.nets.calamiti import VARIANTS, CalamitiNets


def test_a_lattice_of_one_theta_has_an_extent():
    lattice = theta_lattice(np.array([[1.0, -1.0]]))
    assert lattice.shape == (9, 2)
    np.testing.assert_allclose(lattice[4], [1, -1])
    assert len(np.unique(lattice.round(6), axis=0)) == 9


@pytest.mark.parametrize(
    'thetas, count, match',
    [
        (np.zeros((0, 2)), 3, 'finite thetas'),
        (np.zeros((2, 3)), 3, 'finite thetas'),
        (np.array([[0.0, np.nan]]), 3, 'finite thetas'),
        (np.zeros((1, 2)), 1, 'not 1'),
    ],
)
def test_what_makes_no_lattice_is_refused(thetas, count, match):
    with pytest.raises(ValueError, match=match):
        theta_lattice(thetas, count)


def test_one_anatomy_is_decoded_at_every_theta():
    torch.manual_seed(0)
    nets = CalamitiNets(VARIANTS['compact']).eval()
    data = np.zeros((40, 48, 32), np.float32)
    data[4:30, 22:46, 6:24] = 1
    data[6:20, 24:44, 8:20] = 0.7
    thetas = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    images = decode_thetas(nets, Volume(data, np.eye(4)), thetas, Compute())
    assert images.shape[0] == 3
    assert np.array_equal(images[0], images[2])
    assert np.abs(images[0] - images[1]).max() > 1e-3
    # it lies anterior, so above in the picture
    assert np.nonzero(images[0])[0].mean() < images.shape[1] / 2
    with pytest.raises(ValueError, match='shows nothing'):
        decode_thetas(nets, Volume(0 * data, np.eye(4)), thetas, Compute())
