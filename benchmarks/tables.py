"""Rows of scores to tables: means before and after, the ceiling, the limit, and what chance says."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harmony_app.evaluation.statistics import bootstrap_interval, holm, paired_wilcoxon
from harmony_app.evaluation.travelling import gap_closed

KEYS = ['contrast', 'grid', 'metric', 'method']


def summarize(rows: pd.DataFrame, falling: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """Means over pairs, with the share of the gap closed and what chance says.

    Parameters
    ----------
    rows : DataFrame
        One row for each method, pair, grid and metric: ``before``, ``after``, ``ceiling``,
        ``limit``; the last two may be absent in some rows, or altogether.
    falling : sequence of str
        Metrics that are better where they are smaller.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        By contrast, grid, metric and method: the four means; ``gap_closed`` of the means of the
        pairs that have a ceiling, absent where it is no better than before; ``low`` and
        ``high``, the 95 % interval of the mean change for the better; ``p`` of Wilcoxon's
        signed-rank test (all absent where there is one pair); ``p_holm``, corrected for the
        tests of the table but those of ``none``; ``pairs``, and the share that became better.
    """
    rows = rows.reindex(columns=[*dict.fromkeys([*rows.columns, 'ceiling', 'limit'])])
    table = []
    for key, group in rows.groupby(KEYS, sort=False):
        sign = -1.0 if key[KEYS.index('metric')] in falling else 1.0
        here, there = sign * group.before.to_numpy(), sign * group.after.to_numpy()
        several = len(group) > 1
        interval = bootstrap_interval(here, there, seed) if several else None
        table.append(
            dict(zip(KEYS, key, strict=True))
            | {name: _mean(group[name]) for name in ('before', 'after', 'ceiling', 'limit')}
            | {
                'gap_closed': _gap(group, sign),
                'low': interval.low if interval else None,
                'high': interval.high if interval else None,
                'p': paired_wilcoxon(here, there).p_value if several else None,
                'p_holm': None,
                'pairs': len(group),
                'better': float(np.mean(there > here)),
            }
        )
    tested = [row for row in table if row['p'] is not None and row['method'] != 'none']
    if tested:
        for row, p_value in zip(tested, holm([row['p'] for row in tested]), strict=True):
            row['p_holm'] = float(p_value)
    return pd.DataFrame(table).astype({'p_holm': float} if table else {})


def to_markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """A table for docs/ and reports."""
    columns = list(table.columns)
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
    for row in table.itertuples(index=False):
        lines.append('| ' + ' | '.join(_cell(value, digits) for value in row) + ' |')
    return '\n'.join(lines)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A summary as it is read: the interval in one cell, pairs that became better as a number.

    Columns that say the same in all rows, or nothing, are left out.
    """
    shown = table[['contrast']].copy()
    for key in ('grid', 'metric'):
        if table[key].nunique() > 1:
            shown[key] = table[key]
    shown['method'] = table.method
    for name in ('before', 'after', 'ceiling', 'limit'):
        if table[name].notna().any():
            shown[name] = table[name]
    if table.ceiling.notna().any():
        shown['gap closed'] = [
            _percent(gap, ceiling)
            for gap, ceiling in zip(table.gap_closed, table.ceiling, strict=True)
        ]
    shown['change for the better (95 %)'] = [
        'n/a' if pd.isna(low) else f'{_cell(low, 3)} to {_cell(high, 3)}'
        for low, high in zip(table.low, table.high, strict=True)
    ]
    shown['p (Holm)'] = ['n/a' if pd.isna(p) else f'{p:.2g}' for p in table.p_holm]
    shown['better in'] = [
        f'{round(share * pairs)} of {pairs}'
        for share, pairs in zip(table.better, table.pairs, strict=True)
    ]
    return shown


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if values.notna().any() else None


def _gap(group: pd.DataFrame, sign: float) -> float | None:
    """Share of the gap closed; None without a ceiling, or with one that is no better."""
    known = group[group.ceiling.notna()]
    before, after, ceiling = (known[name].mean() for name in ('before', 'after', 'ceiling'))
    if known.empty or sign * (ceiling - before) <= 0:
        return None
    return gap_closed(before, after, ceiling)


def _percent(gap: float | None, ceiling: float | None) -> str:
    if gap is None or np.isnan(gap):
        return 'n/a' if ceiling is None or np.isnan(ceiling) else 'no gap'
    return 'below' if gap < 0 else f'{100 * gap + 0:.0f} %'


def _cell(value: object, digits: int) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return 'n/a'
    if isinstance(value, float):
        return f'{value:.1e}' if 0 < abs(value) < 10.0**-digits else f'{value:.{digits}f}'
    return str(value)
