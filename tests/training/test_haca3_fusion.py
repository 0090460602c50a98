"""The fusion network, and the way from checkpoints to a model folder."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from harmony_app.engine.compute import Compute
from harmony_app.errors import InputError
from harmony_app.methods.haca3 import Haca3
from harmony_app.methods.registry import packaged_model
from harmony_app.nets.fusion import FusionNet
from harmony_app.training import fusion, fusion_weights, haca3_weights
from harmony_app.training.base import LoopSettings
from harmony_app.training.fusion import fusion_error, train_fusion, unlikeness
from harmony_app.training.fusion_blocks import Block, draw_block
from harmony_app.training.haca3 import Haca3Training
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.slices import SliceSampler


@pytest.fixture(scope='module')
def checkpoint(head, tmp_path_factory):
    """Two steps of a training at the compact widths."""
    training = Haca3Training(Settings(size=32), SliceSampler([head], 32))
    out = tmp_path_factory.mktemp('run')
    loop = Loop(training, LoopSettings(batch=1, steps=2, average=0.5), out)
    loop.run()
    return out / CHECKPOINT, loop


def striped_block(seed):
    """A truth, and three results that each err along stripes of their own axis."""
    rng = np.random.default_rng(seed)
    shape = (32, 32, 32)
    truth = 0.5 + 0.5 * (sum(np.indices(shape) - 15.5) > 0).astype(np.float32)
    decoded = np.stack([truth] * 3)
    for axis in range(3):
        lines = [1, 1, 1]
        lines[axis] = 32
        decoded[axis] += 0.2 * rng.standard_normal(lines).astype(np.float32)
    return Block(decoded.astype(np.float32), truth, np.ones(shape, bool))


def test_training_beats_the_median_on_blocks_it_has_not_seen():
    torch.manual_seed(0)
    net = FusionNet(4)
    before = fusion_error(None, striped_block(7), Compute())
    blocks = [striped_block(i) for i in range(4)]
    steps = train_fusion(
        net, blocks, np.random.default_rng(0), 0, steps=120, patch=16, batch=4, rate=5e-3
    )
    assert steps == 120
    assert fusion_error(net, striped_block(7), Compute()) < 0.9 * before


@pytest.mark.parametrize('seed', range(3))
def test_a_fused_voxel_lies_between_the_orientations(seed):
    torch.manual_seed(seed)
    net, volumes = FusionNet(4), torch.rand(2, 3, 5, 6, 7)
    nn.init.normal_(net.head.weight)
    fused = net(volumes, torch.ones(2, 1, 5, 6, 7))
    assert (fused >= volumes.min(1, keepdim=True).values - 1e-6).all()
    assert (fused <= volumes.max(1, keepdim=True).values + 1e-6).all()
    assert not net(volumes, torch.zeros(2, 1, 5, 6, 7)).any()


def test_neither_level_nor_contrast_sways_it():
    torch.manual_seed(0)
    net, volumes = FusionNet(4), 0.5 + torch.rand(1, 3, 9, 9, 9)
    nn.init.normal_(net.head.weight)
    mask = torch.ones(1, 1, 9, 9, 9)
    torch.testing.assert_close(net(volumes + 2, mask), net(volumes, mask) + 2)
    # far above the least difference that counts
    once, thrice = net(100 * volumes, mask), net(300 * volumes, mask)
    torch.testing.assert_close(thrice, 3 * once, rtol=1e-2, atol=0.1)


def test_untrained_it_weighs_orientations_and_median_alike():
    volumes = torch.rand(1, 3, 6, 6, 6)
    expected = (volumes.sum(1) + volumes.median(1).values) / 4
    for net in (FusionNet(4).train(), FusionNet(4).eval()):
        fused = net(volumes, torch.ones(1, 1, 6, 6, 6))
        torch.testing.assert_close(fused[:, 0], expected)


def test_blocks_are_decoded_in_three_orientations(head, checkpoint):
    nets = checkpoint[1].training.network.eval()
    block = draw_block(nets, head, np.random.default_rng(1), Compute(), edge=32)
    assert block.decoded.shape == (3, 32, 32, 32)
    assert not block.decoded[:, ~block.mask].any()
    assert np.abs(block.decoded[0] - block.decoded[1]).max() > 0
    assert block.truth[block.mask].max() > 0.3
    again = draw_block(nets, head, np.random.default_rng(1), Compute(), edge=32)
    np.testing.assert_array_equal(again.decoded, block.decoded)


def test_packing_keeps_the_averaged_weights_and_tells_the_training(checkpoint, tmp_path):
    path, loop = checkpoint
    card = tmp_path / 'card.json'
    card.write_text(json.dumps({'licence': 'Apache-2.0', 'training': {'heads': ['shells']}}))
    haca3_weights.main([str(path), str(tmp_path / 'model'), '--card', str(card)])
    model = Haca3.load(tmp_path / 'model')
    for key, tensor in loop.average.state_dict().items():
        assert torch.equal(model.nets.state_dict()[key], tensor.half().float()), key
    assert model.fusion is None
    told = model.metadata['training']
    assert told['heads'] == ['shells']
    assert told['steps'] == 2


@pytest.mark.parametrize(
    ('errors', 'kept'),
    [((0.2, 0.3, 0.1), 'learned'), ((0.2, 0.1, 0.15), 'alike'), ((0.1, 0.2, 0.3), 'median')],
)
def test_a_fusion_joins_a_model_where_it_beats_the_median(
    head, checkpoint, tmp_path, monkeypatch, errors, kept, capsys
):
    np.save(tmp_path / 'shells_fractions.npy', head.fractions)
    np.save(tmp_path / 'shells_maps.npy', head.maps)
    haca3_weights.main([str(checkpoint[0]), str(tmp_path / 'model')])
    told_errors = iter(errors)
    monkeypatch.setattr(fusion, 'fusion_error', lambda *_: next(told_errors))
    places = [str(tmp_path / 'model'), str(tmp_path / 'out'), '--heads', str(tmp_path)]
    fusion_weights.main([*places, '--steps', '2', '--blocks', '2'])
    before, after = (Haca3.load(tmp_path / name) for name in ('model', 'out'))
    assert (after.fusion is not None) == (kept != 'median')
    if after.fusion is not None:
        assert bool(after.fusion.head.weight.any()) == (kept == 'learned')
    for key, tensor in before.nets.state_dict().items():
        assert torch.equal(after.nets.state_dict()[key], tensor), key
    told = after.metadata['training']
    assert told['fusion'] == json.loads(capsys.readouterr().out)
    assert told['fusion']['steps'] == 2
    assert told['steps'] == before.metadata['training']['steps']


def test_a_model_that_decodes_nothing_has_no_fusion(tmp_path):
    with pytest.raises(InputError, match='transfer has no network that fuses'):
        fusion_weights.add_fusion(
            packaged_model('transfer'),
            tmp_path / 'out',
            tmp_path,
            seed=1,
            minutes=1,
            steps=1,
            blocks=2,
        )


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / 'x').write_bytes(b'none')
    with pytest.raises(InputError, match='is not a checkpoint'):
        haca3_weights.read_averaged(tmp_path / 'x')
    from safetensors.torch import save_file

    save_file({'a': torch.zeros(1)}, tmp_path / 'y')
    with pytest.raises(InputError, match='is not a checkpoint'):
        haca3_weights.read_averaged(tmp_path / 'y')


def test_structure_counts_and_levels_do_not():
    rng = np.random.default_rng(3)
    truth = torch.from_numpy(rng.normal(1, 0.3, (1, 1, 16, 16, 16)).astype(np.float32))
    mask = torch.ones_like(truth)
    assert unlikeness(truth, truth, mask) < 1e-3
    assert unlikeness(0.5 * truth + 0.3, truth, mask) < 0.02
    blurred = torch.nn.functional.avg_pool3d(truth, 3, 1, 1)
    assert unlikeness(blurred, truth, mask) > 0.3
    assert unlikeness(2 - truth, truth, mask) > 1.8
    half = mask.clone()
    half[:, :, 8:] = 0
    spoiled = torch.where(half > 0, truth, -truth)
    assert unlikeness(spoiled, truth, half) < 1e-3
