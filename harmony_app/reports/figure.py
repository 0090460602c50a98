"""What harmonization did to a scan, in one picture.

Before and after are always shown in one intensity window: each in its own would hide the
very change that is to be seen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harmony_app.imaging.profile import PERCENTILES
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Style
from harmony_app.reports.canvas import (
    AFTER,
    BEFORE,
    DIFFERENCE,
    FOREGROUND,
    PLANES,
    TARGET,
    centre,
    draw_slice,
    foreground_box,
    new_figure,
    save_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST_DIFFERENCE = 0.05
"""The difference map never spans less than this: noise shall not look like change."""

BINS = 64

SLICES_WIDTH = 7.2
"""Inches that the three slices of a row take."""


def scan_figure(
    path: Path,
    before: Volume,
    after: Volume,
    style: Style,
    brain: np.ndarray | None = None,
    title: str = '',
    contrast: str = '',
) -> Path:
    """Draw a scan before and after, their difference, and the histograms with the target's.

    Parameters
    ----------
    path : Path
        PNG to write.
    before, after : Volume
        Scan before and after on one grid (RAS), white-matter peak of each style at 1.
    style : Style
        The target; the quantiles of its brain are drawn.
    brain : ndarray, shape of the volumes, bool, optional
        Brain mask; by default everything that the scan shows counts.
    title : str
        Headline, for example the name of the scan.
    contrast : str
        Contrast of the scan; by default the target's.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        Where the volumes or the mask have unequal shapes.
    OutputError
        Where the picture cannot be written.
    """
    if before.shape != after.shape or (brain is not None and brain.shape != before.shape):
        raise ValueError('before, after and the brain mask lie on one grid')
    region = (before.data > FOREGROUND) if brain is None else np.asarray(brain, bool)
    position, box = centre(region), foreground_box(before, after)
    values = before.data[region], after.data[region]
    window = shared_window(*values)
    difference = after.with_data(after.data - before.data)
    span = max(_percentile(np.abs(difference.data[region]), 99), SMALLEST_DIFFERENCE)

    widths = [_extent(before, box, plane) for plane in PLANES]
    height = max(_extent(before, box, plane, axis=1) for plane in PLANES)
    # Rows as high as the highest slice, so that all slices have one scale and no gaps.
    tall = SLICES_WIDTH / sum(widths) * height
    figure = new_figure(SLICES_WIDTH + 3.3, 3 * tall + 1.1)
    figure_width, figure_height = figure.get_size_inches()
    grid = figure.add_gridspec(
        3,
        3,
        width_ratios=widths,
        left=0.35 / figure_width,
        right=(SLICES_WIDTH + 0.45) / figure_width,
        top=1 - 0.75 / figure_height,
        bottom=0.25 / figure_height,
        wspace=0.03,
        hspace=0.03,
    )
    rows = (
        ('before', before, window, 'gray'),
        ('after', after, window, 'gray'),
        ('after - before', difference, (-span, span), DIFFERENCE),
    )
    for row, (label, volume, limits, colours) in enumerate(rows):
        for column, plane in enumerate(PLANES):
            axes = figure.add_subplot(grid[row, column])
            draw_slice(axes, volume, plane, position, box, limits, colours)
            if column == 0:
                axes.set_ylabel(label, fontsize=10)
    left, wide = (SLICES_WIDTH + 0.65) / figure_width, 2.5 / figure_width
    top = 1 - 1.0 / figure_height
    high = 1.6 * tall / figure_height
    _draw_histograms(figure.add_axes((left, top - high, wide, high)), *values, style, window[1])
    _draw_scale(figure.add_axes((left, 0.8 / figure_height, wide, 0.12 / figure_height)), span)
    figure.text(0.35 / figure_width, 1 - 0.35 / figure_height, title, fontsize=12)
    told = (
        f'{contrast or style.contrast} to {style.name}; one window for both: '
        f'{window[0]:.2f} to {window[1]:.2f} of the white-matter peak'
    )
    figure.text(0.35 / figure_width, 1 - 0.6 / figure_height, told, fontsize=9, color='#555555')
    return save_png(figure, path)


def mosaic(
    path: Path,
    rows: Sequence[tuple[str, Sequence[Volume]]],
    titles: Sequence[str],
    plane: str = 'axial',
    position: Sequence[float] | None = None,
    reference: str | None = None,
) -> Path:
    """Draw one slice of many volumes: a row for each scan, a column for each version of it.

    Parameters
    ----------
    path : Path
        PNG to write.
    rows : sequence of (str, sequence of Volume)
        Label of each row and its volumes, one for each title, all on one grid. A row has one window.
    titles : sequence of str
        Headings of the columns.
    plane : str
        ``axial``, ``coronal`` or ``sagittal``.
    position : sequence of 3 float, optional
        Millimetres that the slices pass through; by default the middle of each row's head.
    reference : str, optional
        Title of the column whose intensities set the window of its row; by default the brightest.

    Raises
    ------
    ValueError
        Where a row has not one volume for each title, or volumes of several grids, or no title
        is that of the reference.
    """
    if reference is not None and reference not in titles:
        raise ValueError(f'no column {reference} to set the window by: {", ".join(titles)}')
    if any(len(volumes) != len(titles) for _, volumes in rows) or not rows:
        raise ValueError('every row of a mosaic has one volume for each title')
    if any(v.shape != volumes[0].shape for _, volumes in rows for v in volumes):
        raise ValueError('the volumes of a row lie on one grid')
    boxes = [foreground_box(*volumes) for _, volumes in rows]
    ratio = max(
        _extent(volumes[0], box, plane, axis=1) / _extent(volumes[0], box, plane)
        for (_, volumes), box in zip(rows, boxes, strict=True)
    )
    size = 2.2
    figure = new_figure(size * len(titles) + 0.3, size * ratio * len(rows) + 0.3)
    grid = figure.add_gridspec(
        len(rows), len(titles), left=0.25 / figure.get_figwidth(), right=0.995,
        bottom=0.005, top=1 - 0.27 / figure.get_figheight(), wspace=0.02, hspace=0.02,
    )  # fmt: skip
    for row, ((label, volumes), box) in enumerate(zip(rows, boxes, strict=True)):
        # Fat is far brighter than brain, and not what is looked at.
        bright = volumes if reference is None else [volumes[titles.index(reference)]]
        shown = (volume.data[box] for volume in bright)
        window = shared_window(*(data[data > FOREGROUND] for data in shown), percentile=98)
        if position is None:
            place = centre(volumes[0].data > FOREGROUND)
        else:
            place = np.linalg.solve(volumes[0].affine, [*position, 1])[:3]
        for column, (heading, volume) in enumerate(zip(titles, volumes, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            draw_slice(axes, volume, plane, place, box, window)
            axes.set_facecolor('black')
            if row == 0:
                axes.set_title(heading, fontsize=9, pad=3)
            if column == 0:
                axes.set_ylabel(label, fontsize=9, labelpad=2)
    return save_png(figure, path)


def shared_window(*values: np.ndarray, percentile: float = 99.5) -> tuple[float, float]:
    """Window from 0 to where the brightest of several images has a percentile.

    Examples
    --------
    >>> shared_window(np.linspace(0, 1, 201), np.linspace(0, 2, 201))
    (0.0, 1.99)
    """
    brightest = max(_percentile(v, percentile) for v in values)
    return 0.0, brightest if brightest > 0 else 1.0


def _percentile(values: np.ndarray, percentile: float) -> float:
    return float(np.percentile(values, percentile)) if values.size else 0.0


def _extent(volume: Volume, box: tuple[slice, ...], plane: str, axis: int = 0) -> float:
    """Width (axis 0) or height (axis 1) of a slice in mm."""
    shown = [i for i in range(3) if i != PLANES[plane]][axis]
    return (box[shown].stop - box[shown].start) * volume.zooms[shown]


def _draw_histograms(
    axes: 'Axes', before: np.ndarray, after: np.ndarray, style: Style, upper: float
) -> None:
    from scipy.ndimage import gaussian_filter1d

    edges = np.linspace(0, 1.05 * upper, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    # Quantiles are a histogram too: equal shares of the brain between one and the next.
    target = np.interp(np.linspace(*PERCENTILES[[0, -1]], 20_000), PERCENTILES, style.profile.brain)
    for values, label, colour, line in (
        (before, 'before', BEFORE, '-'),
        (after, 'after', AFTER, '-'),
        (target, 'target', TARGET, '--'),
    ):
        counts, _ = np.histogram(values, edges)
        density = gaussian_filter1d(counts / max(values.size, 1) / np.diff(edges), 1.0)
        axes.plot(middles, density, line, color=colour, label=label, linewidth=1.4)
    axes.set_title('brain', fontsize=9, pad=3)
    axes.set_xlabel('intensity / white-matter peak', fontsize=8)
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[['top', 'right', 'left']].set_visible(False)


def _draw_scale(axes: 'Axes', span: float) -> None:
    """Colour scale of the difference map."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(-span, span), DIFFERENCE), cax=axes, orientation='horizontal'
    )
    bar.ax.tick_params(labelsize=8)
    bar.ax.set_title('after - before', fontsize=9, pad=4)
