"""Monotone intensity maps, piecewise linear between knots."""

from collections.abc import Iterable, Sequence

import numpy as np

from harmony_app.imaging.profile import TissueProfile

IDENTITY = ((0.0, 0.0), (1.0, 1.0))
"""The map that changes nothing."""

CLOSEST = 1e-4
"""Knots nearer to each other than this are one."""

FLUID_MISSED = 0.03
"""Distance at which the CSF of a target counts as missed."""


def apply_curve(data: np.ndarray, curve: Sequence[tuple[float, float]]) -> np.ndarray:
    """Map intensities piecewise linearly; beyond the last knot the last slope goes on."""
    return _mapped(np.asarray(data), curve).astype(np.float32)


def _mapped(data: np.ndarray, curve: Sequence[tuple[float, float]]) -> np.ndarray:
    x, y = np.array(curve, np.float64).T
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    mapped = np.interp(data, x, y)
    return np.where(data > x[-1], y[-1] + slope * (data - x[-1]), mapped)


def calibration_curve(here: TissueProfile, there: TissueProfile) -> tuple[tuple[float, float], ...]:
    """Monotone map that brings the GM, WM and CSF levels of one scan to those of another.

    Tissues whose order differs in the two, or that lie closer than 0.02, cannot be told
    apart by intensity and are brought to their common mean.

    Parameters
    ----------
    here, there : TissueProfile
        Measured and wanted style.

    Returns
    -------
    tuple of (float, float)
        Knots of :func:`apply_curve`, from (0, 0) upwards; the slopes lie in 0.1 to 10.
    """
    return _curve_through(zip(here.levels, there.levels, strict=True))


def fluid_level(here: TissueProfile, there: TissueProfile) -> float | None:
    """Where the CSF of a scan has to lie so that a monotone map brings all tissues to a target.

    Parameters
    ----------
    here, there : TissueProfile
        Measured and wanted style.

    Returns
    -------
    float or None
        None where the map reaches the target's CSF as it is.

    Examples
    --------
    CSF brighter than grey matter here, and darker than white matter there:

    >>> def profile(*levels):
    ...     return TissueProfile(levels, (0.1,) * 3, (0.5,) * 100, ())
    >>> fluid_level(profile(1.2, 1.0, 1.4), profile(1.1, 1.0, 0.9))
    0.9
    >>> fluid_level(profile(0.6, 1.0, 0.2), profile(0.7, 1.0, 0.3)) is None
    True
    """
    goal = there.levels[2]
    reached = apply_curve(np.array(here.levels[2]), calibration_curve(here, there))
    if abs(float(reached) - goal) < FLUID_MISSED:
        return None
    x, y = np.array(_curve_through(zip(here.levels[:2], there.levels[:2], strict=True))).T
    if goal <= y[-1]:
        return float(np.interp(goal, y, x))
    return float(x[-1] + (goal - y[-1]) * (x[-1] - x[-2]) / (y[-1] - y[-2]))


def _curve_through(pairs: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    groups = [[pair] for pair in sorted(pairs)]
    merged = True
    while merged:
        merged = False
        means = [np.mean(group, axis=0) for group in groups]
        for i in range(len(groups) - 1):
            (x0, y0), (x1, y1) = means[i], means[i + 1]
            if x1 - x0 < 0.02 or y1 - y0 < 0.1 * (x1 - x0) or y1 - y0 > 10 * (x1 - x0):
                groups[i : i + 2] = [groups[i] + groups[i + 1]]
                merged = True
                break
    knots = [(0.0, 0.0)]
    for x, y in (np.mean(group, axis=0) for group in groups):
        x0, y0 = knots[-1]
        if x - x0 < 0.02:
            continue
        knots.append((float(x), float(np.clip(y, y0 + 0.1 * (x - x0), y0 + 10 * (x - x0)))))
    # beyond the brightest tissue the change of its own level goes on, not the last slope,
    # which the distance of two tissues made
    x, y = knots[-1]
    gain = np.clip(y / x, 0.5, 2.0)
    knots.append((x + 1.0, float(y + gain)))
    return tuple(knots)


def bounded_levels(
    reached: Sequence[float], source: Sequence[float], target: Sequence[float], closed: float
) -> tuple[float, ...]:
    """Where tissues should lie that have come near enough to a target already, or have not.

    A measured style is known only as well as one person's anatomy tells it. What a network
    reached is left alone inside the remaining distance and brought to its border outside.

    Parameters
    ----------
    reached, source, target : sequence of float
        Levels of the tissues now, before, and wanted.
    closed : float
        Share of the distance between source and target that is to be closed at least, 0 to 1.

    Examples
    --------
    >>> bounded_levels([0.70, 1.0], [0.5, 1.0], [0.8, 1.0], 0.5)
    (0.7, 1.0)
    >>> bounded_levels([0.55, 1.0], [0.5, 1.0], [0.8, 1.0], 0.5)
    (0.65, 1.0)
    """
    goal = np.asarray(target, np.float64)
    left = (1 - closed) * np.abs(np.subtract(source, goal))
    return tuple(np.round(np.clip(reached, goal - left, goal + left), 9).tolist())


def bounded_distance(
    reached: Sequence[float], source: Sequence[float], target: Sequence[float], closed: float
) -> tuple[float, ...]:
    """As :func:`bounded_levels`, for the Euclidean distance of all tissues together.

    Examples
    --------
    >>> bounded_distance([0.6, 1.0, 0.3], [0.6, 1.0, 0.2], [0.6, 1.0, 0.4], 0.5)
    (0.6, 1.0, 0.3)
    >>> bounded_distance([0.6, 1.0, 0.2], [0.6, 1.0, 0.2], [0.6, 1.0, 0.4], 0.75)
    (0.6, 1.0, 0.35)
    """
    goal = np.asarray(target, np.float64)
    away = np.subtract(reached, goal)
    left = (1 - closed) * np.linalg.norm(np.subtract(source, goal))
    share = min(1.0, left / max(float(np.linalg.norm(away)), 1e-12))
    return tuple(np.round(goal + share * away, 9).tolist())


def compose_curves(
    first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], ...]:
    """Knots of the map that applies one curve and then another, both rising from (0, 0).

    Parameters
    ----------
    first, second : sequence of (float, float)
        Curves as of :func:`calibration_curve`.
    """
    x1, y1 = np.array(first, np.float64).T
    x2 = np.array(second, np.float64).T[0]
    slope = (y1[-1] - y1[-2]) / (x1[-1] - x1[-2])
    # places where the second curve bends, seen through the first
    back = np.where(x2 > y1[-1], x1[-1] + (x2 - y1[-1]) / slope, np.interp(x2, y1, x1))
    x = np.unique(np.concatenate([x1, back]))
    # knots that all but coincide have no slope that could be told; the outer ones stay
    apart = [float(x[0])]
    for place in x[1:-1]:
        if place - apart[-1] > CLOSEST and x[-1] - place > CLOSEST:
            apart.append(float(place))
    x = np.array([*apart, x[-1]])
    y = _mapped(_mapped(x, first), second)
    return tuple((float(a), float(b)) for a, b in zip(x, y, strict=True))
