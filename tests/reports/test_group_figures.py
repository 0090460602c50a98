import io

import numpy as np
import pytest
from PIL import Image

from harmony_app.reports.group_figures import (
    COLOURS,
    MOST_PEOPLE,
    density_figure,
    scatter_figure,
    strip_figure,
)


def pixels(png):
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == 'PNG'
        return np.asarray(picture.convert('RGB')).astype(int)


def shows(png, colour, tolerance=60):
    rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return bool((np.abs(pixels(png) - rgb).sum(axis=-1) < tolerance).any())


def samples(sites, stages=('before', 'after')):
    generator = np.random.default_rng(0)
    return {
        stage: {site: [generator.normal(0.8, 0.1, 500).clip(0) for _ in range(2)] for site in sites}
        for stage in stages
    }


def test_every_site_has_its_colour():
    png = density_figure(samples('AB'), 'intensity')
    assert shows(png, COLOURS[0])
    assert shows(png, COLOURS[1])
    assert not shows(png, COLOURS[2])


def test_equal_figures_are_equal_bytes():
    assert density_figure(samples('AB'), 'x') == density_figure(samples('AB'), 'x')


@pytest.mark.parametrize('count', [1, 3, 20])
def test_any_number_of_sites_and_long_names_fit(count):
    """Panels keep their height: the legend makes the picture taller."""
    sites = [
        f'Hospital {number} with a name that is longer than a legend' for number in range(count)
    ]
    values = {'GM': {'before': {s: [0.5, 0.6] for s in sites}, 'after': {s: [0.5] for s in sites}}}
    shape = pixels(strip_figure(values)).shape
    low = pixels(strip_figure({'GM': {'before': {'A': [0.5]}, 'after': {}}})).shape
    assert shape[1] == low[1]
    assert shape[0] - low[0] == pytest.approx((count - 1) * 17.5, abs=2)


def test_points_and_the_target():
    points = {'plane': {'A': np.array([[0.0, 1.0]]), 'B': np.array([[1.0, 0.0]])}}
    plain = scatter_figure(points, {'plane': ('x', 'y')})
    aimed = scatter_figure(points, {'plane': ('x', 'y')}, np.array([[0.5, 0.5]]))
    assert shows(plain, COLOURS[0])
    assert pixels(aimed).sum() != pixels(plain).sum()


def test_scans_of_one_person_are_joined():
    points = {'plane': {'A': np.array([[0.0, 1.0]]), 'B': np.array([[1.0, 0.0]])}}
    axes = {'plane': ('', '')}
    alone = {'plane': {'1': [(0.0, 1.0)], '2': [(1.0, 0.0)]}}
    both = {'plane': {'1': [(0.0, 1.0), (1.0, 0.0)]}}
    crowd = {'plane': both['plane'] | {f'{n}': [(0.0, 1.0)] for n in range(2, MOST_PEOPLE + 2)}}
    plain = scatter_figure(points, axes)
    assert scatter_figure(points, axes, people=alone) == plain
    assert scatter_figure(points, axes, people=crowd) == plain
    joined = scatter_figure(points, axes, people=both)
    # The middle of the panel, where nothing else is.
    height, width, _ = pixels(plain).shape
    box = np.s_[height // 4 : height // 2, width // 3 : 2 * width // 3]
    assert pixels(plain)[box].min() == 255
    assert pixels(joined)[box].min() < 220


def test_four_pictures_stand_two_by_two():
    point = {'A': np.zeros((1, 2))}
    names = ['a', 'b', 'c', 'd']
    four = pixels(scatter_figure(dict.fromkeys(names, point), dict.fromkeys(names, ('', '')))).shape
    two = pixels(scatter_figure(dict.fromkeys('ab', point), dict.fromkeys('ab', ('', '')))).shape
    assert four[1] == two[1]
    assert four[0] > 1.5 * two[0]
