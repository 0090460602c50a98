import io
import re

import numpy as np
import pytest
from PIL import Image

from harmony_app.imaging.volume import Volume
from harmony_app.reports.outlines import outline_svg
from harmony_app.reports.tiles import difference_colours, difference_png, grey_png, lay_out

SHAPE = (70, 80, 64)
BOX = (slice(2, 68), slice(4, 78), slice(1, 63))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert('RGB'), int)


@pytest.fixture
def volume():
    """Intensity grows to the right (x), and doubles in the front half (y)."""
    x, y, _ = np.meshgrid(*map(np.arange, SHAPE), indexing='ij')
    data = (x / 70 * np.where(y >= 40, 1.0, 0.5)).astype(np.float32)
    return Volume(data, np.eye(4))


@pytest.fixture
def brain():
    mask = np.zeros(SHAPE, bool)
    mask[20:50, 20:60, 16:48] = True
    return mask


@pytest.mark.parametrize('detailed', [True, False])
def test_slices_lie_in_the_picture_side_by_side(brain, detailed):
    layout = lay_out(brain, BOX, detailed)
    filled = np.zeros((layout.height, layout.width), int)
    for tile in layout.tiles:
        filled[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
        assert layout.cut(brain, tile).shape == (tile.height, tile.width)
        assert layout.cut(brain, tile).any()
    assert filled.max() == 1
    assert len(layout.tiles) == (6 if detailed else 3)


def test_right_is_right_and_front_is_up(volume, brain):
    layout = lay_out(brain, BOX, detailed=False)
    axial = layout.tiles[0]
    shown = layout.cut(volume.data, axial)
    assert shown[0, -1] > shown[0, 0]
    assert shown[0, 40] > shown[-1, 40]
    picture = pixels(grey_png(volume, layout, (0, 1)))
    corner = picture[axial.top, axial.left + axial.width - 1, 0]
    assert corner == round(255 * float(volume.data[67, 77, 30]))


def test_one_window_shows_a_change_of_intensity(volume, brain):
    layout = lay_out(brain, BOX)
    brighter = volume.with_data(volume.data * np.float32(1.2))
    first, second = (pixels(grey_png(v, layout, (0.0, 2.0))) for v in (volume, brighter))
    assert first.shape == second.shape
    assert second.mean() == pytest.approx(1.2 * first.mean(), rel=0.05)
    assert grey_png(volume, layout, (0, 1)) == grey_png(volume, layout, (0, 1))


def test_differences_are_red_blue_and_white(volume, brain):
    layout = lay_out(brain, BOX, detailed=False)
    change = np.zeros(SHAPE, np.float32)
    change[:20], change[50:] = -0.1, 0.1
    after = volume.with_data(volume.data + change)
    head = np.ones(SHAPE, bool)
    head[:, :10] = False
    picture = pixels(difference_png(volume, after, head, layout, 0.1))
    axial = layout.tiles[0]
    middle = axial.top + axial.height // 2
    blue, white, red = (picture[middle, axial.left + x] for x in (5, 33, 60))
    assert blue[2] > blue[0] + 50
    assert red[0] > red[2] + 50
    assert white.min() > 240
    outside = picture[axial.top + axial.height - 2, axial.left + 30]
    assert outside.min() > 240
    colours = difference_colours()
    assert colours.shape == (255, 3)
    assert colours[127].min() > 240


def test_outlines_lie_on_the_borders_of_the_map(brain):
    layout = lay_out(brain, BOX, detailed=False)
    svg = outline_svg({'brain': brain}, layout)
    assert svg.startswith(f'<svg class="outlines" viewBox="0 0 {layout.width} {layout.height}"')
    axial = layout.tiles[0]
    first = re.search(r'd="M([^M"]*)', svg)[1]
    points = np.array([[float(v) for v in pair.split()] for pair in first.split('L')])
    # x 20 to 49 of the box that begins at 2; the border of a voxel is half a voxel outside
    assert points[:, 0].min() == pytest.approx(axial.left + 18, abs=0.6)
    assert points[:, 0].max() == pytest.approx(axial.left + 48, abs=0.6)
    # y 20 to 59 of the box 4 to 77, front at the top
    assert points[:, 1].min() == pytest.approx(axial.top + 18, abs=0.6)
    assert points[:, 1].max() == pytest.approx(axial.top + 58, abs=0.6)


def test_an_empty_map_has_no_outline(brain):
    layout = lay_out(brain, BOX, detailed=False)
    assert 'd=""' in outline_svg({'brain': np.zeros(SHAPE)}, layout)
