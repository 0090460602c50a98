"""Small charts as SVG inside a page: sharp at any width, a few kilobytes, read without a script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 14, 10, 26, 42


@dataclass(frozen=True)
class Curve:
    """A curve of a chart.

    Parameters
    ----------
    stage : str
        ``before``, ``after`` or ``target``: gives colour and dashes.
    x, y : ndarray, shape (N,)
    """

    stage: str
    x: np.ndarray
    y: np.ndarray


def density(values: np.ndarray, upper: float, bins: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed histogram of intensities from 0 to ``upper``; the area is the share that lies there.

    Returns
    -------
    x, y : ndarray, shape (bins,)
        Middles and densities.
    """
    from scipy.ndimage import gaussian_filter1d

    edges = np.linspace(0, upper, bins + 1)
    counts, _ = np.histogram(values, edges)
    shares = counts / max(np.size(values), 1) / np.diff(edges)
    return (edges[1:] + edges[:-1]) / 2, gaussian_filter1d(shares, 1.0)


def curve_chart(
    title: str,
    curves: Sequence[Curve],
    marks: Mapping[str, float],
    upper: float,
    label: str,
    description: str,
) -> str:
    """Curves over an axis from 0, and upright lines where levels lie.

    Parameters
    ----------
    title : str
        Heading of the chart.
    curves : sequence of Curve
    marks : mapping of str to float
        Stage and place of each upright line.
    upper : float
        End of the axis.
    label : str
        Of the axis.
    description : str
        For those who do not see it.
    """
    highest = max((float(curve.y.max()) for curve in curves if curve.y.size), default=0) or 1.0
    floor = HEIGHT - _BOTTOM

    def across(x) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * x / upper

    parts = []
    for curve in curves:
        points = ' '.join(
            f'{across(x):.1f},{floor - (floor - _TOP) * y / highest:.1f}'
            for x, y in zip(curve.x, curve.y, strict=True)
        )
        parts.append(f'<polyline class="line {curve.stage}" points="{points}"/>')
    for stage, place in marks.items():
        if 0 <= place <= upper:
            at = f'{across(place):.1f}'
            parts.append(
                f'<line class="level {stage}" x1="{at}" x2="{at}" y1="{_TOP}" y2="{floor}"/>'
            )
    parts += [_axis(upper, across, floor), _words(WIDTH / 2, HEIGHT - 8, label)]
    return _svg(title, ''.join(parts), description)


def plane_chart(
    title: str,
    points: Sequence[tuple[str, str, float, float]],
    labels: tuple[str, str],
    description: str,
) -> str:
    """Points in a plane, each with its name.

    Parameters
    ----------
    title : str
        Heading of the chart.
    points : sequence of (str, str, float, float)
        Class (``scan``, ``other`` or ``target``), name, x and y.
    labels : tuple of 2 str
        Of the axes.
    description : str
        For those who do not see it.
    """
    places = np.array([point[2:] for point in points], float)
    low, high = places.min(axis=0), places.max(axis=0)
    # One scale for both axes, so that distances are true.
    span = max(float((high - low).max()) * 1.4, 1e-6)
    middle = (low + high) / 2
    left, floor = _LEFT + 14, HEIGHT - _BOTTOM + 8
    size = min(WIDTH - left - _RIGHT, floor - _TOP)
    parts = [
        f'<rect class="frame" x="{left}" y="{_TOP}" width="{WIDTH - left - _RIGHT}" '
        f'height="{floor - _TOP}"/>'
    ]
    centre = ((left + WIDTH - _RIGHT) / 2, (_TOP + floor) / 2)
    for kind, name, x, y in points:
        px = centre[0] + (x - middle[0]) / span * size
        py = centre[1] - (y - middle[1]) / span * size
        shape = (
            f'<path class="point target" d="M{px - 5:.1f} {py - 5:.1f}l10 10m0 -10l-10 10"/>'
            if kind == 'target'
            else f'<circle class="point {kind}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>'
        )
        parts.append(f'<g><title>{escape(f"{name}: {x:.3g}, {y:.3g}")}</title>{shape}</g>')
        if kind != 'other':
            parts.append(_words(px, py - 9, f'{kind} ({x:.2f}, {y:.2f})'))
    parts.append(_words((left + WIDTH - _RIGHT) / 2, HEIGHT - 12, labels[0]))
    parts.append(
        f'<text transform="translate(14 {(_TOP + floor) / 2}) rotate(-90)" text-anchor="middle">'
        f'{escape(labels[1])}</text>'
    )
    return _svg(title, ''.join(parts), description)


def colour_scale(colours: np.ndarray, span: float, label: str, name: str) -> str:
    """Scale of a difference map.

    Parameters
    ----------
    colours : ndarray, shape (N, 3), uint8
    span : float
        Value of the strongest colours.
    label : str
        What it is the scale of.
    name : str
        Identifier, one for each scale of a page.
    """
    stops = ''.join(
        f'<stop offset="{place:.3f}" stop-color="rgb({r},{g},{b})"/>'
        for place, (r, g, b) in zip(
            np.linspace(0, 1, 17), colours[np.linspace(0, len(colours) - 1, 17).astype(int)],
            strict=True,
        )
    )  # fmt: skip
    ticks = ''.join(
        _words(30 + 260 * (place + 1) / 2, 42, f'{place * span:+.2f}' if place else '0')
        for place in (-1, 0, 1)
    )
    return (
        f'<svg class="scale" viewBox="0 0 320 64" role="img" aria-label="{escape(label)}">'
        f'<defs><linearGradient id="{name}">{stops}</linearGradient></defs>'
        f'<rect x="30" y="8" width="260" height="18" fill="url(#{name})"/>'
        f'{ticks}{_words(160, 60, label)}</svg>'
    )


def _axis(upper: float, across, floor: float) -> str:
    step = next(s for s in (0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 50, 1e9) if upper / s <= 6)
    ticks = np.arange(0, upper + step / 100, step)
    drawn = ''.join(_words(across(tick), floor + 15, f'{tick:g}') for tick in ticks)
    return (
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>{drawn}'
    )


def _words(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


def _svg(title: str, content: str, description: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(description)}">'
        f'<text class="title" x="{_LEFT}" y="15">{escape(title)}</text>{content}</svg>'
    )
