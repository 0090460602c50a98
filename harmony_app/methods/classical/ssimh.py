"""Spectrum swapping (SSIMH): give a brain the lowest spatial frequencies of the target.

The comparator that the DLEST paper (Wu et al. 2024, section 4.1.1) takes from the toolbox DomainATM
(Guan and Liu 2023, doi:10.1016/j.neuroimage.2023.119863): the low frequencies of a scan, up to
a threshold of 3, are replaced by those of the reference.

The papers do not say which transform, what the threshold counts, or what of the image is seen.
The toolbox takes the discrete cosine transform of each axial slice and replaces the first 3 x 3
coefficients, sign included; so the swap is one of cosines here too, not of Fourier amplitudes.
Chosen here:

- one transform of the volume, not one for each slice: 3 x 3 x 3 cosines, without steps between slices;
- the brain alone is seen, so that a narrow field of view or a missing scalp does not change
  the result; the change itself reaches the head around it;
- a target of several scans has the median of their coefficients (the mean of two);
- air, which the swap would lift, is left alone, and nothing falls below 0.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harmony_app.errors import OptionError
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Harmonized, Method, Scan, Style

AIR = 0.02
"""Intensity, in units of the white-matter peak, up to which a voxel is left as it is."""

TISSUE = 0.1
"""Intensity from which on a voxel is changed in full."""


class SpectrumSwapping(Method):
    """Replace the lowest cosines of the brain by those of the target.

    What the swap adds is a smooth field. On the native grid it is evaluated where the voxels
    lie, so the scan is not resampled.

    Parameters
    ----------
    threshold : int
        Frequencies of each axis that are swapped: the mean and ``threshold - 1`` cosines; 3 in the papers.

    Raises
    ------
    OptionError
        For a threshold that is not within 1 and 16.
    """

    name = 'ssimh'

    def __init__(self, threshold: int = 3):
        if not 1 <= threshold <= 16:
            raise OptionError(f'the threshold of {self.name} lies within 1 and 16, not {threshold}')
        self.threshold = int(threshold)

    def check_target(self, target: Style) -> None:
        """Refuse a style without a spectrum, or one of another threshold.

        Raises
        ------
        OptionError
            A named style holds none: it has to be measured on scans.
        """
        held = len(target.spectrum)
        if held == self.threshold**3:
            return
        what = 'no spectrum' if not held else f'a spectrum of threshold {round(held ** (1 / 3))}'
        raise OptionError(
            f'target {target.name} ({target.contrast}) holds {what}, and method {self.name} needs '
            f'one of threshold {self.threshold}: give an image, sub-XX or site:NAME with --target'
        )

    def _encode_target(self, scans: Sequence[Scan], name: str) -> Style:
        spectra = [self._spectrum(scan).ravel() for scan in scans]
        average = np.median if len(spectra) > 2 else np.mean
        style = super()._encode_target(scans, name)
        return replace(style, spectrum=tuple(average(spectra, axis=0).tolist()))

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Swap the spectrum of every scan of the target's contrast, see :meth:`Method.harmonize`.

        Raises
        ------
        OptionError
            As :meth:`check_target`.
        """
        self.check_target(target)
        wanted = np.reshape(target.spectrum, (self.threshold,) * 3)
        results = []
        for scan in session:
            if scan.contrast != target.contrast:
                continue
            change = wanted - self._spectrum(scan)
            to_working = np.linalg.inv(scan.working.affine) @ scan.native_to_working
            shape = scan.working.shape
            results.append(
                Harmonized(
                    source=scan.name,
                    contrast=scan.contrast,
                    working=_add(scan.working, change, np.eye(4), shape),
                    native=_add(scan.native, change, to_working @ scan.native.affine, shape),
                    settings={
                        'method': self.name,
                        'transform': 'cosine',
                        'region': 'brain',
                        'threshold': self.threshold,
                    },
                )
            )
        return results

    def _spectrum(self, scan: Scan) -> np.ndarray:
        return lowest_cosines(np.where(scan.brain, scan.working.data, 0), self.threshold)


def lowest_cosines(data: np.ndarray, count: int) -> np.ndarray:
    """Amplitudes of the lowest cosines of a volume (discrete cosine transform II).

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Volume, no axis shorter than ``count``.
    count : int
        Frequencies of each axis, the mean included.

    Returns
    -------
    ndarray, shape (count, count, count), float64
        In the unit of the volume; the first is its mean, frequency k has k half periods along the axis.

    Raises
    ------
    ValueError
        Where an axis is shorter than ``count``.

    Examples
    --------
    >>> wave = 5 + 2 * np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    >>> lowest_cosines(wave[:, None, None] * np.ones((4, 2, 2)), 2)[:, 0, 0].round(9)
    array([5., 2.])
    """
    if min(data.shape) < count:
        raise ValueError(f'a volume of shape {data.shape} has no {count} frequencies on each axis')
    amplitudes = np.asarray(data, np.float64)
    for length in data.shape:
        angles = np.pi * (np.arange(length) + 0.5) / length
        basis = np.cos(np.outer(np.arange(count), angles)) * 2 / length
        basis[0] /= 2
        # The axis that is contracted is the first; what comes of it goes to the end.
        amplitudes = np.tensordot(amplitudes, basis, (0, 1))
    return amplitudes


def _add(volume: Volume, change: np.ndarray, to_voxels: np.ndarray, shape: tuple) -> Volume:
    """Add cosines to what is not air.

    Parameters
    ----------
    volume : Volume
        Scan on any grid.
    change : ndarray, shape (n, n, n)
        Amplitudes to add.
    to_voxels : ndarray, shape (4, 4)
        Voxel indices of the scan to those of the grid that the cosines belong to.
    shape : tuple of 3 int
        Shape of that grid.
    """
    from numpy.polynomial.chebyshev import chebval3d

    result = np.empty(volume.shape, np.float32)
    # Slab by slab: the field and its coordinates take ten times the room of the scan.
    for index, slab in enumerate(volume.data):
        grid = np.ogrid[index : index + 1, : slab.shape[0], : slab.shape[1]]
        cosines = []
        for row, length in zip(to_voxels[:3], shape, strict=True):
            place = sum(axis * factor for axis, factor in zip(grid, row[:3], strict=True)) + row[3]
            # Outside of the working grid the field goes on as it is at its edge.
            angle = np.pi * np.clip((place[0] + 0.5) / length, 0, 1)
            cosines.append(np.broadcast_to(np.cos(angle), slab.shape))
        # cos(k a) is the Chebyshev polynomial of order k of cos(a).
        field = chebval3d(*cosines, change)
        share = np.clip((slab - AIR) / (TISSUE - AIR), 0, 1)
        result[index] = np.maximum(slab + share * field, 0)
    return volume.with_data(result)
