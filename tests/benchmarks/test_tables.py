"""Means, ceilings, limits and what chance says."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.tables import readable, summarize, to_markdown

KEY = {'contrast': 'T1w', 'grid': 'mni', 'metric': 'ssim'}


def rows(method, changes, **more):
    return [KEY | {'method': method, 'before': 0.5, 'after': 0.5 + c} | more for c in changes]


def test_a_table_of_one_pair_has_no_statistics():
    table = summarize(pd.DataFrame(rows('nyul', [0.25], ceiling=1.0)))
    assert table.gap_closed[0] == 0.5
    assert table.p_holm.isna().all()
    for text in (to_markdown(table), to_markdown(readable(table))):
        assert 'n/a' in text
        assert 'nan' not in text


def test_what_has_no_ceiling_has_no_gap():
    table = summarize(pd.DataFrame(rows('nyul', [0.1, 0.2])))
    assert table.gap_closed.isna().all()
    assert list(readable(table).columns)[:4] == ['contrast', 'method', 'before', 'after']


def test_the_gap_is_that_of_the_pairs_with_a_ceiling():
    found = rows('nyul', [0.1], ceiling=0.6) + rows('nyul', [-0.3])
    table = summarize(pd.DataFrame(found))
    assert table.gap_closed[0] == pytest.approx(1)
    assert table.after[0] == pytest.approx(0.4)


def test_a_ceiling_that_is_no_better_leaves_no_gap():
    found = pd.DataFrame(rows('nyul', [-0.1, -0.2], ceiling=0.4))
    assert summarize(found).gap_closed.isna().all()
    assert 'no gap' in to_markdown(readable(summarize(found)))
    # the same numbers as an error
    assert summarize(found, ('ssim',)).gap_closed[0] == pytest.approx(1.5)


def test_p_values_are_corrected_for_the_methods_but_none():
    changes = np.linspace(0.01, 0.02, 6)
    found = [
        r for m in ('none', 'a', 'b') for r in rows(m, 0 * changes if m == 'none' else changes)
    ]
    table = summarize(pd.DataFrame(found)).set_index('method')
    assert np.isnan(table.p_holm['none'])
    assert table.p_holm['a'] == pytest.approx(2 * table.p['a'])


def test_a_metric_that_falls_is_better_below():
    table = summarize(pd.DataFrame(rows('a', [-0.1, -0.2])), ('ssim',))
    assert table.better[0] == 1
    assert table.low[0] > 0
