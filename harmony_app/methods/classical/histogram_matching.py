"""Histogram matching: give the brain the quantiles of the target's brain."""

from harmony_app.imaging.profile import PERCENTILES
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.classical.intensity_map import IntensityMap, MonotoneMethod


class HistogramMatching(MonotoneMethod):
    """Map the quantiles of the brain to those of the target.

    The head outside the brain goes through the same map. What is brighter than the brain
    keeps its ratio to the brightest quantile.
    """

    name = 'histogram-matching'

    def fit_map(self, scan: Scan, target: Style) -> tuple[IntensityMap, dict]:
        """Map all quantiles of the profile, see :meth:`MonotoneMethod.fit_map`."""
        intensity_map = IntensityMap.through(scan.profile.brain, target.profile.brain)
        return intensity_map, {'region': 'brain', 'quantiles': len(PERCENTILES)}
