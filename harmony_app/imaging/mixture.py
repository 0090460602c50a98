"""Level of a tissue whose registered map lies partly beside it.

The maps come from a template: where ventricles are narrower than the template's, the map of
CSF covers brain too. What such a map shows is a mixture of the tissue and of its neighbours,
whose intensities are known from their own maps.
"""

import numpy as np

BIN, BLUR = 0.02, 2.0
"""Width of a bin of intensity (white-matter peak 1), and standard deviation of the kernel in bins."""

STEPS = 60
"""Steps of expectation and maximization; it has settled long before."""

NARROW, LEAST_SPREAD = 0.15, 0.03
"""Largest standard deviation of the tissue over its distance to the neighbours, and the least."""

OUTER = 15
"""Percent of the values beyond the start, on the side away from the neighbours."""

LEAST_SHARE = 0.03
"""Share of the values below which the tissue is not told from its neighbours."""


def level_among(values: np.ndarray, neighbours: np.ndarray) -> float:
    """Median of a tissue in a sample that neighbouring tissues contaminate.

    The sample is a mixture of a normal distribution, of the neighbours' own histogram, and of
    voxels that hold both, which lie evenly in between (Laidlaw 1998, IEEE Trans Med Imaging 17:74).
    The median is weighted by the chance of each value to be of the tissue alone.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Intensities under the tissue's map, white-matter peak at 1.
    neighbours : ndarray, shape (M,)
        Intensities under the maps of the neighbours.

    Returns
    -------
    float
        The plain median where the two cannot be told apart.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> brain, fluid = rng.normal(1, 0.05, 1000), rng.normal(0.2, 0.05, 1000)
    >>> abs(level_among(np.concatenate([fluid, brain[:700]]), brain) - 0.2) < 0.01
    True
    """
    top = max(float(values.max()), float(neighbours.max()))
    edges = np.arange(0, top + 10 * BIN, BIN)
    other = _density(values, neighbours, edges)
    low, border, high = np.percentile(neighbours, (25, 50, 75))
    noise = (high - low) / 1.349
    dark = np.median(values) < border
    # From the outer edge: a tissue seen mostly together with its neighbours is the edge of
    # what is seen of it.
    mean = float(np.percentile(values, OUTER if dark else 100 - OUTER))
    spread = max(NARROW * abs(border - mean), noise, LEAST_SPREAD)
    own_share, mixed_share = 0.5, 0.2
    for _ in range(STEPS):
        normal = np.exp(-0.5 * ((values - mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        between = (values > min(mean, border)) & (values < max(mean, border))
        own = own_share * normal
        mixed = mixed_share * between / max(abs(border - mean), spread)
        total = own + mixed + max(1 - own_share - mixed_share, 0.0) * other + 1e-12
        chance = own / total
        own_share, mixed_share = float(chance.mean()), float((mixed / total).mean())
        if own_share < LEAST_SHARE:
            return float(np.median(values))
        mean = float(np.average(values, weights=chance))
        spread = float(np.sqrt(np.average((values - mean) ** 2, weights=chance)))
        most = max(NARROW * abs(border - mean), noise)
        spread = max(min(spread, most), LEAST_SPREAD)
    order = np.argsort(values, kind='stable')
    reached = np.cumsum(chance[order])
    return float(values[order][np.searchsorted(reached, 0.5 * reached[-1])])


def _density(values: np.ndarray, sample: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Density of a sample at some values, by a smoothed histogram."""
    # here: styles are read where nothing is measured
    from scipy import ndimage

    counts, _ = np.histogram(sample, bins=edges)
    density = ndimage.gaussian_filter1d(counts.astype(np.float64), BLUR) / (len(sample) * BIN)
    return np.interp(values, (edges[:-1] + edges[1:]) / 2, density) + 1e-6
