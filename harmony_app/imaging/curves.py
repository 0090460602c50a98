"""Monotone intensity maps, piecewise linear between knots."""

from collections.abc import Sequence

import numpy as np

from harmony_app.imaging.profile import TissueProfile

IDENTITY = ((0.0, 0.0), (1.0, 1.0))
"""The map that changes nothing."""


def apply_curve(data: np.ndarray, curve: Sequence[tuple[float, float]]) -> np.ndarray:
    """Map intensities piecewise linearly; beyond the last knot the last slope goes on."""
    x, y = np.array(curve, np.float64).T
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    mapped = np.interp(data, x, y)
    return np.where(data > x[-1], y[-1] + slope * (data - x[-1]), mapped).astype(np.float32)


def calibration_curve(here: TissueProfile, there: TissueProfile) -> tuple[tuple[float, float], ...]:
    """Monotone map that brings the GM, WM and CSF medians of one scan to those of another.

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
    pairs = sorted(zip(here.medians, there.medians, strict=True))
    groups = [[pair] for pair in pairs]
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
    x = np.unique(np.round(np.concatenate([x1, back]), 9))
    y = apply_curve(apply_curve(x, first), second)
    return tuple((float(a), float(b)) for a, b in zip(x, y, strict=True))
