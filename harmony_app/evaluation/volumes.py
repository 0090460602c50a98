"""How much the volumes of tissues depend on the scanner, in travelling subjects."""

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from harmony_app.evaluation.tidy import volume_table

if TYPE_CHECKING:
    import pandas as pd

KEYS = ('subject', 'scanner', 'tissue')
"""Columns that say what a volume was measured of."""


def scanner_differences(
    volumes: 'pd.DataFrame | Mapping[tuple[str, str, str], float]',
) -> 'pd.DataFrame':
    """Bias and root-mean-square deviation of volumes between every two scanners.

    Parameters
    ----------
    volumes : DataFrame or mapping
        Columns ``subject``, ``scanner``, ``tissue`` and ``volume``, one row for each; or a
        mapping of (subject, scanner, tissue) to the volume. Volumes are in one unit.

    Returns
    -------
    DataFrame
        A row for every tissue and two scanners, in the order that they appear in, with
        ``tissue``, ``scanner``, ``other_scanner``, ``subjects`` (those measured at both) and,
        in the unit of the volumes: ``bias``, the mean absolute difference, and ``bias_sd``, its
        standard deviation over subjects (with n - 1); ``mean_difference``, of the first scanner
        less the second; and ``rmsd``, the root of the mean squared difference.

    Raises
    ------
    ValueError
        For an empty table, columns that are absent, volumes that are missing, measured twice
        or below 0, one scanner only, or two scanners that fewer than two subjects share.

    References
    ----------
    MISPEL, section 2.5 (volumetric bias and variance), table 2 and figure 9.

    Examples
    --------
    Differences of 3 and -1: a mean absolute difference of 2, a mean of 1, a mean square of 5.

    >>> table = scanner_differences(
    ...     {
    ...         ('01', 'A', 'GM'): 603.0,
    ...         ('01', 'B', 'GM'): 600.0,
    ...         ('02', 'A', 'GM'): 499.0,
    ...         ('02', 'B', 'GM'): 500.0,
    ...     }
    ... )
    >>> row = table.iloc[0]
    >>> [float(row[name]) for name in ('bias', 'mean_difference')], round(float(row.rmsd) ** 2, 6)
    ([2.0, 1.0], 5.0)
    """
    import pandas as pd

    table = _checked(volumes)
    rows = []
    for tissue, part in table.groupby('tissue', sort=False):
        wide = part.pivot(index='subject', columns='scanner', values='volume')
        scanners = list(dict.fromkeys(part['scanner']))
        if len(scanners) < 2:
            raise ValueError(f'{tissue} was measured at one scanner only: give two or more')
        for first, second in combinations(scanners, 2):
            difference = (wide[first] - wide[second]).dropna()
            if len(difference) < 2:
                raise ValueError(
                    f'scanners {first} and {second} share {len(difference)} subjects with {tissue}: '
                    'two or more are needed'
                )
            rows.append(
                {
                    'tissue': tissue,
                    'scanner': first,
                    'other_scanner': second,
                    'subjects': len(difference),
                    'bias': difference.abs().mean(),
                    'bias_sd': difference.abs().std(ddof=1),
                    'mean_difference': difference.mean(),
                    'rmsd': (difference**2).mean() ** 0.5,
                }
            )
    return pd.DataFrame(rows)


def coefficient_of_variation(
    volumes: 'pd.DataFrame | Mapping[tuple[str, str, str], float]',
) -> 'pd.DataFrame':
    """Spread of the volumes of a subject over the scanners, in percent of their mean.

    Parameters
    ----------
    volumes : DataFrame or mapping
        As :func:`scanner_differences` takes them.

    Returns
    -------
    DataFrame
        A row for every tissue and subject: ``tissue``, ``subject``, ``scanners`` (their
        number), ``mean`` (unit of the volumes), and ``variation``, the standard deviation
        (with n - 1) over the mean, percent.

    Raises
    ------
    ValueError
        For an empty table, columns that are absent, volumes that are missing, measured twice
        or below 0, a subject measured at one scanner only, or volumes that are all 0.

    Examples
    --------
    >>> table = coefficient_of_variation(
    ...     {('01', 'A', 'GM'): 90.0, ('01', 'B', 'GM'): 100.0, ('01', 'C', 'GM'): 110.0}
    ... )
    >>> float(table.variation[0])
    10.0
    """
    table = _checked(volumes)
    groups = table.groupby(['tissue', 'subject'], sort=False)['volume']
    result = groups.agg(scanners='count', mean='mean', spread='std').reset_index()
    lonely = result[result['scanners'] < 2]
    if len(lonely):
        row = lonely.iloc[0]
        raise ValueError(
            f'subject {row.subject} has {row.tissue} of one scanner only: leave it out'
        )
    if (result['mean'] == 0).any():
        row = result[result['mean'] == 0].iloc[0]
        raise ValueError(
            f'all {row.tissue} volumes of subject {row.subject} are 0: it has no coefficient'
        )
    result['variation'] = 100 * result.pop('spread') / result['mean']
    return result


def _checked(volumes) -> 'pd.DataFrame':
    table = volume_table(volumes, KEYS, ('volume',))
    twice = table[table.duplicated(list(KEYS))]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f'{row.tissue} of subject {row.subject} was measured twice at scanner {row.scanner}: '
            'keep one'
        )
    if (table['volume'] < 0).any():
        raise ValueError('a volume is below 0: check the table')
    return table
