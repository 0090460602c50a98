"""Trainings on a machine that keeps nothing: heads carried, folders in pieces, ends on time."""

import json

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError
from harmony_app.methods.haca3 import Haca3
from harmony_app.methods.transfer import Transfer
from harmony_app.training import haca3, lease
from harmony_app.training.carried import pack_heads, unpack_heads
from harmony_app.training.checkpoint import read_facts
from harmony_app.training.heads import TEST, VALIDATION, load_heads
from harmony_app.training.loop import CHECKPOINT
from harmony_app.training.pieces import TABLE, join_folder, split_folder
from harmony_app.training.rendered import RenderedTraining
from harmony_app.training.subjects import plain_subject


@pytest.fixture(scope='module')
def heads(head, tmp_path_factory):
    """Built heads: one to learn from, one to choose by, one that is never to travel."""
    folder = tmp_path_factory.mktemp('heads')
    for name in ('a', VALIDATION[0], TEST[0]):
        soft = (head.fractions * np.float32(0.9)).astype(np.uint8)
        np.save(folder / f'{name}_fractions.npy', soft)
        np.save(folder / f'{name}_maps.npy', head.maps)
    return folder


@pytest.fixture(scope='module')
def carried(heads, tmp_path_factory):
    folder = tmp_path_factory.mktemp('carried')
    pack_heads(heads, folder, 'haca3')
    return folder


def test_heads_are_carried_in_4_bits(heads, carried, tmp_path):
    assert unpack_heads(carried, tmp_path, 'haca3') == ['a', VALIDATION[0]]
    (before,), (after,) = load_heads(heads), load_heads(tmp_path)
    difference = after.fractions.astype(int) - before.fractions
    assert np.abs(difference).max() <= 8
    assert after.fractions.sum(0, dtype=int).max() <= 255
    assert np.array_equal(after.maps[0], before.maps[0])
    size = sum(path.stat().st_size for path in carried.iterdir())
    assert size < 0.1 * sum(path.stat().st_size for path in heads.glob('*.npy'))


def test_heads_carried_for_the_transfer_give_the_same_subject(heads, tmp_path):
    pack_heads(heads, tmp_path / 'carried', 'transfer')
    unpack_heads(tmp_path / 'carried', tmp_path / 'out', 'transfer')
    (before,), (after,) = load_heads(heads), load_heads(tmp_path / 'out')
    assert after.fractions.shape == before.fractions.shape
    one, other = plain_subject(before), plain_subject(after)
    assert np.array_equal(one.fractions, other.fractions)
    assert np.array_equal(one.maps, other.maps)


def test_rounding_fills_no_voxel_over_the_brim(tmp_path):
    fractions = np.full((3, 2, 2, 2), 80, np.uint8)
    fractions[0] = 94  # 94 and 80 lie just under a level: all three are rounded up
    np.save(tmp_path / 'a_fractions.npy', fractions)
    np.save(tmp_path / 'a_maps.npy', np.full((4, 2, 2, 2), 255, np.uint8))
    pack_heads(tmp_path, tmp_path / 'carried', 'haca3')
    unpack_heads(tmp_path / 'carried', tmp_path / 'out', 'haca3')
    total = np.load(tmp_path / 'out' / 'a_fractions.npy').sum(0, dtype=int)
    assert ((total > 250) & (total <= 255)).all()


def test_carried_heads_that_do_not_serve_are_refused(carried, tmp_path):
    with pytest.raises(InputError, match='no heads'):
        unpack_heads(tmp_path, tmp_path / 'out', 'haca3')
    with pytest.raises(InputError, match='packed for haca3'):
        unpack_heads(carried, tmp_path / 'out', 'transfer')


def test_pieces_join_to_the_folder_they_were(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / 'run'
    (folder / 'curves').mkdir(parents=True)
    (folder / 'weights').write_bytes(rng.bytes(5000))
    (folder / 'curves' / 'events').write_bytes(rng.bytes(30))
    *pieces, table = split_folder(folder, tmp_path / 'out', limit=4096)
    assert len(pieces) == 3  # an archive of 10240 bytes
    assert table.name == TABLE
    assert all(path.stat().st_size <= 4096 for path in pieces)
    join_folder(tmp_path / 'out', tmp_path / 'back')
    for name in ('weights', 'curves/events'):
        assert (tmp_path / 'back' / name).read_bytes() == (folder / name).read_bytes()

    (folder / 'weights').write_bytes(b'short')
    split_folder(folder, tmp_path / 'out', limit=1 << 20)
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['piece.000', TABLE]
    join_folder(tmp_path / 'out', tmp_path / 'back')
    assert (tmp_path / 'back' / 'weights').read_bytes() == b'short'


def test_pieces_of_different_moments_are_refused(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'weights').write_bytes(b'one')
    first, _ = split_folder(folder, tmp_path / 'out')
    first.write_bytes(first.read_bytes().replace(b'one', b'two'))
    with pytest.raises(InputError, match='not of one moment'):
        join_folder(tmp_path / 'out', tmp_path / 'back')
    first.unlink()
    with pytest.raises(InputError, match='does not hold all pieces'):
        join_folder(tmp_path / 'out', tmp_path / 'back')


@pytest.fixture
def few_checks(monkeypatch):
    monkeypatch.setattr(haca3.Haca3Training, 'checks', (1, 2))
    monkeypatch.setattr('harmony_app.training.transfer.CHECKS', 2)


def _call(method, heads, tmp_path, *more):
    arguments = [
        '--method', method, '--heads', str(heads), '--out', str(tmp_path / 'out'),
        '--work', str(tmp_path / 'work'), '--device', 'cpu', '--batch', '2', '--size', '32',
        '--workers', '0', '--subjects-per-head', '1', *more,
    ]  # fmt: skip
    lease.main(arguments)


def test_haca3_is_trained_from_a_model_and_packed(carried, tmp_path, few_checks):
    torch.manual_seed(0)
    start = haca3.Haca3Training(haca3.Settings(size=32), None)
    Haca3(start.network, None, {'training': {'steps': 7}}).save(tmp_path / 'model')
    _call('haca3', carried, tmp_path, '--from', str(tmp_path / 'model'), '--steps', '2')
    join_folder(tmp_path / 'out', tmp_path / 'back')
    facts = read_facts(tmp_path / 'back' / CHECKPOINT)
    assert facts['progress']['step'] == 2
    assert facts['training']['warm'] == 0
    assert (tmp_path / 'back' / 'validation.csv').exists()
    metadata = Haca3.load(tmp_path / 'out' / 'model').metadata
    assert metadata['training']['begun_from'] == {'steps': 7}
    assert metadata['training']['heads'] == ['a']
    json.dumps(metadata)


def test_a_training_ends_on_time_and_goes_on_elsewhere(carried, tmp_path, few_checks):
    _call('haca3', carried, tmp_path, '--steps', '100000', '--stop-after', '0')
    join_folder(tmp_path / 'out', tmp_path / 'one')
    reached = read_facts(tmp_path / 'one' / CHECKPOINT)['progress']['step']
    assert 0 < reached < 1000
    steps = ('--steps', str(reached + 2), '--resume', str(tmp_path / 'out'))
    _call('haca3', carried, tmp_path, *steps, '--work', str(tmp_path / 'elsewhere'))
    facts = read_facts(tmp_path / 'elsewhere' / 'haca3' / 'run' / CHECKPOINT)
    assert facts['progress']['step'] == reached + 2
    assert Haca3.load(tmp_path / 'out' / 'model').metadata['training']['steps'] == reached + 2


def test_rendering_counts_as_drawing(heads, few_checks):
    training = RenderedTraining(haca3.Settings(size=32), load_heads(heads), device='cpu')
    plans = training.collate([training.source.draw(np.random.default_rng(i)) for i in range(2)])
    terms = training.losses(plans, 0, 0.5)
    assert set(terms) == set(training.terms)
    assert torch.isfinite(terms['loss'])
    assert training.drawing_seconds() > 0
    assert training.drawing_seconds() == 0


def test_transfer_is_trained_from_a_training_and_packed(heads, tmp_path, few_checks):
    config = lease.transfer.TransferConfig(condition=lease.transfer.CONDITION, width=8)
    first = lease.transfer.TransferTraining(None, config=config)
    lease.Loop(first, lease.LoopSettings(steps=1), tmp_path / 'first').save()
    _call('transfer', heads, tmp_path, '--from', str(tmp_path / 'first'), '--steps', '2')
    model = Transfer.load(tmp_path / 'out' / 'model')
    assert model.network.config == config
    assert model.metadata['training']['steps'] == 2


def test_subjects_do_not_depend_on_the_number_of_processes(heads):
    (one,), (two,) = (lease.draw_subjects(heads, ['a'], 1, 5, workers) for workers in (1, 2))
    (other,) = lease.draw_subjects(heads, ['a'], 1, 6, 1)
    assert np.array_equal(one.fractions, two.fractions)
    assert not np.array_equal(one.fractions, other.fractions)
