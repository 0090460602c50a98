"""The training of HACA3: draws, losses, and that an interruption leaves no trace."""

import csv
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError
from harmony_app.methods.haca3 import Haca3
from harmony_app.training import losses
from harmony_app.training.artifacts2d import KINDS, corrupt
from harmony_app.training.haca3 import CHECKPOINT, LOG, Haca3Training, Settings, main, train
from harmony_app.training.haca3_validation import reconstruct, structural_similarity, validate
from harmony_app.training.slices import ANATOMY, SliceSampler


def sampler(head, seed=0, size=32, **options):
    return SliceSampler([head, head], np.random.default_rng(seed), size, **options)


SMALL = Settings(batch=2, size=32, steps=4, warm=0.5, inter_every=2)


def test_draws_are_in_range_and_repeat_with_the_seed(head):
    one, other = sampler(head).draw(6), sampler(head).draw(6)
    for name in vars(one):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert torch.isfinite(getattr(one, name).float()).all()
    assert one.sources.shape == (6, 2, 32, 32)
    assert (one.sources[one.source_masks == 0] == 0).all()
    assert one.sources.min() >= 0
    torch.testing.assert_close(one.anatomy.sum(1), torch.ones(6, 32, 32), atol=0.02, rtol=0)
    assert one.anatomy.shape[1] == len(ANATOMY)
    assert (one.severity[:, 1] >= one.severity[:, 0]).all()
    assert (one.contrasts[:, 0] != one.contrasts[:, 1]).all()


def test_white_matter_is_at_one_in_every_target(head):
    batch = sampler(head, 3).draw(24)
    white = (batch.anatomy[:, 3] > 0.97) & (batch.target[:, 0] > 0)
    medians = [
        t[w].median() for t, w in zip(batch.target[:, 0], white, strict=True) if w.sum() > 30
    ]
    assert len(medians) > 8
    np.testing.assert_allclose(np.array(medians), 1, atol=0.08)


@pytest.mark.parametrize('kind', KINDS)
def test_a_severer_artifact_damages_more(kind):
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    image = (np.hypot(rows - 31, columns - 33) < 22).astype(np.float32)
    image *= 0.7 + 0.3 * np.sin(rows / 4) ** 2
    damage = []
    for severity in (0.05, 0.5, 1.0):
        errors = []
        for _ in range(12):
            result = corrupt(image, kind, severity, rng)
            assert result.shape == image.shape
            assert result.dtype == np.float32
            assert result.min() >= 0
            errors.append(np.abs(result - image).mean())
        damage.append(np.mean(errors))
    assert damage[0] < damage[1] < damage[2]


def test_corruption_refuses_what_it_does_not_know():
    image = np.zeros((8, 8), np.float32)
    with pytest.raises(ValueError, match='unknown artifact'):
        corrupt(image, 'flicker', 0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match='between 0 and 1'):
        corrupt(image, 'noise', 1.5, np.random.default_rng(0))


def test_every_loss_reaches_the_networks_that_it_is_for(head):
    """A term without gradient trains nothing, however it falls."""
    training = Haca3Training(SMALL, sampler(head))
    training.step = 2  # past the warm part: anatomy learns from the reconstruction too
    terms = training.compute_losses(training.sampler.draw(2))
    reached = {
        'reconstruction': ('beta', 'theta', 'attention', 'decoder', 'lookup'),
        'kl': ('theta',),
        'anatomy': ('beta',),
        'artifact': ('eta',),
        'cycle': ('decoder', 'theta', 'eta'),
        'tissue': ('beta',),
        'levels': ('theta',),
    }
    assert set(terms) == set(reached)
    for name, parts in reached.items():
        training.optimizer.zero_grad()
        terms[name].backward(retain_graph=True)
        for part in parts:
            gradients = [p.grad for p in getattr(training.nets, part).parameters()]
            total = sum(g.abs().sum() for g in gradients if g is not None)
            assert total > 0, f'{name} does not reach {part}'


def test_patch_contrast_rewards_the_same_place():
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(2, 9, 8, generator=generator), dim=2)
    images = torch.nn.functional.normalize(torch.randn(2, 2, 9, 8, generator=generator), dim=3)
    inside = torch.ones(2, 9, dtype=torch.bool)
    right = losses.patch_contrast(unit, unit, images, inside)
    wrong = losses.patch_contrast(unit, unit.roll(1, dims=1), images, inside)
    assert right < 0.5 * wrong
    # patches outside count neither as query nor as negative
    inside[:, 5:] = False
    changed = unit.clone()
    changed[:, 5:] = torch.nn.functional.normalize(torch.ones(2, 4, 8), dim=2)
    torch.testing.assert_close(
        losses.patch_contrast(unit, unit, images, inside),
        losses.patch_contrast(changed, changed, images, inside),
    )


def test_severity_loss_is_least_where_eta_is_the_severity():
    severity = torch.tensor([[0.2, 0.7], [0.4, 0.9]])
    direction = torch.tensor([[1.0, 0.0]])
    exact = losses.severity_loss(
        torch.zeros(2, 2), severity[:, :1] * direction, severity[:, 1:] * direction, severity
    )
    assert exact == pytest.approx(0, abs=1e-6)
    mixed_up = losses.severity_loss(
        torch.zeros(2, 2), severity[:, 1:] * direction, severity[:, :1] * direction, severity
    )
    assert mixed_up > 0.5


def test_an_interrupted_training_ends_with_the_same_weights(head, tmp_path):
    whole = Haca3Training(SMALL, sampler(head))
    train(whole, tmp_path / 'whole')

    first = Haca3Training(SMALL, sampler(head))
    for _ in range(2):
        first.train_step()
    first.save(tmp_path / CHECKPOINT)
    second = Haca3Training(SMALL, sampler(head, seed=99))
    second.load(tmp_path / CHECKPOINT)
    assert second.step == 2
    train(second, tmp_path / 'second')

    assert second.step == whole.step == 4
    for name, module in whole.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, second.modules[name].state_dict()[key]), f'{name}.{key}'


def test_sigterm_writes_a_checkpoint_and_stops(head, tmp_path, monkeypatch):
    training = Haca3Training(Settings(batch=1, size=32, steps=1000), sampler(head))
    step = training.train_step

    def stepped():
        terms = step()
        if training.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return terms

    monkeypatch.setattr(training, 'train_step', stepped)
    before = signal.getsignal(signal.SIGTERM)
    train(training, tmp_path)
    assert training.step <= 3
    assert signal.getsignal(signal.SIGTERM) is before
    resumed = Haca3Training(Settings(batch=1, size=32, steps=1000), sampler(head))
    resumed.load(tmp_path / CHECKPOINT)
    assert resumed.step == training.step


def test_log_holds_every_loss_and_the_speed(head, tmp_path):
    training = Haca3Training(Settings(batch=1, size=32, steps=20), sampler(head))
    train(training, tmp_path)
    with (tmp_path / LOG).open(newline='') as stream:
        (row,) = csv.DictReader(stream)
    assert row['step'] == '20'
    assert float(row['slices_per_second']) > 0
    assert float(row['reconstruction']) > 0


def test_a_checkpoint_of_other_networks_is_refused(head, tmp_path):
    training = Haca3Training(SMALL, sampler(head))
    (tmp_path / 'broken').write_bytes(b'no tensors here')
    with pytest.raises(InputError, match='is not a checkpoint'):
        training.load(tmp_path / 'broken')
    with pytest.raises(InputError, match='no checkpoint to resume from'):
        training.load(tmp_path / 'absent')
    other = torch.nn.Linear(2, 2)
    from harmony_app.training.checkpoint import save_checkpoint

    optimizer = torch.optim.AdamW(other.parameters())
    save_checkpoint(tmp_path / 'other', {'nets': other}, optimizer, torch.Generator(), {})
    with pytest.raises(InputError, match='of other networks'):
        training.load(tmp_path / 'other')


def test_command_line_refuses_to_overwrite(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b'')
    with pytest.raises(InputError, match='--resume'):
        main(['--heads', str(tmp_path), '--out', str(tmp_path)])


def test_validation_knows_a_perfect_result(head):
    batch = sampler(head, artifacts=False).draw(4)
    scale = batch.target.flatten(1).quantile(0.995, dim=1).clamp_min(0.5)
    mask = batch.source_masks[:, :1]
    perfect = structural_similarity(batch.target, batch.target, mask, scale)
    torch.testing.assert_close(perfect, torch.ones(4))
    assert (structural_similarity(batch.sources[:, :1], batch.target, mask, scale) < 0.999).all()

    nets = Haca3Training(SMALL, sampler(head)).nets
    metrics = validate(nets, [batch])
    assert 0 <= metrics['order'] <= 1
    assert metrics['l1_all'] > 0
    result, union, weights, _ = reconstruct(nets, batch)
    assert torch.equal(result, reconstruct(nets, batch)[0])
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert (result[union == 0] == 0).all()


def test_a_training_begins_from_a_model_folder(head, tmp_path):
    first = Haca3Training(SMALL, sampler(head))
    first.train_step()
    Haca3(first.nets, None, {}).save(tmp_path / 'model')
    second = Haca3Training(replace(SMALL, seed=9), sampler(head))
    second.begin_from(tmp_path / 'model')
    for nets in (second.nets, second.averaged):
        for kept, wanted in zip(nets.parameters(), first.nets.parameters(), strict=True):
            # packaged weights are halves
            torch.testing.assert_close(kept, wanted, atol=1e-3, rtol=1e-3)
    with pytest.raises(InputError, match='other widths'):
        Haca3Training(replace(SMALL, variant='paper'), sampler(head)).begin_from(tmp_path / 'model')
