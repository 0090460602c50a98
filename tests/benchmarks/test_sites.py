"""Volumes between sites and sites told apart, where the study allows it and where not."""

import numpy as np
import pandas as pd

from benchmarks.sites import classify, same_features, site_jobs, volume_table
from harmony_app.imaging.profile import TISSUES


def scans(people, sites=('a', 'b'), shift=20.0):
    generator = np.random.default_rng(1)
    rows = []
    for person in range(people):
        brain = generator.normal(600, 40, 3)
        for site in sites:
            for method in ('before', 'nyul'):
                offset = shift * (site == 'b') * (method == 'before')
                values = brain + generator.normal(0, 2, 3) + [offset, 0, -offset]
                row = {'contrast': 'T1w', 'method': method, 'subject': str(person), 'session': site}
                row |= {f'ml_{t}': v for t, v in zip(TISSUES, values, strict=True)}
                row |= {f'true_ml_{t}': v for t, v in zip(TISSUES, brain, strict=True)}
                rows.append(row)
    return pd.DataFrame(rows)


def test_volumes_say_what_the_site_adds_and_what_combat_takes_away():
    notes = []
    table = volume_table(scans(4), notes).set_index(['method', 'tissue'])
    assert notes == []
    assert set(table.index.get_level_values('method')) == {'before', 'nyul', 'combat', 'truth'}
    assert table.loc[('before', 'GM'), 'bias'] > 15
    for method in ('nyul', 'truth'):
        assert table.loc[(method, 'GM'), 'bias'] < 8
    # its prior shares the shift among tissues
    assert table.loc[('combat', 'GM'), 'bias'] < table.loc[('before', 'GM'), 'bias'] - 3
    assert table.loc[('nyul', 'GM'), 'icc'] > table.loc[('before', 'GM'), 'icc']


def test_what_a_small_study_does_not_allow_is_told_once():
    notes = []
    table = volume_table(scans(2), notes)
    assert 'icc' not in table
    assert table.bias.notna().all()
    assert len(set(notes)) == 1
    assert 'reliability' in notes[0]


def test_two_people_are_no_site_to_tell():
    found = scans(2).assign(feature=1.0, theta_1=1.0)
    answer = classify(found, ('T1w', 'radiomic', 'before'), 0, 0)
    assert 'row' not in answer
    assert 'three' in answer['note'] or '3 people' in answer['note']


def test_methods_with_equal_features_are_told_apart_once():
    found = scans(4)[['contrast', 'method', 'subject', 'session']].assign(brain_mean=1.0)
    generator = np.random.default_rng(0)
    found['theta_1'] = generator.normal(size=len(found))
    assert site_jobs(found) == [
        ('T1w', 'radiomic', 'before'),
        ('T1w', 'theta', 'before'),
        ('T1w', 'theta', 'nyul'),
    ]
    assert same_features(found, 'T1w', 'radiomic') == {'before': 'before', 'nyul': 'before'}
