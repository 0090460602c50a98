"""Every two scanners beside each other: means over people, whatever the order of the sites."""

import pytest

from harmony_app.workflows.evaluation_matched import matched_rows
from harmony_app.workflows.evaluation_tables import MATCHED_COLUMNS


def pair(subject, site, other_site, before, after, kind='sites'):
    row = {'subject': subject, 'contrast': 'T1w', 'site': site, 'other_site': other_site}
    return row | {'kind': kind, 'ssim_before': before, 'ssim_after': after}


def scan(subject, site, area):
    row = {'subject': subject, 'contrast': 'T1w', 'site': site}
    return row | {'gm_wm_auroc_before': area, 'gm_wm_auroc_after': area + 0.1}


def volume(tissue, analysis='sites', sites=('A', 'B')):
    row = {'contrast': 'T1w', 'analysis': analysis, 'tissue': tissue}
    row |= {'site': sites[0], 'other_site': sites[1]} if analysis == 'sites' else {}
    for number, name in enumerate(('bias', 'rmsd')):
        row |= {f'{name}_before': 10.0 + number, f'{name}_after': 5.0 + number}
    return row


def test_people_are_averaged_first_and_sites_have_one_order():
    pairs = [
        pair('1', 'A', 'B', 0.6, 0.8),
        pair('1', 'B', 'A', 0.8, 1.0),
        pair('2', 'B', 'A', 0.5, 0.7),
        pair('2', 'A', 'A', 0.1, 0.1, 'rescan'),
        pair('2', 'A', 'C', 0.2, 0.3),
    ]
    scans = [scan('1', 'A', 0.7), scan('1', 'B', 0.9), scan('2', 'A', 0.6), scan('3', 'B', 0.1)]
    volumes = [volume('GM'), volume('WM'), volume('CSF'), volume('GM', 'longitudinal')]
    first, second = matched_rows(pairs, scans, volumes)
    assert (first['site'], first['other_site'], first['subjects']) == ('A', 'B', 2)
    assert first['ssim_before'] == pytest.approx((0.7 + 0.5) / 2)
    assert first['ssim_after'] == pytest.approx((0.9 + 0.7) / 2)
    # one who was at both sites weighs as much as one with a scan at one of them
    assert first['gm_wm_auroc_before'] == pytest.approx((0.8 + 0.6) / 2)
    assert (first['gm_bias_before'], first['wm_rmsd_after']) == (10.0, 6.0)
    assert (second['site'], second['other_site'], second['subjects']) == ('A', 'C', 1)
    assert second['ssim_after'] == 0.3
    assert 'gm_bias_before' not in second
    assert set(first) <= set(MATCHED_COLUMNS)
    assert not any(name.startswith('csf') for name in first)


def test_without_travelling_people_there_is_no_row():
    assert matched_rows([pair('1', 'A', 'A', 0.5, 0.5, 'rescan')], [], []) == []
