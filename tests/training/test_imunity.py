"""The training of ImUnity: draws, losses and whom they reach, unlearning, and the model folder."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from harmony_app.engine.compute import Compute
from harmony_app.errors import InputError, OptionError
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.imunity import ImUnity
from harmony_app.nets.imunity import CELL, VARIANTS, ImUnityNets
from harmony_app.training import imunity_validation, imunity_weights
from harmony_app.training.alterations import draw_alteration
from harmony_app.training.base import LoopSettings
from harmony_app.training.biology import Biology, Feature, read_biology
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.fusion_blocks import draw_block
from harmony_app.training.imunity import ImUnityTraining, main
from harmony_app.training.imunity_draws import (
    NOBODY,
    UNSEEN,
    Pair,
    PhantomPairs,
    SessionPairs,
    training_sites,
)
from harmony_app.training.imunity_losses import (
    biological_loss,
    confusion_loss,
    latent_divergence,
    site_loss,
)
from harmony_app.training.imunity_recipe import ImUnityRecipe, sites_of
from harmony_app.training.imunity_settings import Settings
from harmony_app.training.imunity_sites import FEW, SiteModule
from harmony_app.training.imunity_validation import example_picture, validate
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.losses import judged_by_fixed
from harmony_app.training.parts import keep_all_but
from harmony_app.training.session_slices import SessionSlices
from harmony_app.training.sessions import CachedScan, Session
from harmony_app.training.slice_scores import draw_checks

SMALL = Settings(variant='tiny', size=32)
SHORT = LoopSettings(batch=2, steps=2, log_steps=1, validation_steps=2)
SITES = training_sites()
AGE = Feature('age', None, 40.0, 10.0)


@pytest.fixture(autouse=True, scope='module')
def tiny():
    """Widths that are computed in a moment."""
    config = replace(
        VARIANTS['compact'],
        variant='tiny',
        latent=20,
        theta=4,
        anatomy_width=8,
        anatomy_blocks=1,
        decoder_width=8,
        decoder_blocks=1,
        fine=(6, 4),
        theta_widths=(4, 4, 8, 8),
        fusion_width=4,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, 'tiny', config)
        yield


def source(head, settings=SMALL, **options):
    return PhantomPairs([head, head], settings, SITES, **options)


def draw(drawn, count, seed=0):
    return Pair.join([drawn.draw(np.random.default_rng([seed, i])) for i in range(count)])


def trained(head, settings=SMALL, **options):
    return ImUnityTraining(settings, source(head), sites=list(SITES), **options)


def moved_by(training, loss):
    """Networks that a loss gives a gradient, helpers with them."""
    modules = {'network': training.network, **training.helpers}
    for module in modules.values():
        module.zero_grad()
    loss.backward(retain_graph=True)
    return {
        key.partition('.')[0] if name == 'network' else name
        for name, module in modules.items()
        for key, p in module.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }


def test_sites_of_the_benchmark_are_never_trained_on():
    study = yaml.safe_load((Path(__file__).parents[2] / 'benchmarks/study.yaml').read_text())
    assert set(study['sites']) == set(UNSEEN)
    assert not set(UNSEEN) & set(SITES)
    assert len(SITES) == 12


def test_a_share_of_the_anatomy_slices_is_of_a_named_site(head):
    assert (draw(source(head, replace(SMALL, sited=0.0)), 4).site == NOBODY).all()
    sited = draw(source(head, replace(SMALL, sited=1.0)), 6).site
    assert ((sited >= 0) & (sited < len(SITES))).all()


def test_t1w_is_drawn_as_often_as_asked(head):
    assert set(draw(source(head, replace(SMALL, t1w=1.0)), 5).contrast.tolist()) == {0}
    assert 0 not in draw(source(head, replace(SMALL, t1w=0.0)), 5).contrast.tolist()


def test_without_our_additions_the_truth_is_the_slice_altered_as_the_other(head):
    paper = replace(SMALL, protocols=0.0, gammas=0.0, maps=0.0, others=0.0)
    batch = draw(source(head, paper), 6)
    # but for noise, blur and bias
    same = ((batch.source - batch.target).abs() * batch.mask).sum() / batch.mask.sum()
    other = draw(source(head, replace(paper, protocols=1.0)), 6)
    away = ((other.source - other.target).abs() * other.mask).sum() / other.mask.sum()
    assert same < 0.6 * away


def test_an_alteration_keeps_black_and_white_matter():
    for seed, shares in enumerate([(1, 0), (0, 1), (0, 0)]):
        alter = draw_alteration(*shares, (0.5, 1.5), 0.3, np.random.default_rng(seed))
        values = np.array([0.0, 0.3, 0.7, 1.0, 2.0], np.float32)
        altered = alter(values)
        assert np.allclose(altered[[0, 3]], [0, 1], atol=1e-6)
        assert (np.diff(altered) > 0).all()
        assert np.allclose(altered, values) == (shares == (0, 0))


def test_gamma_lies_in_its_range():
    drawn = [
        draw_alteration(1, 0, (0.5, 1.5), 0.3, np.random.default_rng(i))(np.array([0.5]))[0]
        for i in range(40)
    ]
    exponents = np.log(drawn) / np.log(0.5)
    assert exponents.min() >= 0.5
    assert exponents.max() <= 1.5
    assert np.ptp(exponents) > 0.7


def test_every_loss_reaches_the_networks_that_it_is_for_and_no_other(head):
    training = trained(head, features=[AGE])
    named = draw(source(head, replace(SMALL, sited=1.0, t1w=1.0)), FEW + 4)
    batch = replace(named, biology=torch.randn(FEW + 4, 1))
    terms = training.compute_terms(batch)
    generator = {'anatomy', 'theta', 'decoder'}
    reached = {
        'reconstruction': generator,
        'kl': {'anatomy', 'theta'},
        'adversarial': generator,
        'discriminator': {'discriminator'},
        'confusion': {'anatomy'},
        'sites': {'sites'},
        'biological': {'anatomy', 'biology'},
        'tissue': generator,
        'levels': {'theta', 'reader'},
    }
    assert {'loss', *terms} == set(training.terms)
    assert set(terms) == set(reached)
    for name, parts in reached.items():
        assert moved_by(training, terms[name]) == parts, name


def test_the_module_of_sites_can_read_theta_too(head):
    training = trained(head, replace(SMALL, unlearned='latent'))
    batch = draw(source(head, replace(SMALL, sited=1.0, t1w=1.0)), FEW)
    assert moved_by(training, training.compute_terms(batch)['confusion']) == {'anatomy', 'theta'}
    with pytest.raises(OptionError, match='choose one of anatomy, latent'):
        replace(SMALL, unlearned='all')


def test_the_loss_is_equation_4(head):
    training = trained(head)
    batch = draw(source(head), 3)
    terms = training.losses(batch, 0, 0.9)
    weights = dict.fromkeys(training.terms[1:], 1) | {'reconstruction': 100, 'kl': 1e-3}
    weights |= {'tissue': 2, 'levels': 2}  # a tenth is left
    expected = sum(weights[name] * terms[name] for name in weights)
    torch.testing.assert_close(terms['loss'], expected)
    early = training.losses(batch, 0, 0.0)
    assert training.weights(0.0)['adversarial'] == training.weights(0.0)['confusion'] == 0
    assert early['sites'] > 0


def test_a_generator_pays_for_what_the_discriminator_sees_through(head):
    training = trained(head)
    batch = draw(source(head), 2)
    judge = training.helpers['discriminator']
    paid = []
    for bias in (-2.0, 2.0):
        torch.nn.init.constant_(judge.head.bias, bias)
        paid.append(training.compute_terms(batch)['adversarial'].item())
    assert 0 < paid[1] < paid[0]


def test_sites_of_nobody_teach_nothing():
    logits, sites = torch.randn(4, 5), torch.tensor([1, NOBODY, 4, NOBODY])
    for loss in (site_loss, confusion_loss):
        assert loss(logits, sites) == loss(logits[[0, 2]], sites[[0, 2]])
        assert loss(logits, torch.full((4,), NOBODY)) == 0
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], sites[[0, 2]])
    torch.testing.assert_close(site_loss(logits, sites), expected)


def test_confusion_is_least_where_nothing_is_known():
    sites = torch.tensor([0])
    even = confusion_loss(torch.zeros(1, 5), sites)
    assert even.item() == pytest.approx(np.log(5))
    assert confusion_loss(torch.tensor([[3.0, 0, 0, 0, 0]]), sites) > even


def scanned(sites, contrasts, generator, size=16):
    """Scans of one slice whose texture tells the site."""
    count = len(sites)
    images = (
        torch.rand(count, 1, size, size, generator=generator) * (1.0 + sites)[:, None, None, None]
    )
    pair = Pair.join([Pair.of(dict.fromkeys(Pair.__dataclass_fields__, np.float32(0)))] * count)
    mask = torch.ones(count, 1, size, size)
    return replace(pair, source=images, mask=mask, site=sites, contrast=contrasts)


def test_the_module_keeps_the_scans_whose_site_is_named_and_forgets_the_oldest():
    generator = torch.Generator().manual_seed(0)
    module = SiteModule(2, 3, 16, kept=5)
    first = scanned(torch.tensor([0, NOBODY, 2]), torch.zeros(3, dtype=torch.int64), generator)
    assert module.add(first).tolist() == [0, 1]
    assert module.filled == 2
    assert module.sites.tolist() == [0, 2, NOBODY, NOBODY, NOBODY]
    torch.testing.assert_close(module.images[1, 0].float(), first.source[2], atol=1e-3, rtol=1e-3)
    second = scanned(torch.tensor([1, 1, 1, 1]), torch.ones(4, dtype=torch.int64), generator)
    fresh = module.add(second)
    assert fresh.tolist() == [2, 3, 4, 0]
    assert module.sites.tolist() == [1, 2, 1, 1, 1]
    chosen = module.choose(fresh, 5, [7])
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4]
    assert chosen.tolist() == module.choose(fresh, 5, [7]).tolist()
    assert module.choose(fresh, 1, [7]).tolist() == fresh.tolist()


def test_what_the_module_reads_is_standardised_over_the_scans_of_a_contrast():
    generator = torch.Generator().manual_seed(0)
    module = SiteModule(2, 3, 16, kept=40)
    contrasts = torch.tensor([0, 1] * 10 + [2])
    module.add(scanned(torch.zeros(21, dtype=torch.int64), contrasts, generator))
    features = module.read.shape[1]
    level = torch.tensor([0.0, 100.0, 7.0])[contrasts][:, None]
    module.read[:21] = level + torch.randn(21, features, generator=generator)
    given = []
    module.head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    module(module.read[:21], contrasts)
    for contrast in (0, 1):
        read = given[0][contrasts == contrast]
        assert read.mean(0).abs().max() < 1e-3
        torch.testing.assert_close(read.std(0), torch.ones(features), atol=0.02, rtol=0)
    assert not given[0][20].any()  # one scan alone has no spread


def test_statistics_are_of_the_foreground_and_of_all_slices_of_a_scan():
    generator = torch.Generator().manual_seed(0)
    module = SiteModule(3, 2, 16, slices=2)
    latent = torch.randn(4, 3, 4, 4, generator=generator)
    mask = torch.zeros(4, 1, 16, 16)
    mask[..., :8] = 1
    latent = latent * mask[..., ::CELL, ::CELL]
    read = module.statistics(latent, mask)
    assert read.shape == (2, module.read.shape[1])
    cropped = module.statistics(latent[..., :2], mask[..., :8])
    torch.testing.assert_close(read, cropped, atol=1e-5, rtol=1e-5)
    swapped = module.statistics(latent[[1, 0, 3, 2]], mask)
    torch.testing.assert_close(read, swapped)
    assert not torch.allclose(read, module.statistics(latent[[0, 2, 1, 3]], mask))


def test_unlearning_takes_the_site_out_of_a_latent():
    """The spread of a channel tells the site; what an encoder may scale forgets it."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    share = torch.nn.Parameter(torch.tensor(1.0))
    module = SiteModule(2, 2, 16, kept=64)
    groups = [{'params': module.parameters(), 'lr': 3e-3}, {'params': [share], 'lr': 0.02}]
    optimizer = torch.optim.Adam(groups)

    def encode(images):
        """Two channels; the first is normalised by as much as the share is small."""
        pixels = torch.nn.functional.avg_pool2d(images, 4) - 0.5
        level = pixels.square().mean((1, 2, 3), keepdim=True).sqrt()
        other = torch.flip(pixels, (2,)) / level
        return torch.cat([pixels / level ** (1 - share), other], dim=1)

    accuracies = []
    for step in range(300):
        sites = torch.randint(2, (8,), generator=generator)
        batch = scanned(sites, torch.zeros(8, dtype=torch.int64), generator)
        chosen = module.choose(module.add(batch), 16, [step])
        images, masks = (v[chosen].flatten(0, 1).float() for v in (module.images, module.masks))
        read = module.statistics(encode(images), masks)
        module.read[chosen] = read.detach()
        said = judged_by_fixed(module, read, module.contrasts[chosen])
        told = module(module.read, module.contrasts)
        accuracies.append(float((told.argmax(1) == module.sites)[: module.filled].float().mean()))
        loss = site_loss(told, module.sites)
        if step >= 60:
            loss = loss + 3 * confusion_loss(said, module.sites[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert accuracies[59] > 0.9
    assert share.abs() < 0.4


def test_the_biological_loss_is_equation_3():
    read, values = torch.tensor([[0.4], [-1.0]]), torch.tensor([[1.0], [0.0]])
    likely = torch.sigmoid(read[:, 0])
    expected = -(likely[0].log() + (1 - likely[1]).log()) / 2
    torch.testing.assert_close(biological_loss(read, values, [Feature('sex', 'F')]), expected)
    nobody = torch.full((2, 1), float('nan'))
    assert biological_loss(read, nobody, [Feature('sex', 'F')]) == 0


def test_divergence_counts_the_foreground_alone():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    mean = torch.randn(1, 3, 4, 4)
    spread = torch.randn(1, 3, 4, 4)
    cut = latent_divergence(mean[..., :2], spread[..., :2], mask[..., :8])
    torch.testing.assert_close(latent_divergence(mean, spread, mask), cut)


def test_columns_become_features():
    rows = [
        {'participant_id': 'sub-1', 'age': '20', 'sex': 'M', 'diagnosis': 'AD'},
        {'participant_id': 'sub-2', 'age': '40', 'sex': 'F', 'diagnosis': 'control'},
        {'participant_id': 'sub-3', 'age': 'n/a', 'sex': 'F', 'diagnosis': 'MCI'},
        {'participant_id': 'sub-4', 'age': '60', 'sex': 'M'},
        {'participant_id': 'sub-9', 'age': '99', 'sex': 'X', 'diagnosis': 'other'},
    ]
    biology = read_biology(rows, ['age', 'sex', 'diagnosis'], ['1', '2', '3', '4', '5'])
    told = [(f.column, f.level) for f in biology.features]
    assert told == [
        ('age', None), ('sex', 'F'), ('diagnosis', 'AD'), ('diagnosis', 'MCI'),
        ('diagnosis', 'control'),
    ]  # fmt: skip
    assert biology.of('2')[:2] == (0.0, 1.0)
    assert np.isnan(biology.of('3')[0])
    assert np.isnan(biology.of('4')[2:]).all()
    assert np.isnan(biology.of('5')).all()
    assert json.dumps(biology.describe())
    with pytest.raises(InputError, match='no column weight'):
        read_biology(rows, ['weight'], ['1', '2'])
    with pytest.raises(InputError, match='has 1 values'):
        read_biology(rows, ['sex'], ['1', '4'])


@pytest.fixture(scope='module')
def sessions(head, tmp_path_factory):
    """Two people at two sites, one T1w and one T2w scan each, cached."""
    folder = tmp_path_factory.mktemp('cache')
    weights = {'T1w': [0.7, 1.0, 0.2], 'T2w': [1.4, 1.0, 3.0]}
    found = []
    for person, site in (('01', 'B'), ('02', 'C')):
        stem = str(folder / person)
        np.save(f'{stem}_maps.npy', head.maps)
        scans = []
        for contrast, levels in weights.items():
            name = f'{stem}_{contrast}'
            fractions = head.fractions[[2, 0, 1]].astype(np.float32) / 255
            np.save(f'{name}_data.npy', np.tensordot(levels, fractions, 1).astype(np.float16))
            np.save(f'{name}_shown.npy', (255 * (head.fractions.sum(0) > 99)).astype(np.uint8))
            scans.append(CachedScan(Path(name).name, contrast, name, site))
        found.append(Session(f'sub-{person}', person, tuple(scans), stem))
    return found


def pairs_of(sessions, settings=SMALL, numbers=None, biology=None, **options):
    slices = SessionSlices(sessions, settings.size, **options)
    return SessionPairs(slices, settings, numbers or {}, biology)


def test_real_scans_teach_themselves(sessions):
    biology = Biology((Feature('sex', 'F'),), {'01': (1.0,)})
    still = replace(SMALL, gammas=0.0, maps=0.0)
    drawn = pairs_of(sessions, still, {'B': 4, 'C': 2}, biology, artifacts=False)
    batch = draw(drawn, 8)
    assert torch.equal(batch.source, batch.target)
    assert not batch.known.any()
    assert set(batch.site.tolist()) == {2, 4}
    assert (torch.isnan(batch.biology[:, 0]) == (batch.site == 2)).all()
    altered = draw(pairs_of(sessions, replace(SMALL, gammas=1.0, maps=0.0)), 4)
    assert not torch.equal(altered.source, altered.target)
    assert (draw(pairs_of(sessions), 3).site == NOBODY).all()


def test_what_nobody_knows_teaches_nothing(head):
    training = trained(head)
    unknown = replace(draw(source(head), 2), known=torch.zeros(2))
    nonsense = replace(
        unknown, anatomy=torch.rand(unknown.anatomy.shape), levels=torch.rand(unknown.levels.shape)
    )
    one, other = (training.losses(b, 1, 0.5) for b in (unknown, nonsense))
    assert one['tissue'] == one['levels'] == 0
    assert one['loss'] == other['loss']


def test_validation_tells_contrasts_and_sites(head):
    training = trained(head)
    batches = draw_checks(source(head, judged=True), 2, 4)
    metrics = validate(training.network, batches, training.helpers['sites'])
    assert {'psnr_all', 'ssim_all', 'l1_all', 'psnr_all_before', 'site_accuracy'} <= set(metrics)
    for batch in batches:
        for contrast in batch.contrast.tolist():
            assert f'psnr_{CONTRASTS[contrast]}' in metrics
    assert 'site_accuracy' not in validate(training.network, batches)
    assert example_picture(training.network, batches[0]).shape == (5 * 32, 4 * 32)


def test_two_steps_end_in_a_model_that_gives_the_same(head, tmp_path, monkeypatch):
    monkeypatch.setattr(ImUnityTraining, 'checks', (1, 2))
    training = ImUnityTraining.on_phantom(SMALL, [head], [head])
    loop = Loop(training, SHORT, tmp_path)
    progress = loop.run()
    assert progress.step == 2
    assert 'psnr_all' in progress.metrics
    imunity_weights.main([str(tmp_path / CHECKPOINT), str(tmp_path / 'model')])
    loaded = ImUnity.load(tmp_path / 'model')
    assert loaded.metadata['training']['settings']['confusion'] == SMALL.confusion
    assert loaded.metadata['metrics'] == progress.metrics
    for name, tensor in loop.average.state_dict().items():
        torch.testing.assert_close(loaded.nets.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    begun = trained(head)
    begun.begin_from(tmp_path / 'model')
    for name, tensor in begun.network.state_dict().items():
        assert torch.equal(tensor, loaded.nets.state_dict()[name]), name
    with pytest.raises(InputError, match='other widths'):
        trained(head, replace(SMALL, variant='compact')).begin_from(tmp_path / 'model')


def test_the_validation_command_tells_a_model_folder(head, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    ImUnity(ImUnityNets(VARIANTS['tiny']), None, {}).save(tmp_path)
    monkeypatch.setattr(
        'harmony_app.training.slice_validation.split_heads', lambda folder: ([], [head])
    )
    picture = tmp_path / 'p.png'
    imunity_validation.main(
        [str(tmp_path), '--heads', 'x', '--slices', '8', '--size', '32', '--picture', str(picture)]
    )
    assert 'ssim_all' in json.loads(capsys.readouterr().out)
    assert picture.exists()


def test_an_adaptation_moves_the_named_parts_alone(sessions, tmp_path):
    torch.manual_seed(0)
    ImUnity(ImUnityNets(VARIANTS['tiny']), None, {}).save(tmp_path / 'parent')
    recipe = ImUnityRecipe()
    recipe.settings = SMALL
    training = recipe.adaptation(tmp_path / 'parent', sessions, sessions, 'cpu', 1, 'C')
    assert set(training.helpers) == {'reader'}
    names = set(keep_all_but(training.network, recipe.adapted))
    start = {k: v.clone() for k, v in training.network.state_dict().items()}
    loop = Loop(training, replace(SHORT, average=0.0), tmp_path / 'run')
    loop.run()
    changed = {k for k, v in loop.average.state_dict().items() if not torch.equal(v, start[k])}
    assert changed <= names
    assert {'.'.join(name.split('.')[:2]) for name in changed} == {
        'theta.head', 'decoder.last', 'decoder.head',
    }  # fmt: skip


def material(**given):
    fields = {
        'training': [], 'validation': [], 'heads': [], 'held_out': [], 'phantom': None,
        'biology': None, 'shares': lambda: (0.5, 0.5),
    } | given  # fmt: skip
    return SimpleNamespace(**fields)


def test_sites_of_phantom_and_sessions_are_unlearned_together(head, sessions, monkeypatch):
    recipe = ImUnityRecipe()
    recipe.settings = SMALL
    biology = Biology((Feature('sex', 'F'),), {'01': (1.0,), '02': (0.0,)})
    both = material(training=sessions, heads=[head], biology=biology)
    training = recipe.training(both, 'cpu', 1, None)
    assert training.sites == (*SITES, 'B', 'C')
    batch = draw(training.source, 12)
    assert {12, 13} & set(batch.site.tolist())
    assert batch.biology.shape == (12, 1)
    assert torch.isfinite(batch.biology[batch.known == 0]).all()
    assert torch.isnan(batch.biology[batch.known == 1]).all()
    terms = training.losses(batch, 0, 0.5)
    assert torch.isfinite(terms['loss'])
    assert terms['biological'] > 0
    assert sites_of(material(training=sessions)) == ['B', 'C']
    alone = recipe.training(
        material(training=sessions[:1], shares=lambda: (1.0, 0.0)), 'cpu', 1, None
    )
    assert 'sites' not in alone.helpers
    assert alone.losses(draw(alone.source, 2), 0, 0.5)['confusion'] == 0


def test_the_command_refuses_to_write_over_a_training(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b'')
    with pytest.raises(InputError, match='give --resume'):
        main(['--heads', str(tmp_path), '--out', str(tmp_path)])


def test_the_fusion_learns_from_scans_of_the_same_contrast(head):
    torch.manual_seed(0)
    nets = ImUnityNets(VARIANTS['tiny'])
    block = draw_block(nets, head, np.random.default_rng(0), Compute(), 32, 'T1w')
    assert block.decoded.shape == (3, *block.truth.shape)
    fusion, facts = fuse_trained(nets, [head], [], seed=1, minutes=1, steps=1, blocks=2, edge=32)
    best = min(facts['unlike_alike'], facts['unlike_learned'])
    assert (fusion is not None) == (best < facts['unlike_median'])


def test_the_module_of_sites_reads_slices_of_a_scan_together(head):
    settings = replace(SMALL, slices=3, sited=1.0, t1w=1.0)
    batch = draw(source(head, settings), 2)
    assert len(batch.site) == 6
    assert batch.site[:3].unique().numel() == batch.site[3:].unique().numel() == 1
    assert not torch.equal(batch.source[0], batch.source[1])
    training = trained(head, settings)
    training.compute_terms(batch)
    module = training.helpers['sites']
    assert module.filled == 2
    assert module.images.shape[:2] == (settings.kept, 3)
    torch.testing.assert_close(module.images[1, 2].float(), batch.source[5], atol=2e-3, rtol=2e-3)
    assert module.read[:2].any(1).all()
    with pytest.raises(OptionError, match='slices'):
        replace(SMALL, slices=0)
