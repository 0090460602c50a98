"""A session under every method, on scans that need no preprocessing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import compared, gathering, sessions
from benchmarks.compared import Remembering
from benchmarks.report import PAIRS, SITE, answer
from benchmarks.tables import summarize
from harmony_app.errors import ScanError
from harmony_app.imaging.profile import TISSUES
from harmony_app.methods.classical.unchanged import Unchanged
from harmony_app.workflows.records import Record


def measured(setup, place):
    return [sessions.measure_session(setup, unit) for unit in place.units]


def rows_of(parts):
    return pd.DataFrame(gathering.pair_rows(parts, ['T1w']))


def test_every_pair_is_scored_by_every_method_on_both_grids(study):
    rows = rows_of(measured(*study()))
    scored = rows[rows.metric == 'rmse']
    assert len(scored) == 3 * 6 * 2 * 2
    assert not rows.duplicated(['method', 'subject', 'source', 'target', 'grid', 'metric']).any()
    assert (scored.ceiling == 0).all()
    assert np.allclose(scored.limit, 0.01, atol=1e-6)


def test_none_repeats_the_scores_before_and_a_method_that_works_reaches_the_ceiling(study):
    rows = rows_of(measured(*study()))
    unchanged = rows[rows.method == 'none']
    assert (unchanged.after == unchanged.before).all()
    table = summarize(rows[rows.metric == 'rmse'], ('rmse',)).set_index(['method', 'grid'])
    assert table.loc[('none', 'mni'), 'gap_closed'] == 0
    assert table.loc[('none', 'mni'), 'p'] == 1
    assert table.loc[('nyul', 'mni'), 'gap_closed'] > 0.95
    assert table.loc[('nyul', 'mni'), 'better'] == 1
    assert table.loc[('nyul', 'mni'), 'low'] > 0
    assert table.loc[('nyul', 'mni'), 'p_holm'] < 0.01


def test_every_scan_is_brought_to_the_reference_site_once(study):
    parts = measured(*study(pairs='next'))
    scans = pd.DataFrame(gathering.scan_rows(parts, ['T1w']))
    assert len(scans) == 9 * 3
    assert not scans.duplicated(['method', 'subject', 'session']).any()
    for _, part in scans.groupby(['subject', 'session']):
        values = part.set_index('method')['values']
        unchanged = {k: v for k, v in values['before'].items() if not k.startswith('true')}
        assert values['none'] == unchanged


def test_the_style_is_that_of_other_people(study, monkeypatch):
    setup, place = study()
    loaded = []
    load = place.data.load
    monkeypatch.setattr(place.data, 'load', lambda s: loaded.append(s) or load(s))
    place.compared.target_scans('T1w', '2', 'b')
    assert {(s.subject, s.session) for s in loaded} == {('1', 'b'), ('3', 'b')}


def test_a_method_that_fails_on_a_scan_costs_that_pair_only(study, monkeypatch):
    setup, place = study(pairs='next')
    nyul = place.compared.methods['nyul']
    work = nyul.harmonize

    def harmonize(session, target):
        if session[0].name == '1a' and target.name == 'b':
            raise ScanError('this scan is not liked')
        return work(session, target)

    monkeypatch.setattr(nyul, 'harmonize', harmonize)
    parts = measured(setup, place)
    rows = rows_of(parts)
    rows = rows[(rows.metric == 'rmse') & (rows.grid == 'mni')]
    assert dict(rows.method.value_counts()) == {'none': 9, 'nyul': 8}
    notes = [note for part in parts for note in part['notes']]
    assert notes == ['1a to b by nyul: left out, this scan is not liked']


def test_a_group_that_is_too_small_is_told_and_left_out(study, monkeypatch):
    setup, place = study(methods=('none', 'ravel'))
    parts = measured(setup, place)
    assert set(rows_of(parts).method) == {'none'}
    assert any('ravel' in note for part in parts for note in part['notes'])


def test_distances_between_sites_shrink(study):
    setup, place = study()
    measured(setup, place)
    quantiles = {}
    for unit in place.units:
        record = Record(sessions.arrays_path(setup.parts, unit))
        for name in record.facts['arrays']:
            kind, *key = name.split('/')
            if kind == 'quantiles':
                quantiles[(*key, *unit)] = record.array(name)
    rows = pd.DataFrame(gathering.distance_rows(quantiles, ['none', 'nyul'], 'a'))
    assert len(rows) == 2 * 3 * 3
    none, nyul = (rows[rows.method == name] for name in ('none', 'nyul'))
    assert (none.before == none.after).all()
    # levels 1, 2 and 4 are 1, 2 and 3 apart: 2 on average, of a ramp whose mean is 0.6
    assert none.before.iloc[0] == pytest.approx(2 * 0.6 * 1.01, rel=1e-5)
    assert (nyul.after < 0.05 * nyul.before).all()


def test_rows_at_the_site_answer_their_questions(study):
    setup, place = study()
    scans = gathering.scan_rows(measured(setup, place), ['T1w'])
    rows = pd.DataFrame(gathering.site_rows(scans, setup.methods, 'a'))
    dice = rows[rows.metric == 'dice_GM']
    assert set(dice.source) == {'b', 'c'}
    table = answer(rows, SITE, 0)
    assert {'Segmentation: Dice', 'Volumes over sites'} <= set(table.question)
    own = table[table.question == 'Segmentation: Dice']
    assert list(zip(own.metric, own.method, strict=True)) == [
        (f'dice_{tissue}', method) for tissue in TISSUES for method in ('none', 'nyul')
    ]
    cv = table[(table.metric == 'volume_cv_GM') & (table.method == 'nyul')].iloc[0]
    assert cv.after < 0.05 * cv.before
    assert answer(rows, PAIRS, 0).empty


def test_pictures_are_kept_of_the_first_sessions(study):
    setup, place = study()
    measured(setup, place)
    shown = [
        {
            name.split('/')[-1]
            for name in Record(sessions.arrays_path(setup.parts, unit)).facts['arrays']
            if name.startswith('picture')
        }
        for unit in place.units
    ]
    assert shown[0] == {'before', 'none', 'nyul', 'truth', 'limit'}
    assert [bool(names) for names in shown] == [True, True] + [False] * 7


def test_the_last_stage_of_haca3_is_not_computed_twice(study):
    _, place = study()
    scan = place.data.load(place.data.inputs[0])
    style = replace(Unchanged().encode_target([scan], 'a'), scans=3)
    calls = []

    class Method(Unchanged):
        def harmonize(self, session, target):
            calls.append(target)
            return super().harmonize(session, target)

    shared = Remembering(Method())
    first = shared.harmonize([scan], style)
    assert shared.harmonize([scan], replace(style, theta=(1.0,))) is first
    assert len(calls) == 1
    shared.harmonize([scan], replace(style, scans=2))
    assert len(calls) == 1
    shared.harmonize([scan], replace(style, scans=1))
    shared.harmonize([replace(scan)], replace(style, scans=1))
    assert len(calls) == 3


def test_the_median_row_is_calamiti_without_its_networks(monkeypatch):
    asked = []
    monkeypatch.setattr(
        compared, 'get_method', lambda *args, **options: asked.append((args, options))
    )
    compared.make_method('calamiti-median', {'calamiti': 'model'})
    compared.make_method('calamiti-decoder', {'calamiti': 'model'})
    assert asked == [
        (('calamiti', Path('model')), {'detail': 'decoder', 'fusion': 'median'}),
        (('calamiti', Path('model')), {'detail': 'decoder'}),
    ]
