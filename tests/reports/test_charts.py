import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from harmony_app.reports.charts import Curve, colour_scale, curve_chart, density, plane_chart
from harmony_app.reports.tiles import difference_colours


def test_a_density_has_the_share_below_its_end():
    values = np.concatenate([np.full(750, 0.5), np.full(250, 3.0)])
    x, y = density(values, 1.0)
    assert np.sum(y) * (x[1] - x[0]) == pytest.approx(0.75)
    assert x[np.argmax(y)] == pytest.approx(0.5, abs=0.02)


def test_curves_and_levels_stand_where_their_values_are():
    x = np.linspace(0, 2, 5)
    curves = [Curve('before', x, np.array([0, 1, 4, 1, 0.0])), Curve('after', x, x)]
    svg = curve_chart('GM', curves, {'target': 1.0, 'after': 5.0}, 2.0, 'a & b', 'for "ears"')
    root = ElementTree.fromstring(svg)
    lines = root.findall('polyline')
    assert [line.get('class') for line in lines] == ['line before', 'line after']
    peak = [tuple(map(float, p.split(','))) for p in lines[0].get('points').split()]
    level = root.find("line[@class='level target']")
    # the highest point stands over the middle of the axis, where the level is
    assert min(peak, key=lambda p: p[1])[0] == pytest.approx(float(level.get('x1')), abs=0.1)
    assert root.find("line[@class='level after']") is None  # beyond the end of the axis
    assert root.get('aria-label') == 'for "ears"'


def test_a_plane_keeps_distances_and_names():
    points = [('scan', 'a <b>', 0.0, 0.0), ('other', 'c', 1.0, 0.0), ('target', 'target', 0.0, 1.0)]
    svg = plane_chart('theta', points, ('theta 1', 'theta 2'), 'points')
    root = ElementTree.fromstring(svg)
    scan, other = root.findall('.//circle')
    cross = re.match(r'M([\d.]+) ([\d.]+)', root.find('.//path').get('d'))
    right = float(other.get('cx')) - float(scan.get('cx'))
    up = float(scan.get('cy')) - (float(cross[2]) + 5)
    assert right == pytest.approx(up, abs=0.2)
    assert [g.find('title').text for g in root.findall('g')][0] == 'a <b>: 0, 0'


def test_one_point_is_a_plane_too():
    ElementTree.fromstring(plane_chart('t', [('scan', 'a', 3.0, 3.0)], ('x', 'y'), 'd'))


def test_a_scale_says_what_its_ends_are():
    svg = colour_scale(difference_colours(), 0.25, 'after - before', 'scale-1')
    root = ElementTree.fromstring(svg)
    words = [text.text for text in root.findall('text')]
    assert words[:3] == ['-0.25', '0', '+0.25']
    stops = root.findall('.//stop')
    assert stops[0].get('stop-color') == 'rgb(5,48,97)'
