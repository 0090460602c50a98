import numpy as np
import pytest

from harmony_app.evaluation.regions import check_disjoint, intensities


def test_only_the_mask_is_read():
    image = np.array([[1, 2], [np.nan, 4]])
    values = intensities(image, ~np.isnan(image), 'GM')
    assert values.tolist() == [1, 2, 4]
    assert values.dtype == np.float64


def test_wrong_regions_are_told_by_name():
    image = np.array([1.0, np.inf])
    with pytest.raises(ValueError, match='the GM mask is empty'):
        intensities(image, np.zeros(2, bool), 'GM')
    with pytest.raises(ValueError, match='GM holds intensities that are not finite'):
        intensities(image, np.ones(2, bool), 'GM')
    with pytest.raises(ValueError, match='unequal shapes'):
        intensities(image, np.ones(3, bool), 'GM')
    with pytest.raises(ValueError, match='GM and WM share 1 voxels'):
        check_disjoint(np.array([True, True]), np.array([False, True]), ('GM', 'WM'))
    with pytest.raises(ValueError, match='unequal shapes'):
        check_disjoint(np.ones(2, bool), np.zeros(3, bool), ('GM', 'WM'))
