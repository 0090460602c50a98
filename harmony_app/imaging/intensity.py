"""Where the white matter of a scan lies."""

import numpy as np
from scipy import ndimage

BANDWIDTH = 0.04
"""Standard deviation of the kernel in units of the white matter's median."""


def white_matter_peak(data: np.ndarray, brain: np.ndarray, tissues: np.ndarray) -> float:
    """Intensity at the mode of sure white matter.

    Sure white matter is where the registered map is certain, inside its border. The
    density is estimated with a kernel whose width follows the median, so that the peak
    of a scan times c is c times its peak; the mode leaves lesions, vessels and voxels of
    other tissue out, which only move the tails.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z), float32
        Scan in any contrast and unit, on the grid of the maps.
    brain : ndarray, shape (X, Y, Z), bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8 or float
        GM, WM and CSF maps; uint8 is certain at 255.

    Raises
    ------
    ValueError
        Where fewer than 100 voxels of white matter are seen.
    """
    certain = 255.0 if np.issubdtype(tissues.dtype, np.integer) else 1.0
    white = (tissues[1] >= 0.9 * certain) & brain & (data > 0)
    deep = ndimage.binary_erosion(white)
    if np.count_nonzero(deep) >= 5000:
        white = deep
    values = data[white].astype(np.float64)
    if values.size < 100:
        raise ValueError(f'only {values.size} voxels of white matter are seen')
    return histogram_mode(values)


def histogram_mode(values: np.ndarray, bandwidth: float = BANDWIDTH) -> float:
    """Mode of positive values by a Gaussian kernel of ``bandwidth`` times their median.

    Examples
    --------
    >>> import numpy as np
    >>> sample = np.random.default_rng(0).normal(100, 5, 10_000)
    >>> abs(histogram_mode(sample) - 100) < 1
    True
    """
    median = float(np.median(values))
    if median <= 0:
        raise ValueError('the values are not positive')
    width = median / 400
    edges = np.arange(0, 1201) * width
    counts, _ = np.histogram(values, bins=edges)
    density = ndimage.gaussian_filter1d(counts.astype(float), bandwidth * 400, mode='constant')
    top = int(np.argmax(density))
    # Parabola through the top and its neighbours: finer than a bin.
    left, centre, right = density[max(top - 1, 0)], density[top], density[min(top + 1, 1199)]
    bend = left - 2 * centre + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float((top + 0.5 + shift) * width)
