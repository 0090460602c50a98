"""Landmark normalization of Nyul et al. 2000, doi:10.1109/42.836373."""

import numpy as np

from harmony_app.imaging.profile import PERCENTILES
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.classical.intensity_map import IntensityMap, MonotoneMethod

LANDMARKS = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
"""Percentiles of the brain: the deciles, and the ends of the range of interest."""


class Nyul(MonotoneMethod):
    """Map percentiles of the brain to those of the target, straight in between.

    The landmarks of the target are the standard scale: for the average of a site they are
    what Nyul's training step learns. The end segments go on beyond their landmarks, as in
    the paper, except that air is not lifted: the map never passes above the line from the
    first landmark to 0.
    """

    name = 'nyul'

    def fit_map(self, scan: Scan, target: Style) -> tuple[IntensityMap, dict]:
        """Map the landmarks, see :meth:`MonotoneMethod.fit_map`."""
        source = np.interp(LANDMARKS, PERCENTILES, scan.profile.brain)
        reached = np.interp(LANDMARKS, PERCENTILES, target.profile.brain)
        settings = {
            'region': 'brain',
            'percentiles': list(LANDMARKS),
            'landmarks': source.round(4).tolist(),
            'target_landmarks': reached.round(4).tolist(),
        }
        return extend_ends(source, reached), settings


def extend_ends(source: np.ndarray, target: np.ndarray) -> IntensityMap:
    """Map landmarks, with the first and the last segment going on beyond them.

    Parameters
    ----------
    source, target : ndarray, shape (n,)
        Landmarks before and after, in rising order.

    Examples
    --------
    The first segment reaches 0 at 0.2, the last goes on with slope 1:

    >>> stretch = extend_ends(np.array([0.4, 0.8, 1.0]), np.array([0.2, 0.6, 0.8]))
    >>> stretch(np.array([0.1, 0.2, 0.3, 2.0])).round(3)
    array([0. , 0. , 0.1, 1.8], dtype=float32)
    """
    inner = IntensityMap.through(source, target)
    if len(inner.source) < 2:
        return inner
    (x0, x1), (y0, y1) = inner.source[:2], inner.target[:2]
    slopes = np.diff(inner.target) / np.diff(inner.source)
    crossing = x0 - y0 * (x1 - x0) / (y1 - y0) if y1 > y0 else 0.0
    if 0 < crossing < x0:
        source, target = (crossing, *inner.source), (0.0, *inner.target)
    else:
        source, target = inner.source, inner.target
    return IntensityMap(source, target, float(slopes[-1]))
