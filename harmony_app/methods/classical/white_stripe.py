"""White Stripe of Shinohara et al. 2014, doi:10.1016/j.nicl.2014.08.008."""

from dataclasses import dataclass

import numpy as np

from harmony_app.errors import OptionError, ScanError
from harmony_app.imaging.profile import PERCENTILES, TISSUES, TissueProfile
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.classical.intensity_map import IntensityMap, MonotoneMethod

STEPS = 101
"""Quantiles that the stripe is sampled at."""


@dataclass(frozen=True)
class Stripe:
    """Mean and standard deviation of the normal-appearing white matter."""

    mean: float
    deviation: float


def white_stripe(profile: TissueProfile, width: float) -> Stripe:
    """Find the white stripe in the histogram of a brain.

    The stripe is the part of the brain's intensities whose quantiles lie within ``width``
    of the quantile of white matter. The paper finds white matter as a peak of the smoothed
    histogram; here it is the median under the registered white-matter map, which is known
    and the same in every contrast.

    Parameters
    ----------
    profile : TissueProfile
        Profile of a scan.
    width : float
        Half the share of the brain's voxels that the stripe holds; 0.05 in the paper.

    Raises
    ------
    ValueError
        Where all voxels of the stripe are equal.
    """
    quantiles = PERCENTILES / 100
    # Equal quantiles make a plateau: its middle is where white matter lies.
    white = profile.medians[TISSUES.index('WM')]
    first, last = (np.searchsorted(profile.brain, white, side=side) for side in ('left', 'right'))
    if first == last:
        middle = np.interp(white, profile.brain, quantiles)
    else:
        middle = quantiles[first:last].mean()
    low = np.clip(middle - width, quantiles[0], quantiles[-1] - 2 * width)
    stripe = np.interp(np.linspace(low, low + 2 * width, STEPS), quantiles, profile.brain)
    if stripe.std() <= 1e-6:
        raise ValueError('the white stripe has no spread')
    return Stripe(float(stripe.mean()), float(stripe.std()))


class WhiteStripe(MonotoneMethod):
    """Shift and scale intensities so that the white stripe becomes the target's.

    The map is linear within the brain. Below its first percentile it goes to 0, so that
    the offset does not lift the air.

    Parameters
    ----------
    width : float
        Half the share of the brain's voxels in the stripe.
    """

    name = 'white-stripe'

    def __init__(self, width: float = 0.05):
        if not 0 < width < 0.25:
            raise OptionError(f'the width of the white stripe lies between 0 and 0.25, not {width}')
        self.width = width

    def fit_map(self, scan: Scan, target: Style) -> tuple[IntensityMap, dict]:
        """Map stripe to stripe, see :meth:`MonotoneMethod.fit_map`."""
        try:
            source, reached = (white_stripe(p, self.width) for p in (scan.profile, target.profile))
        except ValueError as error:
            raise ScanError(
                f'{scan.name} cannot be brought to {target.name} by {self.name}: {error}; '
                'choose another --method'
            ) from error
        slope = reached.deviation / source.deviation
        offset = reached.mean - slope * source.mean
        # Where the line is below 0 the image is 0: start at the crossing, or at the darkest brain.
        start = max(scan.profile.brain[0], -offset / slope, 1e-3)
        ends = np.array([start, max(source.mean, 2 * start)])
        intensity_map = IntensityMap.through(ends, offset + slope * ends, slope)
        settings = {
            'width': self.width,
            'slope': round(slope, 5),
            'offset': round(offset, 5),
        }
        return intensity_map, settings
