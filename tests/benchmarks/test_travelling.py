"""All tables of a study, from scans that need no preprocessing."""

import json
from dataclasses import replace

import pytest

from benchmarks import travelling
from benchmarks.compared import METHODS, ready_methods
from harmony_app.bids.locks import BusyError, only_one
from harmony_app.errors import OptionError

COST = {'row': {'contrast': 'T1w', 'method': 'none', 'parameters': 0, 'wall_s': 0.5}}


@pytest.fixture
def tables(study, monkeypatch):
    """Function that makes all tables and gives their bytes."""
    monkeypatch.setattr(travelling, 'method_cost', lambda setup, unit: COST)

    def make(folder='parts', **changes):
        setup, place = study(folder=folder)
        setup = replace(setup, **changes)
        out = setup.parts.parent
        travelling._tables(out, setup, place.data, 0, 0, 0)
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    return make


def test_a_run_that_goes_on_gives_the_same_bytes(tables, tmp_path):
    first = tables()
    parts = tmp_path / 'parts'
    lost = [*parts.glob('session_2_*.json'), *parts.glob('session_sub-2_*.npz')]
    assert len(lost) == 6
    for path in lost:
        path.unlink()
    assert first == tables()


def test_every_table_has_its_dictionary_and_its_place_in_the_report(tables):
    found = tables()
    for name in ('rows', 'site_rows', 'scans', 'features', 'table', 'volumes', 'sites', 'cost'):
        columns = found[f'{name}.tsv'].decode().splitlines()[0].split('\t')
        assert columns == list(json.loads(found[f'{name}.json']))
        assert b'\tnan' not in found[f'{name}.tsv'].lower()
    report = found['report.md'].decode()
    for title in ('RMSE', 'Segmentation: Dice', 'Volumes between sites', 'Cost', 'Left out'):
        assert f'## {title}\n' in report
    assert 'nan' not in report
    assert found['T1w.png'].startswith(b'\x89PNG')


def test_pairs_alone_are_the_same_pairs_and_nothing_else(tables):
    whole, pairs = tables(), tables('alone', pairs_only=True)
    assert pairs['rows.tsv'] == whole['rows.tsv']
    for name in ('site_rows', 'scans', 'volumes', 'sites', 'cost'):
        assert len(pairs[f'{name}.tsv'].splitlines()) <= 1 < len(whole[f'{name}.tsv'].splitlines())
    report = pairs['report.md'].decode()
    assert '## RMSE\n' in report
    assert '## Cost\n' not in report
    assert 'Only the first part was measured.' in report


@pytest.mark.parametrize(
    ('given', 'told'), [(['--methods', 'magic'], 'magic'), (['--segment', 'bold'], 'bold')]
)
def test_what_is_not_known_is_refused(tmp_path, given, told):
    options = travelling._parser().parse_args([str(tmp_path), *given])
    with pytest.raises(OptionError, match=told):
        travelling.compare(options)


def test_all_methods_are_compared_by_default():
    options = travelling._parser().parse_args(['out'])
    assert tuple(options.methods) == ready_methods()
    assert set(ready_methods()) <= set(METHODS)
    assert {'none', 'haca3-decoder', 'ravel'} <= set(ready_methods())


def test_two_runs_do_not_work_in_one_folder(tmp_path):
    options = travelling._parser().parse_args([str(tmp_path / 'out')])
    options.out.mkdir()
    told = pytest.raises(BusyError, match='another benchmark works in')
    with only_one(options.out / 'running.lock'), told:
        travelling.compare(options)
    assert not (options.out / 'bids').exists()
