"""Rows of scores to tables for docs/."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harmony_app.evaluation.statistics import bootstrap_interval, paired_wilcoxon
from harmony_app.evaluation.travelling import gap_closed

KEYS = ['contrast', 'grid', 'metric', 'method']


def summarize(rows: pd.DataFrame, falling: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """Means over pairs, with the share of the gap closed and what chance says.

    Parameters
    ----------
    rows : DataFrame
        One row for each method, pair, grid and metric: ``before``, ``after``, ``ceiling``.
    falling : sequence of str
        Metrics that are better where they are smaller.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        By contrast, grid, metric and method: the three means; ``gap_closed`` of the means;
        ``low`` and ``high``, the 95 % interval of the mean change for the better; ``p`` of
        Wilcoxon's signed-rank test (both absent where there is one pair); ``pairs``, and the
        share that became better.
    """
    table = []
    for key, group in rows.groupby(KEYS, sort=False):
        sign = -1.0 if key[KEYS.index('metric')] in falling else 1.0
        before, after, ceiling = (group[name].mean() for name in ('before', 'after', 'ceiling'))
        here, there = sign * group.before.to_numpy(), sign * group.after.to_numpy()
        several = len(group) > 1
        interval = bootstrap_interval(here, there, seed) if several else None
        table.append(
            dict(zip(KEYS, key, strict=True))
            | {
                'before': before,
                'after': after,
                'ceiling': ceiling,
                'gap_closed': gap_closed(before, after, ceiling),
                'low': interval.low if interval else None,
                'high': interval.high if interval else None,
                'p': paired_wilcoxon(here, there).p_value if several else None,
                'pairs': len(group),
                'better': float(np.mean(there > here)),
            }
        )
    return pd.DataFrame(table)


def to_markdown(table: pd.DataFrame) -> str:
    """A table for docs/."""
    columns = list(table.columns)
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
    for row in table.itertuples(index=False):
        lines.append('| ' + ' | '.join(_cell(value) for value in row) + ' |')
    return '\n'.join(lines)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return 'n/a'
    if isinstance(value, float):
        return f'{value:.1e}' if 0 < abs(value) < 1e-3 else f'{value:.3f}'
    return str(value)
