"""Bias, deviation and spread of volumes between scanners, by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.evaluation.volumes import coefficient_of_variation, scanner_differences

VOLUMES = {'GE': [600.0, 500.0, 550.0], 'Philips': [610.0, 520.0, 530.0], 'Prisma': [1, 2, 6]}


@pytest.fixture
def table():
    rows = [
        (f'0{i}', scanner, tissue, factor * volume)
        for tissue, factor in (('GM', 1), ('WM', 2))
        for scanner, volumes in VOLUMES.items()
        for i, volume in enumerate(volumes)
    ]
    return pd.DataFrame(rows, columns=['subject', 'scanner', 'tissue', 'volume'])


def test_differences_of_every_two_scanners(table):
    result = scanner_differences(table)
    assert list(zip(result.tissue, result.scanner, result.other_scanner, strict=True)) == [
        (tissue, *pair)
        for tissue in ('GM', 'WM')
        for pair in (('GE', 'Philips'), ('GE', 'Prisma'), ('Philips', 'Prisma'))
    ]
    for row in result.itertuples():
        factor = {'GM': 1, 'WM': 2}[row.tissue]
        difference = factor * np.subtract(VOLUMES[row.scanner], VOLUMES[row.other_scanner])
        assert row.subjects == 3
        assert row.bias == pytest.approx(np.abs(difference).mean())
        assert row.bias_sd == pytest.approx(np.abs(difference).std(ddof=1))
        assert row.mean_difference == pytest.approx(difference.mean())
        assert row.rmsd == pytest.approx(np.sqrt(np.mean(difference**2)))


def test_numbers_by_hand(table):
    """Differences of -10, -20 and 20."""
    row = scanner_differences(table).iloc[0]
    assert row.bias == pytest.approx(50 / 3)
    assert row.bias_sd == pytest.approx(np.sqrt(100 / 3))
    assert row.mean_difference == pytest.approx(-10 / 3)
    assert row.rmsd == pytest.approx(np.sqrt(300))


@given(st.integers(0, 1000))
def test_bias_mean_and_deviation_know_each_other(seed):
    volumes = np.random.default_rng(seed).normal(500, 50, (2, 5)).round(1)
    mapping = {(i, s, 'GM'): volumes[s, i] for s in range(2) for i in range(5)}
    row = scanner_differences(mapping).iloc[0]
    assert abs(row.mean_difference) <= row.bias + 1e-9
    assert row.rmsd**2 == pytest.approx(row.bias**2 + row.bias_sd**2 * 4 / 5)


def test_a_mapping_is_the_same_as_a_table(table):
    mapping = {tuple(row[:3]): row[3] for row in table.itertuples(index=False)}
    pd.testing.assert_frame_equal(scanner_differences(mapping), scanner_differences(table))
    assert len(coefficient_of_variation(mapping)) == 6


def test_only_subjects_of_both_scanners_count(table):
    table = table[(table.tissue == 'GM') & (table.scanner != 'Prisma')]
    row = scanner_differences(table.drop(index=0)).iloc[0]
    assert row.subjects == 2
    assert row.bias == pytest.approx(20)


def test_order_of_the_rows_does_not_count(table):
    shuffled = table.sample(frac=1, random_state=4)
    keys = ['tissue', 'subject']
    pd.testing.assert_frame_equal(
        coefficient_of_variation(shuffled).sort_values(keys, ignore_index=True),
        coefficient_of_variation(table).sort_values(keys, ignore_index=True),
    )


def test_coefficient_of_variation(table):
    result = coefficient_of_variation(table)
    for row in result.itertuples():
        values = [volumes[int(row.subject)] for volumes in VOLUMES.values()]
        assert row.scanners == 3
        # a scale does not matter
        assert row.variation == pytest.approx(100 * np.std(values, ddof=1) / np.mean(values))


def test_wrong_tables_are_told(table):
    for measure in (scanner_differences, coefficient_of_variation):
        with pytest.raises(ValueError, match='no column scanner'):
            measure(table.drop(columns='scanner'))
        with pytest.raises(ValueError, match='is empty'):
            measure(table[:0])
        with pytest.raises(ValueError, match='GM of subject 00 was measured twice at scanner GE'):
            measure(pd.concat([table, table[:1]]))
        with pytest.raises(ValueError, match='not finite'):
            measure(table.assign(volume=np.nan))
        with pytest.raises(ValueError, match='no number'):
            measure(table.assign(volume='large'))
        with pytest.raises(ValueError, match='below 0'):
            measure(table.assign(volume=-1.0))
        with pytest.raises(ValueError, match='does not say'):
            measure(table.assign(subject=None))
        with pytest.raises(ValueError, match='one number to each'):
            measure({('01', 'GM'): 3.0})
        with pytest.raises(ValueError, match='one scanner only'):
            measure(table[table.scanner == 'GE'])


def test_too_few_shared_subjects_are_told(table):
    alone = table[(table.subject == '00') | (table.scanner == 'GE')]
    with pytest.raises(ValueError, match='GE and Philips share 1 subjects'):
        scanner_differences(alone)
    with pytest.raises(ValueError, match='are 0'):
        coefficient_of_variation(table.assign(volume=0.0))
