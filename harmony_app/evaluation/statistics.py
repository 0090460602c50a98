"""Whether paired measurements differ, by how much, and how sure that is."""

from dataclasses import dataclass

import numpy as np

CHUNK = 2_000_000
"""Draws held at once while a mean is bootstrapped."""


@dataclass(frozen=True)
class PairedTest:
    """Result of a paired Wilcoxon signed-rank test.

    Parameters
    ----------
    p_value : float
        Two-sided, 0 to 1.
    statistic : float
        The smaller of the rank sums of positive and of negative differences.
    effect_size : float
        Matched-pairs rank-biserial correlation, -1 to 1: the rank sum of the pairs that rose
        less that of the pairs that fell, over their total.
    pairs : int
        Number of pairs given.
    unequal : int
        Number of pairs that differ, which are all that the test counts.
    """

    p_value: float
    statistic: float
    effect_size: float
    pairs: int
    unequal: int


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, in the unit of the measurements."""

    mean: float
    low: float
    high: float


def paired_wilcoxon(before: np.ndarray, after: np.ndarray) -> PairedTest:
    """Paired Wilcoxon signed-rank test, two-sided, with its effect size.

    Pairs that are equal are left out, as Wilcoxon did. Where all pairs are equal, nothing
    speaks against the null hypothesis: the p-value is 1 and the effect size 0.

    Parameters
    ----------
    before, after : array_like, shape (pairs,)
        Measurements of the same subjects, in the same order.

    Returns
    -------
    PairedTest
        The effect size is above 0 where ``after`` is larger.

    Raises
    ------
    ValueError
        For unequal lengths, fewer than two pairs, or numbers that are not finite.

    References
    ----------
    Wilcoxon 1945, Biometrics Bull 1:80; used by CALAMITI, section 3.4. Effect size: Kerby
    2014, Compr Psychol 3:11.IT.3.1.

    Examples
    --------
    Three pairs rise by 1, 2 and 3 and one falls by 4: rank sums of 6 and 4.

    >>> result = paired_wilcoxon([0, 0, 0, 4], [1, 2, 3, 0])
    >>> result.statistic, result.effect_size, result.p_value
    (4.0, 0.2, 0.875)
    """
    from scipy.stats import rankdata, wilcoxon

    difference = _differences(before, after)
    unequal = difference[difference != 0]
    if not unequal.size:
        return PairedTest(1.0, 0.0, 0.0, difference.size, 0)
    ranks = rankdata(np.abs(unequal))
    rose, fell = ranks[unequal > 0].sum(), ranks[unequal < 0].sum()
    return PairedTest(
        p_value=float(wilcoxon(unequal).pvalue),
        statistic=float(min(rose, fell)),
        effect_size=float((rose - fell) / ranks.sum()),
        pairs=difference.size,
        unequal=unequal.size,
    )


def bootstrap_interval(
    before: np.ndarray,
    after: np.ndarray,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """Percentile bootstrap confidence interval of the mean of paired differences.

    Pairs are drawn with replacement, as many as there are. With few pairs (below about 20)
    the interval is narrower than its confidence says. Differences that are all equal give an
    interval without width.

    Parameters
    ----------
    before, after : array_like, shape (pairs,)
        Measurements of the same subjects, in the same order.
    seed : int
        Of the draws: the same seed gives the same interval.
    confidence : float, optional
        Share of the resampled means inside the interval, above 0 and below 1.
    resamples : int, optional
        Number of resampled means.

    Returns
    -------
    Interval
        Of ``after`` less ``before``.

    Raises
    ------
    ValueError
        For unequal lengths, fewer than two pairs, numbers that are not finite, a confidence
        that is not between 0 and 1, or no resamples.

    References
    ----------
    Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.

    Examples
    --------
    >>> bootstrap_interval([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], seed=0)
    Interval(mean=0.5, low=0.5, high=0.5)
    """
    difference = _differences(before, after)
    if not 0 < confidence < 1:
        raise ValueError(f'the confidence is above 0 and below 1, not {confidence}')
    if resamples < 1:
        raise ValueError(f'give 1 resample at least, not {resamples}')
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, CHUNK // difference.size)
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        drawn = generator.integers(difference.size, size=(part.size, difference.size))
        part[:] = difference[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(difference.mean()), float(low), float(high))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p-values for several tests.

    Parameters
    ----------
    p_values : array_like, shape (tests,)
        p-values of one family of tests, 0 to 1.

    Returns
    -------
    ndarray, shape (tests,)
        Corrected p-values in the order given; below a level where the test is significant
        with the chance of any false one kept at that level.

    Raises
    ------
    ValueError
        For no p-values, or one that is not between 0 and 1.

    References
    ----------
    Holm 1979, Scand J Stat 6:65.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=np.float64).ravel()
    if not p_values.size:
        raise ValueError('there are no p-values to correct')
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError('a p-value lies between 0 and 1: check those given')
    order = np.argsort(p_values, kind='stable')
    factors = np.arange(p_values.size, 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return corrected


def _differences(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    before, after = (np.asarray(v, dtype=np.float64).ravel() for v in (before, after))
    if before.size != after.size:
        raise ValueError(f'{before.size} and {after.size} measurements are no pairs')
    if before.size < 2:
        raise ValueError(f'{before.size} pairs are too few: give two or more')
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ValueError('some measurements are not finite: leave those pairs out')
    return after - before
