"""Units of work: once, in order, and anew when what makes them changes."""

import json
from functools import partial

import numpy as np
import pandas as pd

from benchmarks.columns import read_rows
from benchmarks.parts import open_parts, run_parts
from benchmarks.sites import site_jobs
from benchmarks.travelling import classify_file

UNITS = [('2', 'x'), ('1', 'y')]


def test_a_unit_is_worked_on_once_and_results_keep_the_order(tmp_path):
    done = []

    def work(unit):
        if len(done) == 1 and unit == UNITS[1]:
            done.append('stopped')
            raise KeyboardInterrupt
        done.append(unit)
        return {'told': '-'.join(unit)}

    folder = open_parts(tmp_path / 'parts', {'seed': 1})
    try:
        list(run_parts(folder, 'a', UNITS, work, 0))
    except KeyboardInterrupt:
        pass
    assert [r['told'] for r in run_parts(folder, 'a', UNITS, work, 0)] == ['2-x', '1-y']
    assert done == [UNITS[0], 'stopped', UNITS[1]]


def test_parts_of_another_stamp_are_thrown_away(tmp_path):
    stamp = {'methods': ('none',), 'seed': 1}
    folder = open_parts(tmp_path / 'parts', stamp)
    (folder / 'a.json').write_text('{}')
    assert (open_parts(folder, stamp) / 'a.json').exists()
    assert not (open_parts(folder, stamp | {'seed': 2}) / 'a.json').exists()
    assert json.loads((folder / 'stamp.json').read_text())['seed'] == 2


def test_processes_give_what_one_gives(tmp_path):
    generator = np.random.default_rng(0)
    rows = [
        {
            'contrast': 'T1w',
            'method': method,
            'subject': str(person),
            'session': site,
            'brain_mean': generator.normal() + (site == 'a') * (method == 'before'),
            'theta_1': generator.normal(),
        }
        for method in ('before', 'other')
        for person in range(4)
        for site in 'ab'
    ]
    path = tmp_path / 'features.tsv'
    pd.DataFrame(rows).to_csv(path, sep='\t', index=False)
    jobs = site_jobs(read_rows(path))

    def tell(workers):
        folder = open_parts(tmp_path / str(workers), {})
        return list(run_parts(folder, 'sites', jobs, partial(classify_file, path, 0, 0), workers))

    alone = tell(0)
    assert len(alone) == 4
    assert alone == tell(2)
