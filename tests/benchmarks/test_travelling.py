"""The benchmark's bookkeeping, on scans that need no preprocessing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import travelling
from benchmarks.study import Study
from benchmarks.tables import summarize, to_markdown
from harmony_app.errors import InputError, OptionError
from harmony_app.imaging.profile import TissueProfile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan
from harmony_app.methods.registry import get_method

LEVEL = {'a': 1.0, 'b': 2.0, 'c': 4.0}


def profile(level):
    return TissueProfile(
        (0.7 * level, level, 0.2 * level),
        (0.1,) * 3,
        tuple(np.linspace(0.2, 1, 100) * level),
        (),
    )


class Data:
    """Three people at three sites, whose scans are a ramp times the level of the site."""

    def __init__(self):
        self.inputs = [
            SimpleNamespace(subject=subject, session=session, contrast='T1w')
            for subject in '123'
            for session in LEVEL
        ]

    def load(self, source):
        ramp = np.linspace(0.2, 1, 4**3, dtype=np.float32).reshape(4, 4, 4)
        volume = Volume(ramp * LEVEL[source.session], np.eye(4))
        return Scan(
            name=f'{source.subject}{source.session}', contrast='T1w', working=volume,
            native=volume, native_to_working=np.eye(4), brain=ramp > 0,
            tissues=np.zeros((3, 4, 4, 4), np.uint8), profile=profile(LEVEL[source.session]),
        )  # fmt: skip


class Reference:
    """The ramp times the level of the target."""

    def __init__(self, bids, source, scan, session):
        ramp = scan.working.data / scan.working.data.max()
        self.images = {'mni': ramp * LEVEL[session]}

    def score(self, volume, grid):
        return {'rmse': float(np.sqrt(np.mean((volume - self.images['mni']) ** 2)))}


@pytest.fixture
def results(monkeypatch):
    monkeypatch.setattr(travelling, 'Reference', Reference)
    methods = {name: get_method(name) for name in ('none', 'nyul')}
    found = travelling.Results()
    travelling.compare_contrast(Data(), None, 'T1w', methods, 'all', False, found)
    return found


def test_every_pair_is_scored_by_every_method_on_both_grids(results):
    rows = pd.DataFrame(results.rows)
    assert len(rows) == 3 * 6 * 2 * 2
    assert not rows.duplicated(['method', 'subject', 'source', 'target', 'grid']).any()


def test_none_repeats_the_scores_before_and_a_method_that_works_reaches_the_ceiling(results):
    rows = pd.DataFrame(results.rows)
    unchanged = rows[rows.method == 'none']
    assert (unchanged.after == unchanged.before).all()
    nyul = rows[rows.method == 'nyul']
    assert (nyul.after < 0.05 * nyul.before).all()
    table = summarize(rows, ('rmse',)).set_index(['method', 'grid'])
    assert table.loc[('none', 'mni'), 'gap_closed'] == 0
    assert table.loc[('none', 'mni'), 'p'] == 1
    assert table.loc[('nyul', 'mni'), 'gap_closed'] > 0.95
    assert table.loc[('nyul', 'mni'), 'better'] == 1
    assert table.loc[('nyul', 'mni'), 'low'] > 0
    assert table.loc[('nyul', 'mni'), 'p'] < 0.01


def test_a_table_of_one_pair_has_no_statistics():
    row = {'contrast': 'T1w', 'grid': 'mni', 'metric': 'ssim', 'method': 'none'}
    table = summarize(pd.DataFrame([row | {'before': 0.5, 'after': 0.75, 'ceiling': 1.0}]))
    assert table.gap_closed[0] == 0.5
    assert 'n/a' in to_markdown(table)
    assert 'nan' not in to_markdown(table)


def test_a_picture_is_kept_of_each_pair_up_to_a_number(results):
    shown = results.shown['T1w']
    assert len(shown) == travelling.SHOWN
    assert all(len(volumes) == 4 for _, volumes in shown)


@pytest.mark.parametrize(
    ('text', 'error'),
    [
        ('subjects: 1', OptionError),
        ('sites: [siteA]', OptionError),
        ('pairs: some', OptionError),
        ('contrasts: [bold]', OptionError),
        ('people: 3', OptionError),
        ('- 3', OptionError),
        ('a: [', InputError),
    ],
)
def test_a_study_that_cannot_be_is_refused(tmp_path, text, error):
    path = tmp_path / 'study.yaml'
    path.write_text(text)
    with pytest.raises(error):
        Study.read(path)


def test_a_study_of_ones_own(tmp_path):
    path = tmp_path / 'study.yaml'
    path.write_text('sites: [siteB, mine]\nsite_file: sites.yaml\nsubjects: 3\n')
    study = Study.read(path)
    assert study.sites == ('siteB', 'mine')
    assert study.site_file == str(tmp_path / 'sites.yaml')
    assert study.quick().subjects == 2


def test_a_study_interrupted_is_begun_again_and_another_is_refused(tmp_path, monkeypatch):
    def write(out, settings):
        out.mkdir()
        (out / 'half').touch()
        calls.append(settings)
        if len(calls) == 1:
            raise KeyboardInterrupt

    calls = []
    monkeypatch.setattr('benchmarks.study.write_dataset', write)
    with pytest.raises(KeyboardInterrupt):
        Study().make(tmp_path)
    assert not (tmp_path / 'bids').exists()
    assert Study().make(tmp_path) == tmp_path / 'bids'
    assert Study().make(tmp_path) == tmp_path / 'bids'
    with pytest.raises(OptionError, match='another study'):
        Study(seed=8).make(tmp_path)
    (tmp_path / 'study.json').unlink()
    with pytest.raises(OptionError, match='not of a study'):
        Study().make(tmp_path)
