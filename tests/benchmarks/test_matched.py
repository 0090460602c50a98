"""What is counted of scanners, and which slice of them is shown."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import matched
from harmony_app.imaging.volume import Volume


def scan_row(subject, site, before, after):
    row = {'contrast': 'T1w', 'subject': subject, 'site': site}
    row |= {'gm_wm_auroc_before': 0.9, 'gm_wm_auroc_after': 0.95}
    for stage, volume in (('before', before), ('after', after)):
        row |= {f'gm_ml_{stage}': volume, f'wm_ml_{stage}': 500.0}
    return row


def test_bias_of_two_scanners_is_that_of_their_people():
    scans = [
        scan_row('1', 'a', 600, 610),
        scan_row('1', 'b', 640, 612),
        scan_row('2', 'a', 620, 618),
        scan_row('2', 'b', 640, 622),
    ]
    grey, white = matched.volume_rows(scans)
    assert (grey['tissue'], grey['site'], grey['other_site']) == ('GM', 'a', 'b')
    assert abs(grey['bias_before']) == pytest.approx(30)
    assert abs(grey['bias_after']) == pytest.approx(3)
    assert white['rmsd_before'] == white['rmsd_after'] == 0


def test_only_what_became_better_is_counted():
    row = {'ssim_before': 0.8, 'ssim_after': 0.9}
    for tissue, after in (('gm', 5.0), ('wm', 15.0)):
        for name in ('dice', 'bias', 'rmsd'):
            row |= {f'{tissue}_{name}_before': 10.0, f'{tissue}_{name}_after': after}
    worse = row | {'ssim_after': 0.8}
    told = matched.counts(pd.DataFrame([row, worse]), [scan_row('1', 'a', 1, 1)])
    assert told[0].startswith('SSIM higher in 1 of 2')
    assert told[1].startswith('dice higher in 2 of 4')
    assert told[2].startswith('bias lower in 2 of 4')
    assert told[-1].endswith('0.9000 before, 0.9500 after')


def test_the_same_slice_is_shown_before_and_after(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(matched, 'mosaic', lambda path, rows, titles, **o: drawn.update(o))
    brain = np.zeros((6, 6, 6), bool)
    brain[2:5, 2:5, 1:4] = True
    volume = Volume(brain.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    scan = SimpleNamespace(site='a', brain=brain, working=volume)
    images = {stage: [volume.data] for stage in matched.STAGES}
    matched._draw(tmp_path / 'picture.png', [scan], images)
    assert drawn['position'] == pytest.approx([6, 6, 4])
