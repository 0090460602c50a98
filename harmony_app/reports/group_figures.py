"""Pictures of a study: every site in its colour, before and after side by side on one scale."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harmony_app.reports.canvas import TARGET, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    '#0072b2',
    '#d55e00',
    '#009e73',
    '#cc79a7',
    '#e69f00',
    '#56b4e9',
    '#7f3c8d',
    '#8c6d31',
)
"""Colours of sites that colour-blind eyes tell apart (Okabe and Ito 2008, and two more)."""

MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
"""Shapes of sites; another shape begins where the colours do again."""

BINS = 100
MOST_LINES = 12
"""Scans of a site that are drawn one by one behind their mean."""

MOST_PEOPLE = 40
"""People whose scans are joined in the plane; more would hide the points."""

_LEGEND_ROW = 0.175


def density_figure(values: Mapping[str, Mapping[str, Sequence[np.ndarray]]], label: str) -> bytes:
    """Densities of intensities: a panel for each stage, a line for each site.

    Parameters
    ----------
    values : mapping of str to mapping of str to sequence of ndarray
        By stage and site: samples of every scan, in one unit.
    label : str
        Label of the axis.

    Returns
    -------
    bytes
        PNG.
    """
    from scipy.ndimage import gaussian_filter1d

    sites = _sites(values.values())
    samples = [s for stage in values.values() for found in stage.values() for s in found]
    upper = max(float(np.percentile(s, 99.5)) for s in samples)
    edges = np.linspace(0, 1.05 * upper, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    figure, places = _figure(sites, len(values), 2.9)
    top = 0.0
    for place, (stage, found) in zip(places, values.items(), strict=True):
        for site, scans in found.items():
            densities = [
                gaussian_filter1d(np.histogram(s, edges)[0] / s.size / np.diff(edges), 1.5)
                for s in scans
            ]
            colour, _ = _look(sites, site)
            if 1 < len(scans) <= MOST_LINES:
                for density in densities:
                    place.plot(middles, density, color=colour, linewidth=0.7, alpha=0.35)
            mean = np.mean(densities, axis=0)
            place.plot(middles, mean, _line(sites, site), color=colour, linewidth=1.8)
            top = max(top, max(float(density.max()) for density in densities))
        place.set_title(stage, fontsize=10)
        place.set_xlabel(label, fontsize=9)
        place.set_xlim(0, edges[-1])
        place.set_yticks([])
    for place in places:
        place.set_ylim(0, 1.05 * top)
    _legend(figure, sites, lines=True)
    return png_bytes(figure)


def strip_figure(
    values: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
) -> bytes:
    """A point for each scan and a bar at the mean of each site.

    Parameters
    ----------
    values : mapping
        By measure, stage and site: one number for each scan.

    Returns
    -------
    bytes
        PNG: a panel for each measure, with the stages side by side.
    """
    sites = _sites(stage for stages in values.values() for stage in stages.values())
    figure, places = _figure(sites, len(values), 2.5, shared=False, labels=False)
    for place, (measure, stages) in zip(places, values.items(), strict=True):
        ticks = []
        for number, found in enumerate(stages.values()):
            start = number * (len(sites) + 1.0)
            ticks.append(start + (len(sites) - 1) / 2)
            for site, numbers in found.items():
                centre = start + sites.index(site)
                # Side by side in a fixed order, so that equal values are all seen.
                aside = np.linspace(-0.22, 0.22, len(numbers)) if len(numbers) > 1 else np.zeros(1)
                draw_points(place, sites, site, centre + aside, np.asarray(numbers, float))
                place.plot(
                    [centre - 0.35, centre + 0.35], [np.mean(numbers)] * 2, color='#333333', lw=1.3
                )
            if number:
                place.axvline(start - 1.0, color='#cccccc', linewidth=0.8)
        place.set_xticks(ticks, list(stages))
        place.set_xlim(-0.8, len(stages) * (len(sites) + 1.0) - 1.2)
        place.set_title(measure, fontsize=10)
        place.tick_params(axis='x', length=0)
    _legend(figure, sites)
    return png_bytes(figure)


def scatter_figure(
    values: Mapping[str, Mapping[str, np.ndarray]],
    axes: Mapping[str, tuple[str, str]],
    targets: np.ndarray | None = None,
    people: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] | None = None,
) -> bytes:
    """Scans as points in the plane: a panel for each picture, every site in its colour.

    Parameters
    ----------
    values : mapping of str to mapping of str to ndarray, shape (N, 2)
        By title and site.
    axes : mapping of str to (str, str)
        Labels of both axes by title; axes without labels have no scale.
    targets : ndarray, shape (N, 2), optional
        Points of the target, drawn as crosses in every panel.
    people : mapping of str to mapping of str to sequence of (float, float), optional
        By title and person: points that grey lines join to their middle, where there are several;
        left out for more than :data:`MOST_PEOPLE` people.

    Returns
    -------
    bytes
        PNG.
    """
    sites = _sites(values.values())
    aimed = targets is not None and len(targets) > 0
    figure, places = _figure(sites, len(values), 3.2, shared=False, extra=int(aimed))
    for place, (title, found) in zip(places, values.items(), strict=True):
        joined = (people or {}).get(title, {})
        if len(joined) <= MOST_PEOPLE:
            for own in joined.values():
                _star(place, np.asarray(own, float))
        for site, points in found.items():
            draw_points(place, sites, site, points[:, 0], points[:, 1])
        if aimed:
            place.scatter(
                targets[:, 0], targets[:, 1], marker='x', s=60, color=TARGET, linewidths=2, zorder=3
            )
        place.set_title(title, fontsize=10)
        if any(axes[title]):
            place.set_xlabel(axes[title][0], fontsize=9)
            place.set_ylabel(axes[title][1], fontsize=9)
        else:
            place.set_xticks([])
            place.set_yticks([])
        place.margins(0.12)
    _legend(figure, sites, target=aimed)
    return png_bytes(figure)


def png_bytes(figure: 'Figure', few: bool = True) -> bytes:
    """A figure as PNG: the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
    few : bool
        128 colours, for figures of lines and points; grey images would take them all.
    """
    from PIL import Image

    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if few:
        picture = picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    picture.save(stream, 'PNG', optimize=True)
    return stream.getvalue()


def _sites(stages) -> list[str]:
    return sorted({site for found in stages for site in found})


def _look(sites: Sequence[str], site: str) -> tuple[str, str]:
    """Colour and marker of a site."""
    index = sites.index(site)
    return COLOURS[index % len(COLOURS)], MARKERS[index // len(COLOURS) % len(MARKERS)]


def _line(sites: Sequence[str], site: str) -> str:
    return ('-', '--', ':', '-.')[sites.index(site) // len(COLOURS) % 4]


def draw_points(
    axes: 'Axes', sites: Sequence[str], site: str, x: np.ndarray, y: np.ndarray
) -> None:
    """Points of a site, in its colour and shape among all sites."""
    colour, marker = _look(sites, site)
    axes.scatter(
        x, y, s=30, color=colour, marker=marker, alpha=0.8, edgecolors='white', linewidths=0.5
    )


def _star(axes: 'Axes', points: np.ndarray) -> None:
    """Lines from the middle of some points to each of them; none for one point."""
    if len(points) > 1:
        middle = points.mean(axis=0)
        for point in points:
            x, y = np.transpose([middle, point])
            axes.plot(x, y, color='#bbbbbb', linewidth=0.9, zorder=0)


def _figure(
    sites: Sequence[str],
    panels: int,
    height: float,
    shared: bool = True,
    labels: bool = True,
    extra: int = 0,
) -> tuple['Figure', list['Axes']]:
    """Panels in rows of three at most (four stand two by two), with room for the legend below."""
    columns = 2 if panels == 4 else min(panels, 3)
    rows = -(-panels // columns)
    legend = 0.1 + _LEGEND_ROW * -(-(len(sites) + extra) // _legend_columns(sites))
    figure = new_figure(max(5.0, 3.6 * columns), rows * height + legend)
    width, tall = figure.get_size_inches()
    below = 0.5 if labels else 0.3
    figure.subplots_adjust(
        left=0.65 / width,
        right=1 - 0.15 / width,
        bottom=(legend + below) / tall,
        top=1 - 0.35 / tall,
        wspace=0.08 if shared else 0.3,
        hspace=(below + 0.35) / (height - below - 0.35),
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharey=shared)
    places = list(grid.flat)
    for axes in places:
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
    for axes in places[panels:]:
        axes.set_visible(False)
    return figure, places[:panels]


def _legend_columns(sites: Sequence[str]) -> int:
    """Sites in one row of the legend, by the length of their names."""
    longest = max((len(short_name(site)) for site in sites), default=1)
    return max(1, min(6, 84 // (longest + 6)))


def _legend(
    figure: 'Figure', sites: Sequence[str], lines: bool = False, target: bool = False
) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for site in sites:
        colour, marker = _look(sites, site)
        if lines:
            handles.append(Line2D([], [], color=colour, linestyle=_line(sites, site), lw=1.8))
        else:
            handles.append(Line2D([], [], color=colour, marker=marker, linestyle=''))
    names = [short_name(site) for site in sites]
    if target:
        handles.append(Line2D([], [], color=TARGET, marker='x', linestyle='', mew=2))
        names.append('target')
    figure.legend(
        handles,
        names,
        loc='lower center',
        ncols=_legend_columns(sites),
        fontsize=8,
        frameon=False,
    )


def short_name(site: str, longest: int = 44) -> str:
    """A name without its middle where it is long: names of sites differ at their ends.

    Examples
    --------
    >>> short_name('Hospital of one town 3T', 11)
    'Hosp...n 3T'
    """
    if len(site) <= longest:
        return site
    kept = (longest - 3) // 2
    return f'{site[:kept]}...{site[-kept:]}'
