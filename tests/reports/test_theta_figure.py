import io

import numpy as np
import pytest
from PIL import Image

from harmony_app.reports.group_figures import COLOURS
from harmony_app.reports.theta_figure import theta_figure

LATTICE = np.array([(x, y) for y in (1, 0, -1) for x in (-1, 0, 1)], float)
POINTS = {'A': np.array([[0.1, 0.2], [0.3, 0.2]]), 'B': np.array([[-0.5, 0.9]])}


def pixels(png):
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert('RGB')).astype(int)


def test_sites_have_their_colours_and_images_their_places():
    images = np.zeros((9, 12, 10))
    images[2] = 1
    picture = pixels(theta_figure(POINTS, POINTS['A'][0], LATTICE, images))
    for colour in COLOURS[:2]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(picture - rgb).sum(axis=-1) < 110).any()  # points are a little transparent
    height, width, _ = picture.shape
    right = picture[: height // 3, int(0.85 * width) : int(0.97 * width)]
    assert np.median(right) > 240  # the third image is white
    assert np.median(picture[height // 2 : -height // 4, int(0.55 * width) : -30]) < 15


def test_an_image_for_each_point():
    with pytest.raises(ValueError, match='each of its points'):
        theta_figure(POINTS, POINTS['A'][0], LATTICE, np.zeros((8, 4, 4)))
    with pytest.raises(ValueError, match='each of its points'):
        theta_figure(POINTS, POINTS['A'][0], LATTICE[:8], np.zeros((8, 4, 4)))
