"""A monotone map of intensity, and the methods that need no more than one."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmony_app.methods.base import Harmonized, Method, Scan, Style


@dataclass(frozen=True)
class IntensityMap:
    """A continuous map of intensity that never falls and keeps the background at 0.

    Straight between the knots. What is darker than the first knot is drawn to 0 in
    proportion, so that air stays dark whatever the map does to tissue; what is brighter
    than the last knot goes on with ``upper_slope``.

    Parameters
    ----------
    source, target : tuple of float
        Intensities of the knots before and after, in units of the white-matter peak;
        ``source`` rises strictly and is above 0, ``target`` does not fall and is not below 0.
    upper_slope : float
        Slope beyond the last knot, not below 0.

    Examples
    --------
    >>> double = IntensityMap((0.5, 1.0), (1.0, 2.0), 2.0)
    >>> double(np.array([-1, 0, 0.25, 0.75, 1.5], np.float32)).tolist()
    [0.0, 0.0, 0.5, 1.5, 3.0]
    """

    source: tuple[float, ...]
    target: tuple[float, ...]
    upper_slope: float

    def __post_init__(self):
        if len(self.source) != len(self.target) or not self.source:
            raise ValueError(
                'an intensity map needs as many target as source knots, and one at least'
            )
        if self.source[0] <= 0 or np.any(np.diff(self.source) <= 0):
            raise ValueError('the source knots of an intensity map rise and are above 0')
        if self.target[0] < 0 or np.any(np.diff(self.target) < 0) or self.upper_slope < 0:
            raise ValueError('an intensity map does not fall and is not below 0')

    @classmethod
    def through(
        cls, source: np.ndarray, target: np.ndarray, upper_slope: float | None = None
    ) -> 'IntensityMap':
        """Map landmarks of one scan onto landmarks of another.

        Parameters
        ----------
        source, target : array-like, shape (n,)
            Landmarks in rising order, at or above 0. Equal source landmarks (a scan of few
            grey levels) go to the mean of their targets.
        upper_slope : float, optional
            Slope beyond the last landmark; by default its own ratio of target to source.
        """
        source, position = np.unique(np.asarray(source, np.float64), return_inverse=True)
        target = np.bincount(position, np.asarray(target, np.float64)) / np.bincount(position)
        target = np.maximum.accumulate(np.maximum(target, 0.0))[source > 0]
        source = source[source > 0]
        if not source.size:
            raise ValueError('all landmarks of the source are 0')
        if upper_slope is None:
            upper_slope = target[-1] / source[-1]
        return cls(tuple(source.tolist()), tuple(target.tolist()), float(upper_slope))

    def __call__(self, data: np.ndarray) -> np.ndarray:
        """Map intensities.

        Parameters
        ----------
        data : ndarray
            Intensities in units of the white-matter peak; anything not above 0 is background.

        Returns
        -------
        ndarray, float32
            Of the same shape, background 0.
        """
        mapped = np.interp(data, (0.0, *self.source), (0.0, *self.target))
        mapped += self.upper_slope * np.maximum(data - self.source[-1], 0)
        return mapped.astype(np.float32)


class MonotoneMethod(Method):
    """A method that fits one :class:`IntensityMap` from the profiles of scan and target."""

    @abstractmethod
    def fit_map(self, scan: Scan, target: Style) -> tuple[IntensityMap, dict]:
        """Fit the map of a scan to a target.

        Returns
        -------
        intensity_map : IntensityMap
        settings : dict
            What was fitted, plain types for the sidecar.
        """

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Map every scan of the target's contrast, see :meth:`Method.harmonize`."""
        results = []
        for scan in session:
            if scan.contrast != target.contrast:
                continue
            intensity_map, settings = self.fit_map(scan, target)
            results.append(
                Harmonized(
                    source=scan.name,
                    contrast=scan.contrast,
                    working=scan.working.with_data(intensity_map(scan.working.data)),
                    native=scan.native.with_data(intensity_map(scan.native.data)),
                    settings={'method': self.name, **settings},
                )
            )
        return results
