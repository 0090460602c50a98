"""ComBat: remove what site adds to a table of features, such as tissue volumes.

Johnson et al. 2007 (doi:10.1093/biostatistics/kxj037), with covariates as Fortin et al. 2018
(doi:10.1016/j.neuroimage.2017.11.024): a site shifts and scales every feature; shifts and scales
are estimated with a prior that all features of the site share. It is a comparator for features and
sees no image.

No library is wrapped: of those that can be installed beside NumPy 2 and SciPy 1.15, neuroCombat 0.2.12
is not maintained and fails with a reference site. The tests compare with its numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-8
"""Change of shifts and scales, in standard deviations, at which their iteration ends."""

ITERATIONS = 1000
"""Most iterations; a handful is usual."""


@dataclass(frozen=True)
class Combat:
    """A fitted ComBat model of n scans with p features, s sites and c covariates.

    Parameters
    ----------
    sites : tuple of str
        Sites, in sorted order.
    mean, deviation : ndarray, shape (p,)
        Mean of the group (or of the reference site), covariates at 0, and residual deviation.
    slopes : ndarray, shape (c, p)
        Change of a feature with each covariate, which is kept.
    shifts, scales : ndarray, shape (s, p)
        Shift and scale (a ratio of standard deviations) of each site, in units of ``deviation``.
    """

    sites: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray
    slopes: np.ndarray
    shifts: np.ndarray
    scales: np.ndarray

    def apply(
        self,
        features: np.ndarray,
        sites: Sequence[str],
        covariates: np.ndarray | None = None,
    ) -> np.ndarray:
        """Remove the effects of site, from the scans of the fit or others of its sites.

        Parameters
        ----------
        features : ndarray, shape (n, p)
        sites : sequence of n str
        covariates : ndarray, shape (n, c), optional
            The same columns as in the fit.

        Returns
        -------
        ndarray, shape (n, p), float64

        Raises
        ------
        ValueError
            For shapes that are not those of the fit, or a site that it did not have.
        """
        features, sites, covariates = _checked(features, sites, covariates)
        if features.shape[1] != len(self.mean) or covariates.shape[1] != len(self.slopes):
            raise ValueError(
                f'the fit had {len(self.mean)} features and {len(self.slopes)} covariates, not '
                f'{features.shape[1]} and {covariates.shape[1]}'
            )
        unknown = sorted(set(sites.tolist()) - set(self.sites))
        if unknown:
            raise ValueError(f'no scan of {", ".join(unknown)} was fitted: fit with its scans')
        site = np.searchsorted(self.sites, sites)
        expected = self.mean + covariates @ self.slopes
        standard = (features - expected) / self.deviation
        return (standard - self.shifts[site]) / self.scales[site] * self.deviation + expected


def fit_combat(
    features: np.ndarray,
    sites: Sequence[str],
    covariates: np.ndarray | None = None,
    reference: str | None = None,
    empirical_bayes: bool = True,
) -> Combat:
    """Estimate what each site adds to each feature.

    Parameters
    ----------
    features : ndarray, shape (n, p)
        One row for each scan, any unit.
    sites : sequence of n str
        Site of each scan; two sites at least, of two scans each at least.
    covariates : ndarray, shape (n, c), optional
        What shall be kept (age, sex as 0 and 1 ...), numbers.
    reference : str, optional
        Site that the others are brought to, itself unchanged; the mean of all by default.
    empirical_bayes : bool, optional
        Whether the features of a site share a prior; needs two features at least.

    Returns
    -------
    Combat

    Raises
    ------
    ValueError
        For unequal lengths, values that are not finite, one site, a site of one scan, a feature that is
        constant within a site, covariates that follow from the others or from the site, an unknown
        reference, or a single feature with a prior.

    Examples
    --------
    The deviation of the group divides by the number of scans, that of a site by one less, as in the
    public code: 1, 2, 3 have the variance 1 at a site, of which 2 / 3 are left.

    >>> features = np.array([[1.0], [2.0], [3.0], [11.0], [12.0], [13.0]])
    >>> sites = ['a', 'a', 'a', 'b', 'b', 'b']
    >>> model = fit_combat(features, sites, reference='a', empirical_bayes=False)
    >>> model.apply(features, sites).ravel().round(6).tolist()
    [1.0, 2.0, 3.0, 1.183503, 2.0, 2.816497]
    """
    features, sites, covariates = _checked(features, sites, covariates)
    names, site, counts = np.unique(sites, return_inverse=True, return_counts=True)
    _check_design(features, names, site, counts, reference)
    if empirical_bayes and features.shape[1] < 2:
        raise ValueError('a prior needs two features at least: set empirical_bayes=False')

    one_hot = np.eye(len(names))[site]
    design = np.hstack([one_hot, covariates])
    if (
        np.linalg.matrix_rank(design / np.linalg.norm(design, axis=0).clip(1e-300))
        < design.shape[1]
    ):
        raise ValueError(
            'a covariate is constant or follows from the others or from the site: leave it out'
        )
    fitted, *_ = np.linalg.lstsq(design, features, rcond=None)
    means, slopes = fitted[: len(names)], fitted[len(names) :]
    residual = features - design @ fitted
    if reference is None:
        mean, deviation = counts @ means / len(site), np.sqrt((residual**2).mean(axis=0))
    else:
        mean = means[names == reference][0]
        deviation = np.sqrt((residual[sites == reference] ** 2).mean(axis=0))
    if not np.all(deviation > 0):
        raise ValueError('covariates explain a feature without rest: leave some out')

    standard = (features - mean - covariates @ slopes) / deviation
    groups = [standard[site == index] for index in range(len(names))]
    shifts = np.stack([group.mean(axis=0) for group in groups])
    variances = np.stack([group.var(axis=0, ddof=1) for group in groups])
    if empirical_bayes:
        found = [_shrink(*of_site) for of_site in zip(shifts, variances, counts, strict=True)]
        shifts, variances = (np.stack(part) for part in zip(*found, strict=True))
    if reference is not None:
        shifts[names == reference], variances[names == reference] = 0, 1
    return Combat(tuple(names.tolist()), mean, deviation, slopes, shifts, np.sqrt(variances))


def _shrink(shift: np.ndarray, variance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Posterior shifts and variances of one site, Johnson 2007 section 3.2.

    Shifts have a normal prior and variances an inverse gamma prior, whose moments are those over the
    features. Written so that a prior without spread takes over in full.
    """
    center, spread = shift.mean(), shift.var(ddof=1)
    middle, width = variance.mean(), variance.var(ddof=1)
    old_shift, old_variance = shift, variance
    for _ in range(ITERATIONS):
        weight = count * spread
        new_shift = (weight * shift + old_variance * center) / (weight + old_variance)
        squares = (count - 1) * variance + count * (shift - new_shift) ** 2
        new_variance = (width * (squares / 2 + middle) + middle**3) / (
            width * (count / 2 + 1) + middle**2
        )
        change = max(np.abs(new_shift - old_shift).max(), np.abs(new_variance - old_variance).max())
        old_shift, old_variance = new_shift, new_variance
        if change < TOLERANCE:
            break
    return old_shift, old_variance


def _checked(features, sites, covariates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    features = np.asarray(features, np.float64)
    sites = np.asarray([str(site) for site in sites])
    if features.ndim != 2 or not features.size:
        raise ValueError(f'features are a table of scans and features, not {features.shape}')
    empty = covariates is None
    covariates = np.empty((len(features), 0)) if empty else np.asarray(covariates, np.float64)
    if covariates.ndim != 2 or not len(features) == len(sites) == len(covariates):
        raise ValueError(
            f'{len(features)} scans need as many sites and rows of covariates, '
            f'not {len(sites)} and {covariates.shape}'
        )
    if not (np.isfinite(features).all() and np.isfinite(covariates).all()):
        raise ValueError('features and covariates are finite: leave out scans that lack one')
    return features, sites, covariates


def _check_design(features, names, site, counts, reference) -> None:
    if len(names) < 2:
        raise ValueError(f'all scans are of one site, {names[0]}: there is nothing to compare')
    if counts.min() < 2:
        raise ValueError(f'site {names[counts.argmin()]} has one scan: two at least are needed')
    if reference is not None and reference not in names:
        raise ValueError(f'no scan is of the reference {reference}: sites are {", ".join(names)}')
    for index, name in enumerate(names):
        constant = np.flatnonzero(np.ptp(features[site == index], axis=0) == 0)
        if constant.size:
            raise ValueError(
                f'feature {constant[0]} is constant at site {name}: leave out the feature'
            )
