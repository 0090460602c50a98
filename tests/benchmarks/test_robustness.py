"""The trials of HACA3 on scans of a few voxels, with a decoder that can be worked out by hand."""

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import robustness, trials
from benchmarks.columns import write_rows
from benchmarks.compared import DECODER
from harmony_app.errors import InputError
from harmony_app.imaging.profile import TissueProfile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS, Harmonized, Scan, Style

LEVEL = {'a': 1.0, 'b': 2.0}
SIZE = 16


def profile():
    return TissueProfile((0.7, 1.0, 0.2), (0.1,) * 3, tuple(np.linspace(0.2, 1, 100)), ())


class Data:
    """Two people at two sites with all contrasts; a ball times the level of the site."""

    def __init__(self, contrasts=CONTRASTS):
        self.inputs = [
            SimpleNamespace(subject=p, session=s, contrast=c, name=f'{p}{s}{c}')
            for p in '12'
            for s in 'ab'
            for c in contrasts
        ]

    def load(self, source):
        axes = np.meshgrid(*[np.arange(SIZE) - SIZE / 2] * 3, indexing='ij')
        radius = np.sqrt(sum(a**2 for a in axes))
        ball = np.clip(6 - radius, 0, 1) * (0.7 + 0.3 * np.sin(axes[0]) * np.cos(axes[1]))
        data = (ball * LEVEL[source.session] + 0.01).astype(np.float32)
        volume = Volume(data, np.eye(4))
        return Scan(
            name=source.name, contrast=source.contrast, working=volume, native=volume,
            native_to_working=np.eye(4), brain=radius < 5,
            tissues=np.zeros((3, SIZE, SIZE, SIZE), np.uint8), profile=profile(),
        )  # fmt: skip


class Decoder:
    """Weighs scans by how little they differ from the plain ball; eta is that difference."""

    def __init__(self, plain):
        self.plain, self.decoded = plain, 0

    def off(self, scan):
        level = np.median(scan.working.data[scan.brain] / self.plain[scan.brain])
        return float(np.abs(scan.working.data / level - self.plain).mean())

    def encode_target(self, scans, name):
        level = float(np.median(scans[0].working.data[scans[0].brain]))
        eta = (self.off(scans[0]), 0.0)
        return Style(name, scans[0].contrast, scans[0].profile, (level, 0.0), eta, scans=1)

    def decode(self, sources, target):
        self.decoded += 1
        found = np.array([np.exp(-50 * self.off(scan)) for scan in sources])
        weights = found / found.sum()
        images = [w * s.working.data for w, s in zip(weights, sources, strict=True)]
        image = sources[0].working.with_data(np.sum(images, axis=0).astype(np.float32))
        return Harmonized(
            source=None, contrast=target.contrast, working=image, native=None, decoder=image,
            eta={s.name: (self.off(s), 0.0) for s in sources},
            attention={s.name: float(w) for s, w in zip(sources, weights, strict=True)},
        )  # fmt: skip

    def forget(self):
        pass


class Reference:
    """The plain scan itself, in the brightness that the decoder leaves."""

    def __init__(self, bids, source, scan, session, anatomy):
        self.images = {'mni': scan.working.data}
        self.boxes, self.data_range = {'mni': (slice(None),) * 3}, 1.0


@pytest.fixture
def setup(monkeypatch, tmp_path):
    def make(contrasts=CONTRASTS, imputed=('FLAIR',)):
        data = Data(contrasts)
        plain = data.load(data.inputs[0]).working.data
        place = trials.Workplace.__new__(trials.Workplace)
        place.data, place.decoder, place.next = data, Decoder(plain), {'a': 'b', 'b': 'a'}
        place._images = {}
        place.session = lambda *unit: loaded[unit]
        loaded = {
            unit: {s.contrast: data.load(s) for s in data.inputs if (s.subject, s.session) == unit}
            for unit in {(s.subject, s.session) for s in data.inputs}
        }
        place.style = lambda contrast, subject, target: {
            DECODER: Style(target, contrast, profile(), (1.0, 0.0), (0.0, 0.0), scans=1)
        }
        place.compared = SimpleNamespace(
            harmonize=lambda name, session, scan, subject, target: SimpleNamespace(
                working=scan.working.with_data(scan.working.data * (1 - 0.1 * (name == DECODER)))
            ),
            forget=lambda: None,
        )
        monkeypatch.setattr(trials, 'workplace', lambda setup: place)
        monkeypatch.setattr(trials, 'Reference', Reference)
        monkeypatch.setattr(
            trials,
            'TrueAnatomy',
            lambda bids, source, scan: SimpleNamespace(brain={'mni': scan.brain}),
        )
        told = trials.Setup(
            bids=tmp_path, cache=tmp_path, parts=tmp_path, models=(), wanted='T1w',
            imputed=imputed, severities=(0.3, 1.0), decoded=('T1w',), seed=1,
        )  # fmt: skip
        return told, place

    return make


def table(name, *parts, tmp_path):
    rows = [row for part in parts for row in part['rows']]
    return write_rows(tmp_path / f'{name}.tsv', robustness.COLUMNS[name], rows)


def test_attention_leaves_a_spoiled_scan_and_the_others_make_up_for_it(setup, tmp_path):
    told, _ = setup()
    found = table('corruption', trials.corruption(told, ('1', 'a')), tmp_path=tmp_path)
    assert list(found.kind) == list(trials.BAD)
    assert found.severity.between(0.7, 1).all()
    assert np.allclose(found.attention_before, 0.25)
    assert (found.attention_after < 0.2).all()
    assert (found.eta_after > found.eta_before).all()
    assert (found.ssim_alone < found.ssim_all).all()
    assert np.allclose(found.ssim_others, 1)
    again = trials.corruption(told, ('1', 'a'))['rows']
    assert again[0]['psnr_alone'] == pytest.approx(found.psnr_alone[0], abs=1e-3)
    summary = robustness.summarize_corruption(found).set_index('artifact')
    assert summary.loc['all of them', 'all beats alone'] == '3 of 3'
    assert summary.loc['noise', 'moved away'] == '1 of 1'
    path = robustness.draw(tmp_path / 'c.png', told.parts, 'corruption', [('1', 'a'), ('2', 'a')])
    assert path.stat().st_size > 1000
    assert robustness.draw(tmp_path / 'd.png', told.parts, 'imputation', [('1', 'a')]) is None


def test_all_subsets_are_decoded_once(setup, tmp_path):
    told, place = setup()
    found = table('subsets', trials.subsets(told, ('1', 'a')), tmp_path=tmp_path)
    assert len(found) == 15
    assert found.sources.nunique() == 15
    assert (found.works == 1).all()
    assert place.decoder.decoded == 15
    trials.subsets(told, ('1', 'a'))
    assert place.decoder.decoded == 15


def test_imputation_does_not_see_what_it_makes(setup, tmp_path):
    told, _ = setup(imputed=('FLAIR', 'T2w'))
    found = table('imputation', trials.imputation(told, ('2', 'b')), tmp_path=tmp_path)
    assert list(found.contrast) == ['FLAIR', 'T2w']
    for row in found.itertuples():
        assert row.contrast not in row.sources.split()
        assert len(row.sources.split()) == 3


def test_what_a_session_lacks_is_told(setup):
    told, _ = setup(contrasts=('T2w',))
    for trial in (trials.corruption, trials.subsets, trials.imputation):
        found = trial(told, ('1', 'a'))
        assert found['rows'] == []
        assert 'sub-1 a' in found['notes'][0]


def test_identity_is_judged_by_the_scan_itself(setup, tmp_path):
    told, _ = setup()
    found = table('identity', trials.identity(told, ('1', 'a')), tmp_path=tmp_path)
    by = found.groupby('method').ssim.agg(['mean', 'size'])
    assert by.loc['transfer', 'mean'] == pytest.approx(1)
    assert by.loc['transfer', 'size'] == 4
    assert by.loc[DECODER, 'size'] == 1
    assert by.loc[DECODER, 'mean'] < 1


def test_eta_is_ranked_within_every_artifact(setup, tmp_path):
    told, _ = setup()
    found = table('eta', trials.severity(told, ('1', 'a', 'T1w')), tmp_path=tmp_path)
    assert len(found) == 1 + 2 * 7
    summary = robustness.summarize_eta(found).set_index('artifact')
    assert (summary.drop(index='all').spearman > 0.99).all()
    assert 0.5 < summary.loc['all', 'spearman'] <= 1


def test_theta_of_one_protocol_is_nearer(setup, tmp_path):
    told, place = setup()
    rows = [
        row
        for s in place.data.inputs
        for row in trials.contrast_code(told, (s.subject, s.session, s.contrast))['rows']
    ]
    summary = robustness.summarize_theta(pd.DataFrame(rows))
    assert list(summary.contrast) == list(CONTRASTS)
    assert (summary['one protocol'] < 1e-6).all()
    assert (summary['two protocols'] > 0.3).all()
    assert (summary.iloc[:, -1] == 1).all()


def test_an_artifact_stays_in_the_field_of_view(setup):
    _, place = setup()
    scan = place.data.load(place.data.inputs[0])
    data = scan.working.data.copy()
    data[:, :, 12:] = 0
    cut = replace(scan, working=scan.working.with_data(data))
    spoiled = trials.corrupted(cut, 'noise', 0.9, 4).working.data
    assert (spoiled[:, :, 12:] == 0).all()
    assert (spoiled[:, :, :12] != data[:, :, :12]).mean() > 0.9


def test_other_people_and_sites_are_chosen_first():
    chosen = robustness.choose(Data().inputs, 2)
    assert chosen['subsets'] == [('1', 'a'), ('2', 'b')]
    assert len(chosen['eta']) == 8
    assert {unit[2] for unit in chosen['eta']} == set(CONTRASTS)
    assert len(chosen['theta']) == 16
    assert robustness.choose(Data(('T2w',)).inputs, 1)['eta'] == [('2', 'b', 'T2w')]


def test_the_report_answers_every_question(setup, tmp_path):
    told, _ = setup()
    tables = {
        name: table(name, work(told, ('1', 'a')), tmp_path=tmp_path)
        for name, work in robustness.WORK.items()
        if name not in ('eta', 'theta')
    }
    tables['eta'] = table('eta', trials.severity(told, ('1', 'a', 'T2w')), tmp_path=tmp_path)
    text = robustness.write_page(told, tables, ['a note', 'a note'])
    for name in tables:
        assert f'## {name.capitalize()}' in text
    assert text.count('a note') == 1
    with pytest.raises(InputError, match='holds no study'):
        robustness.measure(argparse.Namespace(study=tmp_path / 'x', model=[], quick=True))
