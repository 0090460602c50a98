"""Pictures of scans: one window, the right way round, small, and the same every time."""

import numpy as np
import pytest
from PIL import Image

from harmony_app.imaging.profile import TissueProfile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Style
from harmony_app.reports import figure as figure_module
from harmony_app.reports.canvas import (
    PLANES,
    centre,
    draw_slice,
    foreground_box,
    new_figure,
    save_png,
)
from harmony_app.reports.figure import mosaic, scan_figure, shared_window


def make_volume(seed=0, shape=(40, 48, 44), zooms=(1.0, 1.0, 1.0)):
    generator = np.random.default_rng(seed)
    data = np.zeros(shape, np.float32)
    inner = tuple(slice(6, n - 6) for n in shape)
    data[inner] = 0.5 + 0.5 * generator.random(tuple(n - 12 for n in shape))
    return Volume(data, np.diag([*zooms, 1.0]))


def make_style():
    profile = TissueProfile(
        (0.7, 1.0, 0.2), (0.1,) * 3, tuple(np.linspace(0.4, 1.1, 100).tolist()), ()
    )
    return Style('siteA', 'T1w', profile)


@pytest.fixture
def windows(monkeypatch):
    """Windows that slices were drawn with, by the mean of the volume."""
    drawn = []

    def spy(axes, volume, plane, position, box, window, colours='gray'):
        drawn.append((colours, window))
        return draw_slice(axes, volume, plane, position, box, window, colours)

    monkeypatch.setattr(figure_module, 'draw_slice', spy)
    return drawn


def test_before_and_after_share_one_window(tmp_path, windows):
    before = make_volume()
    after = before.with_data(before.data * np.float32(1.7))
    scan_figure(tmp_path / 'scan.png', before, after, make_style())
    grey = {window for colours, window in windows if colours == 'gray'}
    assert len(grey) == 1
    assert grey.pop()[1] == pytest.approx(np.percentile(after.data[before.data > 0], 99.5))
    signed = {window for colours, window in windows if colours != 'gray'}
    assert len(signed) == 1
    low, high = signed.pop()
    assert low == -high
    assert len(windows) == 9


def test_a_tiny_difference_is_not_blown_up(tmp_path, windows):
    before = make_volume()
    scan_figure(tmp_path / 'scan.png', before, before.with_data(before.data + 1e-4), make_style())
    assert {w for colours, w in windows if colours != 'gray'} == {(-0.05, 0.05)}


def test_same_scan_same_bytes_and_no_software_tag(tmp_path):
    before, after = make_volume(), make_volume(1)
    first, second = (
        scan_figure(tmp_path / name, before, after, make_style(), title='sub-01_T1w')
        for name in ('a.png', 'b.png')
    )
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.format == 'PNG'
        assert 'Software' not in image.info


def test_a_noisy_scan_of_many_voxels_stays_below_400_kb(tmp_path):
    before, after = (make_volume(seed, (192, 224, 192)) for seed in (0, 1))
    brain = np.zeros(before.shape, bool)
    brain[40:150, 40:180, 60:150] = True
    path = scan_figure(tmp_path / 'scan.png', before, after, make_style(), brain)
    assert 100_000 < path.stat().st_size < 400_000


def test_right_is_right_and_front_is_up():
    """A bright voxel at the right, front, top of the head is drawn right and up in every plane."""
    data = np.zeros((10, 12, 14), np.float32)
    data[8, 9, 11] = 1
    volume = Volume(data, np.diag([1, 1, 2.0, 1]))
    box = tuple(slice(0, n) for n in data.shape)
    expected = {'axial': (9, 8, 1), 'coronal': (11, 8, 2), 'sagittal': (11, 9, 2)}
    for plane, (row, column, aspect) in expected.items():
        axes = new_figure(2, 2).add_subplot()
        draw_slice(axes, volume, plane, (8, 9, 11), box, (0, 1))
        (image,) = axes.images
        assert np.argwhere(image.get_array() == 1).tolist() == [[row, column]]
        assert image.origin == 'lower'
        assert axes.get_aspect() == aspect
        sides = {text.get_text(): text.get_position()[0] for text in axes.texts}
        if plane == 'sagittal':
            assert not sides
        else:
            assert sides['L'] < sides['R']


def test_paper_is_white_and_panels_are_grey(tmp_path):
    """The palette keeps white, black and greys as they are, to a level of grey."""
    canvas = new_figure(2, 2)
    axes = canvas.add_axes((0, 0, 1, 0.5))
    volume = Volume(np.full((4, 4, 4), 0.5, np.float32), np.eye(4))
    draw_slice(axes, volume, 'sagittal', (1, 1, 1), (slice(0, 4),) * 3, (0, 1))
    path = save_png(canvas, tmp_path / 'grey.png')
    with Image.open(path) as image:
        pixels = np.asarray(image.convert('RGB'))
    assert pixels[20, 100].tolist() == [255, 255, 255]
    assert pixels[150, 100].tolist() == pytest.approx([128] * 3, abs=2)


def test_box_and_centre_ignore_air():
    data = np.zeros((50, 60, 70), np.float32)
    data[10:30, 20:40, 5:65] = 1
    data[45, 55, 2] = 1  # one speckle
    volume = Volume(data, np.eye(4))
    assert foreground_box(volume, margin=0) == (slice(10, 30), slice(20, 40), slice(5, 65))
    assert centre(data[:, :, 10:] > 0)[0] == pytest.approx(19.5, abs=0.01)
    empty = volume.with_data(np.zeros_like(data))
    assert foreground_box(empty) == tuple(slice(0, n) for n in data.shape)
    assert centre(empty.data > 0) == (24.5, 29.5, 34.5)


def test_empty_scans_are_drawn_too(tmp_path):
    empty = Volume(np.zeros((20, 20, 20), np.float32), np.eye(4))
    assert scan_figure(tmp_path / 'scan.png', empty, empty, make_style()).is_file()


def test_unequal_grids_are_told(tmp_path):
    before, after = make_volume(), make_volume(shape=(40, 48, 46))
    with pytest.raises(ValueError, match='one grid'):
        scan_figure(tmp_path / 'scan.png', before, after, make_style())
    with pytest.raises(ValueError, match='one grid'):
        scan_figure(tmp_path / 'scan.png', before, before, make_style(), brain=after.data > 0)
    with pytest.raises(ValueError, match='one grid'):
        mosaic(tmp_path / 'm.png', [('site A', [before, after])], ['before', 'after'])
    with pytest.raises(ValueError, match='each title'):
        mosaic(tmp_path / 'm.png', [('site A', [before])], ['before', 'after'])
    assert not list(tmp_path.iterdir())


def test_mosaic_has_one_window_for_each_row(tmp_path, windows):
    before = make_volume()
    bright = before.with_data(before.data * 3)
    rows = [('site A', [before, before]), ('site B', [before, bright])]
    path = mosaic(tmp_path / 'mosaic.png', rows, ['before', 'after'], position=(20, 24, 22))
    assert path.stat().st_size > 1000
    (a, b), (c, d) = windows[:2], windows[2:]
    assert a == b
    assert c == d
    assert c[1][1] == pytest.approx(3 * a[1][1])


def test_a_column_can_set_the_window(tmp_path, windows):
    before = make_volume()
    rows = [('site A', [before, before.with_data(before.data * 3)])]
    mosaic(tmp_path / 'mosaic.png', rows, ['truth', 'after'], reference='truth')
    assert windows[0] == windows[1]
    assert windows[0][1][1] <= before.data.max()
    with pytest.raises(ValueError, match='no column other'):
        mosaic(tmp_path / 'mosaic.png', rows, ['truth', 'after'], reference='other')


@pytest.mark.parametrize('plane', PLANES)
def test_mosaic_shows_any_plane(tmp_path, plane):
    volume = make_volume(zooms=(1.0, 1.0, 3.0))
    path = mosaic(tmp_path / 'mosaic.png', [('', [volume])], [''], plane=plane)
    with Image.open(path) as image:
        width, height = image.size
    assert (height > 1.5 * width) == (plane != 'axial')


def test_shared_window_of_nothing():
    assert shared_window(np.zeros(0), np.zeros(3)) == (0.0, 1.0)
