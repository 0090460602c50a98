"""The training of HACA3: draws, losses, and that an interruption leaves no trace."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError
from harmony_app.methods.haca3 import Haca3
from harmony_app.training import losses
from harmony_app.training.base import LoopSettings
from harmony_app.training.checkpoint import save_checkpoint
from harmony_app.training.haca3 import Haca3Training, main
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.haca3_validation import (
    example_picture,
    reconstruct,
    validate,
)
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.noise import Noise
from harmony_app.training.slice_batch import ANATOMY, Batch
from harmony_app.training.slice_scores import draw_checks, structural_similarity
from harmony_app.training.slices import SliceSampler


def sampler(head, size=32, **options):
    return SliceSampler([head, head], size, **options)


def draw(source, count, seed=0):
    return Batch.join([source.draw(np.random.default_rng([seed, i])) for i in range(count)])


SMALL = Settings(size=32, eta_first=0.25, warm=0.5, inter_every=2)
SHORT = LoopSettings(batch=2, steps=4, log_steps=2, validation_steps=2)


def test_draws_are_in_range_and_repeat_with_the_seed(head):
    one, other = draw(sampler(head), 6), draw(sampler(head), 6)
    for name in vars(one):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert torch.isfinite(getattr(one, name).float()).all()
    assert one.sources.shape == (6, 2, 32, 32)
    assert (one.sources[one.views[:, :2] == 0] == 0).all()
    assert (one.views[:, :2] >= one.source_masks).all()
    assert (one.views[:, 2:] >= one.style_mask).all()
    assert one.sources.min() >= 0
    torch.testing.assert_close(one.anatomy.sum(1), torch.ones(6, 32, 32), atol=0.02, rtol=0)
    assert one.anatomy.shape[1] == len(ANATOMY)
    assert (one.severity[:, 1] >= one.severity[:, 0]).all()
    assert (one.contrasts[:, 0] != one.contrasts[:, 1]).all()


def test_mild_and_severe_share_the_pattern_of_their_artifact(head):
    batch = draw(sampler(head), 16, seed=4)
    mild, severe = ((b - batch.clean).flatten(1) for b in (batch.mild, batch.severe))
    visible = (batch.severity[:, 0] > 0.3) & (batch.severity.diff(dim=1)[:, 0] < 0.5)
    assert visible.sum() >= 3
    alike = torch.nn.functional.cosine_similarity(mild, severe)[visible]
    assert alike.min() > 0.5


def test_white_matter_is_at_one_in_every_target(head):
    batch = draw(sampler(head), 24, seed=3)
    white = (batch.anatomy[:, 3] > 0.97) & (batch.target[:, 0] > 0)
    medians = [
        t[w].median() for t, w in zip(batch.target[:, 0], white, strict=True) if w.sum() > 30
    ]
    assert len(medians) > 8
    np.testing.assert_allclose(np.array(medians), 1, atol=0.08)


def test_every_loss_reaches_the_networks_that_it_is_for(head):
    """A term without gradient trains nothing, however it falls."""
    training = Haca3Training(SMALL, sampler(head))
    # past the warm part: anatomy learns from the reconstruction too
    terms = training.compute_terms(draw(sampler(head), 2), step=2, done=0.6)
    reached = {
        'reconstruction': ('beta', 'theta', 'attention', 'decoder', 'lookup'),
        'kl': ('theta',),
        'anatomy': ('beta',),
        'artifact': ('eta',),
        'cycle': ('decoder', 'theta', 'eta'),
        'tissue': ('beta',),
        'levels': ('theta',),
        'attention': ('attention',),
    }
    assert set(terms) == set(reached)
    alone = {'artifact': 'eta', 'attention': 'attention'}
    for name, parts in reached.items():
        training.network.zero_grad()
        terms[name].backward(retain_graph=True)
        for part in parts:
            gradients = [p.grad for p in getattr(training.network, part).parameters()]
            total = sum(g.abs().sum() for g in gradients if g is not None)
            assert total > 0, f'{name} does not reach {part}'
        if name in alone:
            moved = {
                key.partition('.')[0]
                for key, p in training.network.named_parameters()
                if p.grad is not None and p.grad.abs().sum() > 0
            }
            assert moved == {alone[name]}


def test_eta_learns_alone_first(head, monkeypatch):
    monkeypatch.setattr('harmony_app.training.haca3.Haca3Training.checks', (1, 2))
    training = Haca3Training(SMALL, sampler(head), sampler(head, artifacts=False))
    batch = draw(sampler(head), 2)
    terms = training.losses(batch, 1, SMALL.eta_first - 0.01)
    assert set(terms) == set(training.terms)
    terms['loss'].backward()
    learning = {
        k.partition('.')[0] for k, p in training.network.named_parameters() if p.grad is not None
    }
    assert learning == {'eta'}
    assert training.validate(training.network) == {}
    assert training.losses(batch, 1, SMALL.eta_first)['reconstruction'] > 0
    assert 'eta_spearman' in training.validate(training.network)


def test_one_network_learns_where_told_so(head):
    training = Haca3Training(SMALL, sampler(head))
    training.learn_only('attention')
    training.losses(draw(sampler(head), 2), 0, 0.9)['loss'].backward()
    everything = [('helper', p) for m in training.helpers.values() for p in m.parameters()]
    everything += list(training.network.named_parameters())
    assert {k.partition('.')[0] for k, p in everything if p.grad is not None} == {'attention'}


def test_only_eta_sees_the_air(head):
    training = Haca3Training(SMALL, sampler(head))
    batch = draw(sampler(head), 6)
    outside = batch.views[:, :2] * (1 - batch.source_masks)
    assert 0 < (outside.sum((1, 2, 3)) > 0).float().mean() < 1
    style_outside = batch.views[:, 2:] * (1 - batch.style_mask)
    ghosted = replace(
        batch,
        sources=batch.sources + 0.2 * outside,
        style=batch.style + 0.2 * style_outside,
    )
    nets = training.network
    masks = batch.source_masks.flatten(0, 1)[:, None]
    one, other = (b.sources.flatten(0, 1)[:, None] for b in (batch, ghosted))
    assert torch.equal(nets.anatomy(one, masks), nets.anatomy(other, masks))
    assert torch.equal(nets.theta(one, masks)[0], nets.theta(other, masks)[0])
    results = [reconstruct(nets, b) for b in (batch, ghosted)]
    with_air = outside.sum((2, 3)) > 0
    assert not torch.isclose(results[0][3], results[1][3]).all(2)[with_air].any()
    assert torch.equal(results[0][3][~with_air], results[1][3][~with_air])
    # the decoder is given the same anatomy and theta; only the weights follow eta
    even = torch.full((6, 2), 0.5)
    fused = [
        nets.fuse(nets.anatomy(s, masks).unflatten(0, (6, 2)), even, batch.source_masks[:, :, None])
        for s in (one, other)
    ]
    thetas = [nets.theta(b.style, b.style_mask)[0] for b in (batch, ghosted)]
    decoded = [nets.decode(*f, theta) for f, theta in zip(fused, thetas, strict=True)]
    assert torch.equal(*decoded)
    terms = [training.compute_terms(b, 1, 0.9) for b in (batch, ghosted)]
    for name in ('kl', 'anatomy', 'tissue', 'levels'):
        assert torch.equal(terms[0][name], terms[1][name]), name


def test_attention_is_to_go_where_the_tissues_are_explained():
    fractions = torch.nn.functional.one_hot(torch.arange(16).reshape(1, 4, 4) % 5, 5)
    fractions = fractions.movedim(-1, 1).float()
    sharp, vague = 8 * fractions, torch.zeros_like(fractions)
    masks = torch.ones(1, 2, 4, 4)
    explained = losses.tissue_fit(torch.stack([sharp, vague], 1), fractions, masks)
    torch.testing.assert_close(explained[0, 1], -torch.tensor(5.0).log())
    assert explained[0, 0] > -0.01
    right, wrong = (
        losses.attention_loss(torch.tensor([w]), explained, torch.ones(1))
        for w in ([0.99, 0.01], [0.01, 0.99])
    )
    assert right < 0.02 < wrong
    assert losses.attention_loss(torch.tensor([[0.0, 1.0]]), explained, torch.zeros(1)) == 0


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
    whole = Loop(Haca3Training(SMALL, sampler(head)), SHORT, tmp_path / 'whole')
    whole.run()

    first = Loop(Haca3Training(SMALL, sampler(head)), SHORT, tmp_path / 'parts')
    batches = iter(first._loader())
    for step in range(3):
        first._step(next(batches), step / 4)
    first.save()
    second = Loop(Haca3Training(SMALL, sampler(head), seed=7), SHORT, tmp_path / 'parts')
    assert second.resume()
    assert second.progress.step == 3
    second.run()

    assert second.progress.step == whole.progress.step == 4
    for name, module in whole.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, second.modules[name].state_dict()[key]), f'{name}.{key}'


def test_what_nobody_knows_teaches_nothing(head):
    """Examples of real scans have no true tissue: nothing of it may reach the networks."""
    training = Haca3Training(SMALL, sampler(head))
    batch = draw(sampler(head), 2)
    unknown = replace(batch, known=torch.zeros(2))
    nonsense = replace(
        unknown, anatomy=torch.rand(batch.anatomy.shape), levels=torch.rand(batch.levels.shape)
    )
    for step, done in ((1, 0.1), (2, 0.9)):
        one, other = (training.losses(b, step, done) for b in (unknown, nonsense))
        assert one['tissue'] == other['tissue'] == 0
        assert one['levels'] == other['levels'] == 0
        assert one['loss'] == other['loss']


def test_an_absent_source_has_no_weight(head):
    training = Haca3Training(SMALL, sampler(head))
    batch = draw(sampler(head), 2)
    alone = replace(batch, present=torch.tensor([[True, False], [True, False]]))
    sources = alone.sources.clone()
    sources[:, 1] = torch.rand(sources[:, 1].shape)
    for seed in range(20):
        noise = Noise(torch.tensor([seed, seed + 100]), 'cpu')
        assert torch.equal(training._dropout(alone.present, noise), alone.present)
    found = reconstruct(training.network, alone)[0]
    other = reconstruct(training.network, replace(alone, sources=sources))[0]
    inside = batch.source_masks[:, :1] > 0
    torch.testing.assert_close(found[inside], other[inside])
    assert training.compute_terms(alone, 2, 0.9)['anatomy'] == 0


def test_noise_of_an_example_does_not_depend_on_its_batch():
    seeds = torch.tensor([3, 2**61, 5])
    whole, part = Noise(seeds, 'cpu').normal(4, 2), Noise(seeds[1:2], 'cpu').normal(4, 2)
    assert torch.equal(whole[1:2], part)
    assert not torch.equal(whole[0], whole[1])


def test_bfloat16_gives_nearly_the_same_loss(head):
    training, batch = Haca3Training(SMALL, sampler(head)), draw(sampler(head), 2)
    exact = training.losses(batch, 1, 0.9)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = training.losses(batch, 1, 0.9)
    for name in ('reconstruction', 'anatomy', 'tissue', 'levels'):
        assert rounded[name].item() == pytest.approx(exact[name].item(), rel=0.1), name


def test_a_checkpoint_of_other_networks_is_refused(head, tmp_path):
    loop = Loop(Haca3Training(SMALL, sampler(head)), SHORT, tmp_path)
    assert not loop.resume()
    (tmp_path / CHECKPOINT).write_bytes(b'no tensors here')
    with pytest.raises(InputError, match='is not a checkpoint'):
        loop.resume()
    other = torch.nn.Linear(2, 2)
    save_checkpoint(
        tmp_path / CHECKPOINT, {'network': other}, torch.optim.AdamW(other.parameters()), {}
    )
    with pytest.raises(InputError, match='of other networks'):
        loop.resume()


def test_command_line_refuses_to_overwrite(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b'')
    with pytest.raises(InputError, match='--resume'):
        main(['--heads', str(tmp_path), '--out', str(tmp_path)])


def test_validation_knows_a_perfect_result(head):
    (batch,) = draw_checks(sampler(head, artifacts=False), 1, 4)
    scale = batch.target.flatten(1).quantile(0.995, dim=1).clamp_min(0.5)
    mask = batch.source_masks[:, :1]
    perfect = structural_similarity(batch.target, batch.target, mask, scale)
    torch.testing.assert_close(perfect, torch.ones(4))
    assert (structural_similarity(batch.sources[:, :1], batch.target, mask, scale) < 0.999).all()

    nets = Haca3Training(SMALL, sampler(head)).network
    metrics = validate(nets, [batch])
    assert 0 <= metrics['order'] <= 1
    assert -1 <= metrics['eta_spearman'] <= 1
    # each source of a pair is spoiled in turn: an attention that sees nothing is at chance
    assert 0 < metrics['attention_away'] < 1
    assert metrics['l1_all'] > 0
    # an example that shows nothing is not judged
    hidden = batch.source_masks.clone()
    hidden[0] = 0
    kept = replace(batch, source_masks=hidden)
    left = Batch(*(getattr(batch, name)[1:] for name in vars(batch)))
    assert validate(nets, [kept])['psnr_all'] == pytest.approx(validate(nets, [left])['psnr_all'])
    result, union, weights, _ = reconstruct(nets, batch)
    assert torch.equal(result, reconstruct(nets, batch)[0])
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert (result[union == 0] == 0).all()
    picture = example_picture(nets, batch)
    assert picture.shape == (7 * 32, 4 * 32)
    assert 0 <= picture.min() < picture.max() <= 1


def test_a_training_begins_from_a_model_folder(head, tmp_path):
    first = Haca3Training(SMALL, sampler(head), seed=5)
    Haca3(first.network, None, {}).save(tmp_path / 'model')
    second = Haca3Training(SMALL, sampler(head))
    second.begin_from(tmp_path / 'model')
    loop = Loop(second, SHORT, tmp_path)
    for nets in (second.network, loop.average):
        for kept, wanted in zip(nets.parameters(), first.network.parameters(), strict=True):
            # packaged weights are halves
            torch.testing.assert_close(kept, wanted, atol=1e-3, rtol=1e-3)
    with pytest.raises(InputError, match='other widths'):
        Haca3Training(replace(SMALL, variant='paper'), sampler(head)).begin_from(tmp_path / 'model')
