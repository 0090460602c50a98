"""How far the intensities of every tissue are from those of a target, whatever their place.

The images may show different heads: only the distributions of their intensities are compared.
"""

from collections.abc import Callable, Mapping

import numpy as np

from harmony_app.evaluation.metrics import histogram_distance
from harmony_app.evaluation.regions import intensities

BINS = 64
"""Bins of the histograms that a divergence is taken of."""

PSEUDO_COUNT = 0.5
"""Voxels added to every bin (Krichevsky and Trofimov 1981): no bin is impossible."""


def tissue_wasserstein(
    image: np.ndarray,
    reference: np.ndarray,
    tissues: Mapping[str, np.ndarray],
    reference_tissues: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Wasserstein distance of the intensities of every tissue, in the unit of the images.

    The mean shift that the intensities of a tissue need to become those of the reference,
    taken of the intensities themselves, without bins.

    Parameters
    ----------
    image, reference : ndarray
        Images in one unit, of any shapes.
    tissues, reference_tissues : mapping of str to ndarray, bool
        Mask of every tissue in each image, of the shape of that image; the same tissues.

    Returns
    -------
    dict of str to float
        By tissue, 0 or more.

    Raises
    ------
    ValueError
        For tissues that differ, an empty mask or one of another shape than its image, or
        intensities that are not finite.

    Examples
    --------
    >>> everywhere = {'WM': np.ones(2, bool)}
    >>> tissue_wasserstein(np.array([0.0, 1.0]), np.array([3.0, 2.0]), everywhere, everywhere)
    {'WM': 2.0}
    """

    def distance(mask, reference_mask, name):
        intensities(image, mask, name), intensities(reference, reference_mask, name)
        return histogram_distance(image, reference, mask, reference_mask)

    return _by_tissue(distance, tissues, reference_tissues)


def tissue_divergence(
    image: np.ndarray,
    reference: np.ndarray,
    tissues: Mapping[str, np.ndarray],
    reference_tissues: Mapping[str, np.ndarray],
    interval: tuple[float, float],
    bins: int = BINS,
    pseudo_count: float = PSEUDO_COUNT,
) -> dict[str, float]:
    """Kullback-Leibler divergence of the intensities of every tissue, nats.

    See :func:`kullback_leibler`, which it takes of every tissue with the same bins.

    Parameters
    ----------
    image, reference : ndarray
        Images in one unit, of any shapes.
    tissues, reference_tissues : mapping of str to ndarray, bool
        Mask of every tissue in each image, of the shape of that image; the same tissues.
    interval : tuple of 2 float
        Range of the bins, in the unit of the images.
    bins : int, optional
        Number of bins.
    pseudo_count : float, optional
        Voxels added to every bin; above 0.

    Returns
    -------
    dict of str to float
        By tissue, 0 or more.

    Raises
    ------
    ValueError
        For tissues that differ, and as :func:`kullback_leibler`.

    Examples
    --------
    >>> image, everywhere = np.array([0.2, 0.4]), {'GM': np.ones(2, bool)}
    >>> tissue_divergence(image, image, everywhere, everywhere, interval=(0, 1))
    {'GM': 0.0}
    """

    def divergence(mask, reference_mask, name):
        return kullback_leibler(
            intensities(image, mask, name),
            intensities(reference, reference_mask, name),
            interval,
            bins,
            pseudo_count,
        )

    return _by_tissue(divergence, tissues, reference_tissues)


def kullback_leibler(
    values: np.ndarray,
    reference: np.ndarray,
    interval: tuple[float, float],
    bins: int = BINS,
    pseudo_count: float = PSEUDO_COUNT,
) -> float:
    """Kullback-Leibler divergence of the distribution of a reference from that of values, nats.

    Histograms with bins of equal width over the interval, intensities beyond it in the
    outermost bins. A pseudo-count in every bin, the same for both, is all the smoothing there
    is: it keeps the divergence finite where the values leave out a bin of the reference. The
    divergence is that of the values as a model of the reference, the sum of
    r * log(r / v) over the bins; it is not the same with both exchanged. Bins that do not
    depend on the images make the divergences before and after harmonization comparable.

    Parameters
    ----------
    values, reference : ndarray
        Intensities in one unit, of any shapes, finite.
    interval : tuple of 2 float
        Lowest and highest edge of the bins, in the unit of the intensities.
    bins : int, optional
        Number of bins, 2 or more.
    pseudo_count : float, optional
        Voxels added to every bin; above 0.

    Returns
    -------
    float
        0 or more, 0 for equal histograms.

    Raises
    ------
    ValueError
        For no intensities, some that are not finite, an interval without width, fewer than 2
        bins, or a pseudo-count that is not above 0.

    References
    ----------
    Kullback and Leibler 1951, Ann Math Stat 22:79.

    Examples
    --------
    Two bins, a pseudo-count of 1: 3 and 1 voxels become 4/6 and 2/6, 1 and 3 the reverse, and
    the divergence is 2/6 log(1/2) + 4/6 log 2 = log(2) / 3.

    >>> divergence = kullback_leibler(
    ...     np.array([0.1, 0.1, 0.1, 0.9]), np.array([0.1, 0.9, 0.9, 0.9]), (0, 1), 2, 1
    ... )
    >>> bool(np.isclose(divergence, np.log(2) / 3))
    True
    """
    low, high = interval
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f'the interval of the bins rises, it is not {low} to {high}')
    if bins < 2:
        raise ValueError(f'a histogram has 2 bins at least, not {bins}')
    if not (np.isfinite(pseudo_count) and pseudo_count > 0):
        raise ValueError(f'the pseudo-count is above 0, not {pseudo_count}')
    modelled, true = (
        _probabilities(v, (low, high), bins, pseudo_count) for v in (values, reference)
    )
    # rounding may leave equal histograms a little below 0
    return max(0.0, float(np.sum(true * np.log(true / modelled))))


def _probabilities(
    values: np.ndarray, interval: tuple[float, float], bins: int, pseudo_count: float
) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64).ravel()
    if not values.size:
        raise ValueError('there are no intensities to make a histogram of')
    if not np.isfinite(values).all():
        raise ValueError('some intensities are not finite: leave them out of the histogram')
    counts, _ = np.histogram(np.clip(values, *interval), bins=bins, range=interval)
    counts = counts + pseudo_count
    return counts / counts.sum()


def _by_tissue(
    measure: Callable[[np.ndarray, np.ndarray, str], float],
    tissues: Mapping[str, np.ndarray],
    reference_tissues: Mapping[str, np.ndarray],
) -> dict[str, float]:
    if not tissues or set(tissues) != set(reference_tissues):
        raise ValueError(
            f'tissues {sorted(tissues)} and those of the reference {sorted(reference_tissues)}: '
            'give both the same'
        )
    return {name: measure(mask, reference_tissues[name], name) for name, mask in tissues.items()}
