"""Real sessions: the cache, who validates, and the draws of both methods from it."""

import os

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError
from harmony_app.imaging.io import write_volume
from harmony_app.imaging.volume import Volume
from harmony_app.phantom.tissues import TISSUES
from harmony_app.training import fusion, sessions
from harmony_app.training.mixture import Mixture
from harmony_app.training.session_slices import SessionSlices, has_pairs
from harmony_app.training.sessions import (
    HalvedScans,
    ScanFile,
    Session,
    SessionFiles,
    cache_sessions,
    split_subjects,
)
from harmony_app.training.slice_batch import Batch
from harmony_app.training.transfer_draws import TransferDraws

LEVELS = {
    'T1w': {'wm': 1.0, 'gm': 0.7, 'csf': 0.3, 'skin': 0.8, 'bone': 0.1},
    'T2w': {'wm': 1.0, 'gm': 1.4, 'csf': 2.5, 'skin': 0.9, 'bone': 0.1},
}


def write_session(head, folder, name, contrasts, site='A'):
    """Preprocessed scans of shells as the participant level writes them."""
    rng = np.random.default_rng(len(name))
    fractions = head.fractions.astype(np.float32) / 255
    parts = {tissue: fractions[TISSUES.index(tissue)] for tissue in LEVELS['T1w']}

    def write(path, data):
        write_volume(path, Volume(data.astype(np.float32), np.eye(4)))
        return path

    scans = []
    for contrast in contrasts:
        data = sum(level * parts[t] for t, level in LEVELS[contrast].items())
        data = np.abs(data + 0.02 * rng.standard_normal(data.shape)) * (sum(parts.values()) > 0)
        path = write(folder / f'{name}_{contrast}.nii.gz', data)
        scans.append(ScanFile(f'{name}_{contrast}', contrast, path, site))
    brain = write(folder / f'{name}_brain.nii.gz', head.maps[0] / 255)
    tissues = tuple(
        write(folder / f'{name}_{t}.nii.gz', parts[t] * (head.maps[0] > 0))
        for t in ('gm', 'wm', 'csf')
    )
    return SessionFiles(name, name.split('_')[0], tuple(scans), brain, tissues)


@pytest.fixture(scope='module')
def small_grid():
    """The working grid of the shells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, 'WORKING_SHAPE', (64, 72, 64))
        yield


@pytest.fixture(scope='module')
def files(head, small_grid, tmp_path_factory):
    folder = tmp_path_factory.mktemp('preprocessed')
    return [
        write_session(head, folder, 'p1_s1', ('T1w', 'T2w')),
        write_session(head, folder, 'p1_s2', ('T1w', 'T2w'), 'B'),
        write_session(head, folder, 'p2_s1', ('T1w',)),
    ]


@pytest.fixture(scope='module')
def cached(files, tmp_path_factory):
    return cache_sessions(files, tmp_path_factory.mktemp('cache'))


def test_cache_holds_what_the_files_say(cached, head):
    first = cached[0]
    data = first.scans[0].data()
    assert isinstance(data, np.memmap)
    assert data.dtype == np.float16
    white = head.fractions[TISSUES.index('wm')] == 255
    assert np.median(data[white]) == pytest.approx(1, abs=0.01)
    assert (first.maps()[0] == head.maps[0]).all()
    half = first.scans[0].data(half=True)
    whole = np.asarray(data, np.float32)
    assert half[10, 12, 14] == pytest.approx(whole[20:22, 24:26, 28:30].mean(), abs=2e-3)
    shown = first.scans[0].shown()
    assert set(np.unique(shown)) <= {0, 255}
    assert (shown[white] == 255).all()


def test_cache_is_read_again_only_where_a_file_changed(files, tmp_path, monkeypatch):
    read = []
    original = sessions._read
    monkeypatch.setattr(sessions, '_read', lambda path: read.append(path) or original(path))
    cache_sessions(files[2:], tmp_path)
    assert len(read) == 5
    cache_sessions(files[2:], tmp_path)
    assert len(read) == 5
    os.utime(files[2].scans[0].path, (1, 1))
    cache_sessions(files[2:], tmp_path)
    assert len(read) == 6


def test_what_cannot_be_used_is_left_out(files, tmp_path, caplog, head):
    dark = write_session(head, tmp_path, 'p3_s1', ('T1w', 'T2w'))
    write_volume(
        dark.scans[0].path, Volume(np.eye(64 * 72, 64).reshape(64, 72, 64).astype('f4'), np.eye(4))
    )
    (session,) = cache_sessions([dark], tmp_path / 'cache')
    assert [scan.contrast for scan in session.scans] == ['T2w']
    assert 'p3_s1_T1w is left out' in caplog.text
    dark.scans[1].path.unlink()
    with pytest.raises(InputError, match='no preprocessed scan can be used'):
        cache_sessions([dark], tmp_path / 'cache2')


def test_no_person_learns_and_validates():
    found = [Session(f'{i}_{k}', str(i), (), '') for i in range(9) for k in range(2)]
    training, validation = split_subjects(found, seed=3)
    people = {s.subject for s in training}, {s.subject for s in validation}
    assert not people[0] & people[1]
    assert len(people[1]) == 1
    assert len(training) + len(validation) == 18
    assert split_subjects(found[::-1], seed=3)[1][0].subject in people[1]
    assert {split_subjects(found, seed=s)[1][0].subject for s in range(12)} != people[1]
    assert split_subjects(found[:4], seed=3) == (found[:4], [])


def test_real_draws_of_the_transfer_network(cached):
    draws = TransferDraws((), HalvedScans(cached), real_share=1.0)
    example = draws.draw(np.random.default_rng(1))
    again = draws.draw(np.random.default_rng(1))
    assert torch.equal(example.source, again.source)
    assert torch.isfinite(example.condition).all()
    assert not torch.equal(example.source, example.truth)


def test_slices_of_a_session_are_pairs_of_one_anatomy(cached):
    sampler = SessionSlices(cached[:1], 32, artifacts=False, remapped=0.0)
    parts = [sampler.draw(np.random.default_rng(i)) for i in range(24)]
    batch = Batch.join(parts)
    assert batch.present.all()
    assert (batch.known == 0).all()
    assert (batch.contrasts[:, 0] != batch.contrasts[:, 1]).all()
    assert (batch.sources[batch.views[:, :2] == 0] == 0).all()
    assert (batch.views[:, :2] >= batch.source_masks).all()
    for i in range(24):
        which = batch.contrasts[i, :2].tolist().index(int(batch.contrasts[i, 2]))
        mask = batch.source_masks[i, which] > 0
        torch.testing.assert_close(batch.target[i, 0][mask], batch.sources[i, which][mask])
    again = sampler.draw(np.random.default_rng(0))
    for name in vars(again):
        assert torch.equal(getattr(again, name), getattr(parts[0], name)), name


def test_a_remapped_draw_is_of_one_new_site(cached):
    """Sources, target and theta slice of a contrast go through one and the same map."""
    plain = SessionSlices(cached[2:], 32, artifacts=False, remapped=0.0)
    mapped = SessionSlices(cached[2:], 32, artifacts=False, remapped=1.0)
    one, other = (s.draw(np.random.default_rng(5)) for s in (plain, mapped))
    torch.testing.assert_close(
        other.sources[0, 0] * other.source_masks[0, 0],
        other.target[0, 0] * other.source_masks[0, 0],
    )
    assert not torch.allclose(one.target, other.target, atol=0.01)
    order = torch.argsort(one.style.flatten())
    assert (other.style.flatten()[order].diff() > -1e-5).all()


def test_a_session_of_one_contrast_is_its_own_source(cached):
    sampler = SessionSlices(cached[2:], 32)
    batch = Batch.join([sampler.draw(np.random.default_rng(i)) for i in range(8)])
    assert batch.present.tolist() == [[True, False]] * 8
    assert (batch.contrasts == 0).all()
    assert torch.equal(batch.sources[:, 0], batch.sources[:, 1])
    assert not has_pairs(cached[2:])
    assert has_pairs(cached)


def test_theta_slice_may_be_of_another_person_at_the_site(cached):
    sampler = SessionSlices(cached, 32)
    t1w = cached[0].scans[0]
    assert [index for index, _ in sampler.alike(t1w)] == [0, 2]
    unknown = sessions.CachedScan('x', 'T1w', '', None)
    assert sampler.alike(unknown) == []


def test_a_mixture_draws_from_each_by_its_share():
    class Always:
        def __init__(self, value):
            self.value = value

        def draw(self, rng):
            return self.value

    mixture = Mixture([Always(0), Always(1)], [0.25, 0.75])
    drawn = [mixture.draw(np.random.default_rng([7, i])) for i in range(400)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.07)
    with pytest.raises(ValueError, match='sum to 1'):
        Mixture([Always(0)], [0.5])


def test_fusion_learns_from_real_sessions(cached, head):
    from harmony_app.nets.haca3 import VARIANTS, Haca3Nets

    torch.manual_seed(0)
    nets = Haca3Nets(VARIANTS['compact'])
    net, facts = fusion.fuse_trained(
        nets, [], cached[:1], seed=1, minutes=1, steps=2, blocks=3, edge=32
    )
    assert facts['steps'] == 2
    assert facts['unlike_median'] > 0
    best = min(facts['unlike_alike'], facts['unlike_learned'])
    assert (net is None) == (best >= facts['unlike_median'])
