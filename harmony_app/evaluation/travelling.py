"""A travelling subject at two sites: how much of the gap between them is closed.

Four columns for every metric: before, after, the ceiling (a second scan at the target)
and the share of the way from before to the ceiling that harmonization went.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harmony_app.evaluation.metrics import pcc, psnr, rmse, ssim


@dataclass(frozen=True)
class Comparison:
    """One metric against the travelling subject's scan at the target.

    Parameters
    ----------
    before, after : float
        Metric of the scan before and after harmonization.
    ceiling : float
        Metric of another scan at the target: what harmonization can reach at best.

    Examples
    --------
    >>> Comparison(before=0.8, after=0.9, ceiling=1.0).gap_closed
    0.5
    """

    before: float
    after: float
    ceiling: float

    @property
    def gap_closed(self) -> float:
        """Share of the gap closed, see :func:`gap_closed`."""
        return gap_closed(self.before, self.after, self.ceiling)


def gap_closed(before: float, after: float, ceiling: float) -> float:
    """Share of the way from before to the ceiling; 1 is all of it, below 0 is farther away.

    It holds for metrics that rise and that fall alike; NaN where there is no gap.

    Examples
    --------
    >>> round(gap_closed(before=20.0, after=28.0, ceiling=30.0), 9)
    0.8
    >>> gap_closed(before=4, after=5, ceiling=2)  # an error that grew
    -0.5
    """
    gap = ceiling - before
    return float((after - before) / gap) if gap else float('nan')


def compare(
    before: np.ndarray,
    after: np.ndarray,
    ceiling: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    data_range: float,
) -> dict[str, Comparison]:
    """Compare a harmonized scan with the travelling subject's scan at the target.

    Parameters
    ----------
    before, after : ndarray, shape (X, Y, Z)
        The scan before and after, in the unit of ``truth``.
    ceiling : ndarray, shape (X, Y, Z)
        Another scan of the same subject at the target.
    truth : ndarray, shape (X, Y, Z)
        The subject's scan at the target (noise-free, where it is known).
    mask : ndarray, shape (X, Y, Z), bool
        Region of the comparison.
    data_range : float
        Range of the intensities of ``truth``.

    Returns
    -------
    dict of str to Comparison
        By metric: ``ssim``, ``psnr`` (dB), ``rmse``, ``pcc``.
    """
    metrics: dict[str, Callable[[np.ndarray], float]] = {
        'ssim': lambda image: ssim(image, truth, mask, data_range),
        'psnr': lambda image: psnr(image, truth, mask, data_range),
        'rmse': lambda image: rmse(image, truth, mask),
        'pcc': lambda image: pcc(image, truth, mask),
    }
    return {
        name: Comparison(*(metric(image) for image in (before, after, ceiling)))
        for name, metric in metrics.items()
    }
