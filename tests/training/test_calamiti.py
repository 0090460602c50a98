"""The training of CALAMITI: draws, losses, what an adaptation may move, and the model folder."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.calamiti import Calamiti
from harmony_app.methods.haca3 import Haca3
from harmony_app.methods.registry import packaged_model
from harmony_app.nets.calamiti import VARIANTS, CalamitiNets
from harmony_app.nets.unet import UNetConfig
from harmony_app.training import calamiti_weights
from harmony_app.training.base import LoopSettings
from harmony_app.training.calamiti import CalamitiTraining, main
from harmony_app.training.calamiti_draws import (
    HOME,
    HomePhantom,
    HomeSessions,
    SiteBatch,
    most_common_site,
)
from harmony_app.training.calamiti_losses import site_likelihood, swap_channels
from harmony_app.training.calamiti_recipe import CalamitiRecipe, fuse_contrasts
from harmony_app.training.calamiti_settings import Settings
from harmony_app.training.calamiti_validation import example_picture, reconstruct, validate
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.material import Material, PhantomConfig
from harmony_app.training.parts import keep_all_but
from harmony_app.training.session_slices import SessionSlices
from harmony_app.training.slice_scores import draw_checks
from harmony_app.training.slices import draw_looks

SMALL = Settings(variant='tiny', size=32)
SHORT = LoopSettings(batch=2, steps=2, log_steps=1, validation_steps=2)


@pytest.fixture(autouse=True, scope='module')
def tiny():
    """Widths that are computed in a moment."""
    config = replace(
        VARIANTS['compact'],
        variant='tiny',
        beta=UNetConfig((4, 4, 8, 8, 8), (1, 1, 1, 1, 1), norm_finest=False),
        decoder=UNetConfig((4, 4, 8, 8, 8), (1, 1, 1, 1, 1), norm=False),
        theta_widths=(4, 4, 8, 8),
        discriminator_widths=(4, 4, 4),
        fusion_width=4,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, 'tiny', config)
        yield


def source(head, share=0.5, **options):
    return HomePhantom([head, head], 32, share, **options)


def draw(drawn, count, seed=0):
    return SiteBatch.join([drawn.draw(np.random.default_rng([seed, i])) for i in range(count)])


def test_site_a_is_one_scanner_and_the_others_are_not(head):
    assert set(HOME) == set(CONTRASTS)
    assert draw(source(head, share=0.0), 4).home.sum() == 0
    assert draw(source(head, share=1.0), 4).home.tolist() == [1.0] * 4

    def spread(protocols):
        looks = [
            draw_looks(['T1w'], np.random.default_rng(i), protocols)[0].levels() for i in range(12)
        ]
        return np.std(looks, axis=0).mean()

    assert spread(HOME) < 0.3 * spread(None)


def test_a_batch_keeps_its_sites_on_the_way(head):
    batch = draw(source(head), 6)
    assert isinstance(batch.to('cpu'), SiteBatch)
    assert 0 < batch.home.sum() < 6


def test_channels_come_from_either_contrast_and_from_no_other():
    generator = torch.Generator().manual_seed(0)
    betas = torch.rand(3, 2, 5, 4, 4, generator=generator)
    uniform = torch.rand(3, 5, generator=generator)
    swapped = swap_channels(betas, uniform)
    for example in range(3):
        for level in range(5):
            wanted = betas[example, 0 if uniform[example, level] < 0.5 else 1, level]
            assert torch.equal(swapped[example, level], wanted)


def test_the_likelihood_is_equation_1():
    logits = torch.tensor([2.0, -1.0, 0.5])[:, None, None, None].expand(3, 1, 2, 2)
    home, mask = torch.tensor([1.0, 0.0, 0.0]), torch.ones(3, 1, 2, 2)
    certain = torch.sigmoid(torch.tensor([2.0, -1.0, 0.5]))
    expected = certain[0].log() + 0.5 * ((1 - certain[1]).log() + (1 - certain[2]).log())
    torch.testing.assert_close(site_likelihood(logits, mask, home), expected)
    # what is outside counts nothing, and neither does a group that is not there
    mask[1:] = 0
    torch.testing.assert_close(site_likelihood(logits, mask, home), certain[0].log())


def test_every_loss_reaches_the_networks_that_it_is_for_and_no_other(head):
    training = CalamitiTraining(SMALL, source(head))
    terms = training.compute_terms(draw(source(head), 4), done=0.6)
    reached = {
        'reconstruction': {'beta', 'beta_output', 'theta', 'decoder', 'lookup'},
        'kl': {'theta'},
        'beta': {'beta', 'beta_output'},
        'adversarial': {'beta', 'beta_output'},
        'discriminator': {'discriminator'},
        'tissue': {'beta', 'beta_output'},
        'levels': {'theta'},
    }
    assert set(terms) == set(reached)
    for name, parts in reached.items():
        training.network.zero_grad()
        terms[name].backward(retain_graph=True)
        moved = {
            key.partition('.')[0]
            for key, p in training.network.named_parameters()
            if p.grad is not None and p.grad.abs().sum() > 0
        }
        assert moved == parts, name


def test_the_encoder_works_against_the_discriminator(head):
    training = CalamitiTraining(SMALL, source(head))
    terms = training.compute_terms(draw(source(head), 4), done=0.6)
    assert terms['adversarial'].item() == pytest.approx(-terms['discriminator'].item())


def test_a_warm_decoder_does_not_drag_the_encoders(head):
    training = CalamitiTraining(SMALL, source(head))
    terms = training.compute_terms(draw(source(head), 2), done=0.0)
    terms['reconstruction'].backward()
    moved = {
        k.partition('.')[0] for k, p in training.network.named_parameters() if p.grad is not None
    }
    assert moved == {'decoder', 'lookup'}


def test_what_nobody_knows_teaches_nothing(head):
    training = CalamitiTraining(SMALL, source(head))
    unknown = replace(draw(source(head), 2), known=torch.zeros(2))
    nonsense = replace(
        unknown, anatomy=torch.rand(unknown.anatomy.shape), levels=torch.rand(unknown.levels.shape)
    )
    one, other = (training.losses(b, 1, 0.5) for b in (unknown, nonsense))
    assert one['tissue'] == one['levels'] == 0
    assert one['loss'] == other['loss']


def test_a_contrast_that_is_judged_is_made_of_one_source(head):
    training = CalamitiTraining(SMALL, source(head))
    batch = draw(source(head, artifacts=False), 3)
    other = batch.sources.clone()
    other[:, 1] = torch.rand(other[:, 1].shape)
    one, two = (reconstruct(training.network, b)[0] for b in (batch, replace(batch, sources=other)))
    assert torch.equal(one, two)


def test_validation_tells_contrasts_agreement_and_sites(head):
    training = CalamitiTraining(SMALL, None)
    batches = draw_checks(source(head, artifacts=False), 2, 4)
    metrics = validate(training.network, batches)
    assert {'psnr_all', 'ssim_all', 'l1_all', 'agreement', 'site_accuracy'} <= set(metrics)
    assert 0 <= metrics['agreement'] <= 1
    same = replace(batches[0], sources=batches[0].sources[:, :1].expand(-1, 2, -1, -1))
    same = replace(same, source_masks=same.source_masks[:, :1].expand(-1, 2, -1, -1))
    assert validate(training.network, [same])['agreement'] == 1
    alone = replace(batches[0], home=torch.zeros(4))
    assert 'site_accuracy' not in validate(training.network, [alone])
    assert example_picture(training.network, batches[0]).shape == (7 * 32, 4 * 32)


def test_two_steps_end_in_a_model_that_gives_the_same(head, tmp_path, monkeypatch):
    monkeypatch.setattr('harmony_app.training.calamiti.CalamitiTraining.checks', (1, 2))
    check = source(head, artifacts=False)
    training = CalamitiTraining(SMALL, source(head), check)
    loop = Loop(training, SHORT, tmp_path)
    progress = loop.run()
    assert progress.step == 2
    assert 'psnr_all' in progress.metrics
    calamiti_weights.main([str(tmp_path / CHECKPOINT), str(tmp_path / 'model')])
    loaded = Calamiti.load(tmp_path / 'model')
    assert loaded.metadata['training']['settings']['adversarial'] == SMALL.adversarial
    assert loaded.metadata['training']['steps'] == 2
    assert loaded.metadata['metrics'] == progress.metrics
    for name, tensor in loop.average.state_dict().items():
        kept = loaded.nets.state_dict()[name]
        torch.testing.assert_close(kept, tensor, atol=1e-3, rtol=1e-3)
    begun = CalamitiTraining(SMALL, None)
    begun.begin_from(tmp_path / 'model')
    for name, tensor in begun.network.state_dict().items():
        assert torch.equal(tensor, loaded.nets.state_dict()[name]), name
    with pytest.raises(InputError, match='other widths'):
        CalamitiTraining(replace(SMALL, variant='compact'), None).begin_from(tmp_path / 'model')


class Repeated:
    """Stands for the scans of a site C, of which nobody knows the truth."""

    def __init__(self, head):
        self.drawn = source(head, share=0.0)

    def sample(self, rng):
        batch = self.drawn.draw(rng)
        fields = {k: v[0].numpy() for k, v in vars(batch).items() if k != 'home'}
        return fields | {'known': np.float32(0)}, 'C'


def test_an_adaptation_moves_the_named_parts_alone(head, tmp_path, monkeypatch):
    torch.manual_seed(0)
    Calamiti(CalamitiNets(VARIANTS['tiny']), None, {}).save(tmp_path / 'parent')
    monkeypatch.setattr(
        'harmony_app.training.slice_recipe.SessionSlices', lambda *a, **k: Repeated(head)
    )
    recipe = CalamitiRecipe()
    training = recipe.adaptation(tmp_path / 'parent', [], [], 'cpu', 1, 'C')
    batch = training.source.draw(np.random.default_rng(0))
    assert batch.home.sum() == 0
    names = set(keep_all_but(training.network, recipe.adapted))
    terms = training.losses(batch, 0, 0.0)
    terms['adversarial'].backward(retain_graph=True)
    fitted = dict(training.network.named_parameters())
    assert fitted['beta_output.head.weight'].grad.abs().sum() > 0  # the fixed judge still counts
    start = {k: v.clone() for k, v in training.network.state_dict().items()}
    loop = Loop(training, replace(SHORT, average=0.0), tmp_path / 'run')
    loop.run()
    changed = {k for k, v in loop.average.state_dict().items() if not torch.equal(v, start[k])}
    assert changed
    assert changed <= names
    assert {name.split('.')[0] for name in changed} == {'beta_output', 'theta'}


def test_a_model_that_knew_one_site_is_adapted_without_a_judge(head, tmp_path, monkeypatch):
    told = {'training': {'settings': {'adversarial': 0.0}}}
    Calamiti(CalamitiNets(VARIANTS['tiny']), None, told).save(tmp_path)
    monkeypatch.setattr(
        'harmony_app.training.slice_recipe.SessionSlices', lambda *a, **k: Repeated(head)
    )
    assert CalamitiRecipe().adaptation(tmp_path, [], [], 'cpu', 1, 'C').settings.adversarial == 0


def session(site, contrasts=('T1w', 'T2w')):
    scans = [SimpleNamespace(site=site, contrast=contrast) for contrast in contrasts]
    return SimpleNamespace(scans=scans)


def test_site_a_of_real_sessions_is_the_largest():
    assert most_common_site([session('B'), session('C'), session('C')]) == 'C'
    assert most_common_site([session('B'), session('A')]) == 'A'
    assert most_common_site([session('B'), session(None)]) is None


def test_one_site_or_one_contrast_changes_the_training(monkeypatch):
    monkeypatch.setattr(
        'harmony_app.training.slice_recipe.SessionSlices', lambda *a, **k: SimpleNamespace()
    )

    def trained(sessions):
        material = SimpleNamespace(
            training=sessions, validation=[], heads=[], held_out=[], phantom=None,
            shares=lambda: (1.0, 0.0),
        )  # fmt: skip
        return CalamitiRecipe().training(material, 'cpu', 1, None)

    two = trained([session('B'), session('C')])
    assert two.settings.adversarial > 0
    assert two.source.home == 'B'
    one = trained([session('B')])
    assert one.settings.adversarial == one.settings.discriminator == 0
    with pytest.raises(InputError, match='no session has two contrasts'):
        trained([session('B', ('T1w',))])


def test_real_sessions_carry_their_site(monkeypatch, head):
    slices = Repeated(head)
    assert HomeSessions(slices, 'C').draw(np.random.default_rng(0)).home == 1
    for home in ('A', None):
        assert HomeSessions(slices, home).draw(np.random.default_rng(0)).home == 0
    assert hasattr(SessionSlices, 'sample')


def test_each_contrast_has_its_own_fusion(head):
    torch.manual_seed(0)
    nets = CalamitiNets(VARIANTS['tiny'])
    fusion, facts = fuse_contrasts(nets, [head], [], seed=1, minutes=1, steps=1, blocks=2, edge=32)
    assert set(facts) == set(CONTRASTS)
    kept = {
        c
        for c, told in facts.items()
        if min(told['unlike_alike'], told['unlike_learned']) < told['unlike_median']
    }
    assert set(fusion or ()) == kept


def test_the_command_trains_on_heads_and_goes_on_exactly(head, tmp_path, monkeypatch):
    monkeypatch.setattr('harmony_app.training.calamiti.CalamitiTraining.checks', (1, 2))
    for name in 'abc':
        np.save(tmp_path / f'{name}_fractions.npy', head.fractions)
        np.save(tmp_path / f'{name}_maps.npy', head.maps)
    torch.manual_seed(3)
    Calamiti(CalamitiNets(VARIANTS['tiny']), None, {}).save(tmp_path / 'model')
    common = ['--heads', str(tmp_path), '--size', '32', '--variant', 'tiny', '--batch', '2']
    common += ['--begin-from', str(tmp_path / 'model'), '--out']
    main([*common, str(tmp_path / 'whole'), '--steps', '2'])
    main([*common, str(tmp_path / 'parts'), '--steps', '1'])
    main([*common, str(tmp_path / 'parts'), '--steps', '2', '--resume'])
    whole, parts = (tmp_path / name / CHECKPOINT for name in ('whole', 'parts'))
    nets, facts = calamiti_weights.read_averaged(whole)
    again, others = calamiti_weights.read_averaged(parts)
    assert facts['progress']['step'] == others['progress']['step'] == 2
    assert facts['training'] == asdict(SMALL)
    begun = Calamiti.load(tmp_path / 'model').nets.state_dict()
    for name, tensor in nets.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
        # two steps do not lead far from the model that it began from
        torch.testing.assert_close(tensor, begun[name], atol=1e-3, rtol=0)
    assert not torch.equal(nets.lookup[0].weight, begun['lookup.0.weight'])


def test_the_weights_of_what_the_phantom_knows_fall():
    training = CalamitiTraining(SMALL, None)
    first, middle, last = (training.weights(done) for done in (0.0, 0.4, 1.0))
    for name in ('tissue', 'levels'):
        assert first[name] == getattr(SMALL, name)
        assert middle[name] == pytest.approx(0.55 * first[name])
        assert last[name] == pytest.approx(0.1 * first[name])
    assert first['adversarial'] == 0  # the decoder learns alone
    assert middle['adversarial'] == SMALL.adversarial
    assert middle['kl'] == first['kl'] == SMALL.kl


class Unpaired(CalamitiRecipe):
    """Stands for a method that learns from single contrasts and is fused by the median."""

    pairs = False
    fuse = None


def test_a_recipe_may_need_no_pairs_and_no_fusion(head, monkeypatch):
    monkeypatch.setattr('harmony_app.training.slice_recipe.SessionSlices', lambda *a, **k: 'slices')
    phantom = PhantomConfig(size=64, variant='tiny', share=0.5)
    alone = Material([session('B', ('T1w',))], [], [], [], replace(phantom, share=0.0))
    training = Unpaired().training(alone, 'cpu', 1, None)
    assert (training.settings.size, training.settings.variant) == (64, 'tiny')
    assert training.validate(training.network) == {}
    method, told = Unpaired().finish(training.network, alone, SHORT, 'cpu')
    assert method.fusion_for('T1w') is None
    assert told == {}
    both = Unpaired().training(replace(alone, heads=[head], phantom=phantom), 'cpu', 1, None)
    real, drawn = both.source.sources
    assert real.slices == 'slices'
    assert drawn.sampler.size == 64


def test_the_command_refuses_to_write_over_a_training(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b'')
    with pytest.raises(InputError, match='give --resume'):
        main(['--heads', str(tmp_path), '--out', str(tmp_path)])
    with pytest.raises(InputError, match='no checkpoint to resume'):
        main(['--heads', str(tmp_path), '--out', str(tmp_path / 'no'), '--resume'])


def test_it_begins_where_haca3_stands(head):
    known = Haca3.load().nets
    training = CalamitiTraining(replace(SMALL, variant='compact'), source(head))
    training.begin_from(packaged_model('haca3'))
    nets, batch = training.network, draw(source(head), 3)
    images, mask = batch.sources[:, :1], batch.source_masks[:, :1]
    with torch.no_grad():
        same = (nets.labels(images, mask) == known.labels(images, mask)) | (mask[:, 0] == 0)
        assert same.float().mean() > 0.95
        torch.testing.assert_close(nets.theta(images, mask)[0], known.theta(images, mask)[0])
        anatomy = nets.anatomy(images, mask)
        theta = nets.theta(images, mask)[0]
        lightest = known.lookup(theta).argmax(1)
        decoded = nets.decode(anatomy, mask, theta)
        assert torch.isfinite(decoded).all()
        assert torch.equal(nets.lookup(theta).argmax(1), lightest)


def test_a_model_of_other_widths_is_refused(head):
    training = CalamitiTraining(SMALL, source(head))
    with pytest.raises(InputError, match='other widths'):
        training.begin_from(packaged_model('haca3'))
