"""How much of the variance of volumes lies between people, and how much is noise.

The random-intercept model of HACA3. Its restricted likelihood depends on one number beside
what least squares solves, the intraclass correlation, so it is searched over that number's
whole range. General optimizers of mixed models start at one point, and with few subjects
stop at the wrong one, or at a border where they do not converge.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harmony_app.evaluation.tidy import volume_table

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_SUBJECTS = 3
"""Fewest subjects; with an age effect, fewer leave nothing to tell people apart by."""

GRID = 200
"""Steps of the first search over the intraclass correlation, evenly in its logit."""

LOGIT_BOUND = 18.0
"""Logits of the correlation searched: 1.5e-8 to all but 1.5e-8."""


@dataclass(frozen=True)
class Reliability:
    """Estimates of the random-intercept model of one structure.

    Parameters
    ----------
    icc : float
        Longitudinal intraclass correlation, 0 to 1: the share of the variance that lies
        between people.
    between_variance, residual_variance : float
        Variance between people and of the noise, squared unit of the volumes.
    slope : float or None
        Change with age, unit of the volumes a year; None where age was not modelled.
    subjects, sessions : int
        Numbers of people and of measurements.
    """

    icc: float
    between_variance: float
    residual_variance: float
    slope: float | None
    subjects: int
    sessions: int


def longitudinal_reliability(
    volumes: np.ndarray, subjects: np.ndarray, ages: np.ndarray | None = None
) -> Reliability:
    """Longitudinal intraclass correlation and residual variance of volumes.

    The linear mixed model is y = a0 + a1 * age + b + e, with a bias b of every subject and
    noise e of every session, both normal, and the correlation var(b) / (var(b) + var(e)).
    It is fitted by restricted maximum likelihood. Subjects may have any number of sessions.

    Parameters
    ----------
    volumes : array_like, shape (sessions,)
        Volume at every session. HACA3 takes the percentage of the total brain volume.
    subjects : array_like, shape (sessions,)
        Whose session it is.
    ages : array_like, shape (sessions,), optional
        Age at every session, years. Without it the model has no slope.

    Returns
    -------
    Reliability

    Raises
    ------
    ValueError
        For unequal lengths, numbers that are not finite, fewer than three subjects, too few
        repeated sessions, ages that are all equal, volumes without variance, repeated
        sessions without any, or a likelihood without a maximum.

    References
    ----------
    HACA3, section 3.2 and table 2. Restricted likelihood: Laird and Ware 1982, Biometrics 38:963.

    Examples
    --------
    Three people with means 1, 3 and 5, each measured 1 below and 1 above: the mean squares
    are 8 between and 2 within, so that the variances are 2 and (8 - 2) / 2.

    >>> result = longitudinal_reliability([0, 2, 2, 4, 4, 6], ['a', 'a', 'b', 'b', 'c', 'c'])
    >>> round(result.residual_variance, 4), round(result.between_variance, 4), round(result.icc, 4)
    (2.0, 3.0, 0.6)
    """
    volumes = np.asarray(volumes, dtype=np.float64).ravel()
    subjects = np.asarray(subjects).ravel()
    # scaled, so that one search fits all units and a slope is as large as an intercept
    covariates = [np.ones(volumes.size)]
    age_scale = 1.0
    if ages is not None:
        ages = np.asarray(ages, dtype=np.float64).ravel()
        if ages.size != volumes.size:
            raise ValueError(f'{volumes.size} volumes, {ages.size} ages: give as many of each')
        if not np.isfinite(ages).all():
            raise ValueError('some ages are not finite: leave those sessions out')
        if np.ptp(ages) == 0:
            raise ValueError('all ages are equal: fit the model without age')
        age_scale = float(ages.std())
        covariates.append((ages - ages.mean()) / age_scale)
    if not volumes.size == subjects.size > 0:
        raise ValueError(f'{volumes.size} volumes, {subjects.size} subjects: give as many of each')
    if not np.isfinite(volumes).all():
        raise ValueError('some volumes are not finite: leave those sessions out')
    people, group = np.unique(subjects, return_inverse=True)
    if people.size < MINIMUM_SUBJECTS:
        raise ValueError(f'subjects: {people.size} of at least {MINIMUM_SUBJECTS}; give more')
    if np.ptp(volumes) == 0:
        raise ValueError('all volumes are equal: there is no variance to divide')
    scale = float(volumes.std())
    model = _Model((volumes - volumes.mean()) / scale, np.stack(covariates, axis=1), group)
    model.check_repeats()
    icc = _most_likely(model)
    coefficients, residual = model.solve(icc)[:2]
    residual *= scale**2
    return Reliability(
        icc=icc,
        between_variance=residual * icc / (1 - icc),
        residual_variance=residual,
        slope=None if ages is None else float(coefficients[1]) * scale / age_scale,
        subjects=int(people.size),
        sessions=int(volumes.size),
    )


def reliability_table(volumes: 'pd.DataFrame', with_age: bool = True) -> 'pd.DataFrame':
    """Longitudinal reliability of every tissue of a table, as HACA3's table 2.

    Parameters
    ----------
    volumes : DataFrame
        Columns ``subject``, ``tissue``, ``volume`` and, with age, ``age`` (years); a row for
        every session and tissue.
    with_age : bool, optional
        Whether the model has a slope with age.

    Returns
    -------
    DataFrame
        A row for every tissue: ``tissue`` and the fields of :class:`Reliability`.

    Raises
    ------
    ValueError
        For a table that is empty or lacks columns or numbers, and as
        :func:`longitudinal_reliability`, with the name of the tissue.
    """
    from dataclasses import asdict

    import pandas as pd

    numbers = ('volume', 'age') if with_age else ('volume',)
    table = volume_table(volumes, ('subject', 'tissue'), numbers)
    rows = []
    for tissue, part in table.groupby('tissue', sort=False):
        try:
            result = longitudinal_reliability(
                part['volume'].to_numpy(),
                part['subject'].to_numpy(),
                part['age'].to_numpy() if with_age else None,
            )
        except ValueError as error:
            raise ValueError(f'{tissue}: {error}') from error
        rows.append({'tissue': tissue, **asdict(result)})
    return pd.DataFrame(rows)


class _Model:
    """Sums over people that the restricted likelihood is made of, computed once."""

    def __init__(self, values: np.ndarray, covariates: np.ndarray, group: np.ndarray):
        both = np.column_stack([covariates, values])
        self.counts = np.bincount(group).astype(np.float64)
        self.sums = np.stack([np.bincount(group, weights=column) for column in both.T], axis=1)
        self.products = both.T @ both
        self.within = both - (self.sums / self.counts[:, None])[group]
        self.freedom = values.size - covariates.shape[1]

    def check_repeats(self) -> None:
        """Raise ValueError where repeated sessions tell no residual variance."""
        slopes = self.within[:, 1:-1]
        rank = int(np.any(np.abs(slopes) > 1e-9))
        if self.within.shape[0] - self.counts.size - rank < 1:
            raise ValueError(
                'too few repeated sessions: give more subjects that were measured twice or more'
            )
        values = self.within[:, -1]
        if rank:
            values = values - slopes[:, 0] * (slopes[:, 0] @ values) / (slopes[:, 0] @ slopes[:, 0])
        if values @ values <= 1e-12 * values.size:
            raise ValueError('repeated sessions do not differ: there is no residual variance')

    def solve(self, icc: float) -> tuple[np.ndarray, float, float]:
        """Coefficients, residual variance and restricted log-likelihood at a correlation."""
        ratio = icc / (1 - icc)
        weights = ratio / (1 + self.counts * ratio)
        products = self.products - (self.sums * weights[:, None]).T @ self.sums
        matrix, vector = products[:-1, :-1], products[:-1, -1]
        coefficients = np.linalg.solve(matrix, vector)
        residual = float(products[-1, -1] - coefficients @ vector) / self.freedom
        determinants = np.log1p(self.counts * ratio).sum() + np.linalg.slogdet(matrix)[1]
        likelihood = -0.5 * (self.freedom * np.log(residual) + determinants)
        return coefficients, residual, float(likelihood)


def _most_likely(model: _Model) -> float:
    """Correlation of the highest restricted likelihood; 0 where none above 0 is likelier."""
    from scipy.optimize import minimize_scalar

    def loss(logit: float) -> float:
        return -model.solve(1 / (1 + np.exp(-logit)))[2]

    logits = np.linspace(-LOGIT_BOUND, LOGIT_BOUND, GRID + 1)
    losses = [loss(logit) for logit in logits]
    best = int(np.argmin(losses))
    if best == GRID or not np.isfinite(losses).all():
        raise ValueError(
            'the mixed model did not converge: the residual variance is too small to be told '
            'from none'
        )
    bounds = logits[max(best - 1, 0)], logits[best + 1]
    found = minimize_scalar(loss, bounds=bounds, method='bounded', options={'xatol': 1e-8})
    if not found.success:
        raise ValueError(f'the mixed model did not converge: {found.message}')
    # the far end of the logits stands for none; the border itself is a valid estimate
    if -model.solve(0.0)[2] <= found.fun + 1e-9:
        return 0.0
    return float(1 / (1 + np.exp(-found.x)))
