"""The trainings of DLEST: what each loss moves, what an energy learns, and the model folder."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError
from harmony_app.imaging.volume import Volume
from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import SHARED, VARIANTS, DlestNets, energy_key
from harmony_app.nets.energy import langevin
from harmony_app.training import dlest_recipe, dlest_weights
from harmony_app.training.base import LoopSettings
from harmony_app.training.checkpoint import load_averaged
from harmony_app.training.dlest import TERMS, DlestTraining, main
from harmony_app.training.dlest_draws import PhantomSlices, RealSlices, Slices, inner
from harmony_app.training.dlest_energy import (
    EnergyTraining,
    fit_energies,
    fit_energy_to_scans,
    validate_translation,
)
from harmony_app.training.dlest_losses import translation_terms
from harmony_app.training.dlest_recipe import DlestRecipe, standard_energies
from harmony_app.training.dlest_settings import EnergySettings, Settings
from harmony_app.training.dlest_sites import (
    PhantomSites,
    Planes,
    Shown,
    SiteSlices,
    Translations,
    remapped,
    shown_sessions,
)
from harmony_app.training.loop import BEST, Loop
from harmony_app.training.material import Material
from harmony_app.training.parts import keep_all_but
from harmony_app.training.slice_scores import draw_checks
from harmony_app.training.styles import STANDARD

SETTINGS = Settings(variant='tiny', size=32, looks=2)
ENERGY = EnergySettings(size=32, slices=9)
SHORT = LoopSettings(batch=2, steps=2, log_steps=1, validation_steps=2)
KEY = energy_key('there', 'T1w')


@pytest.fixture(autouse=True, scope='module')
def tiny():
    """Widths that are computed in a moment."""
    config = replace(
        VARIANTS['compact'],
        variant='tiny',
        channels=6,
        widths=(8,),
        blocks=1,
        canvas=(32, 64),
        noise=4,
        mapping_width=8,
        discriminator_width=8,
        energy_width=8,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, 'tiny', config)
        patch.setattr(DlestTraining, 'checks', (1, 2))
        patch.setattr('harmony_app.training.dlest_energy.CHECKS', (1, 2))
        yield


def drawn(source, count, seed=0):
    examples = [source.draw(np.random.default_rng([seed, i])) for i in range(count)]
    return type(examples[0]).join(examples)


def slices(head):
    return PhantomSlices([head], SETTINGS, (32, 64))


def networks(*keys):
    torch.manual_seed(0)
    return DlestNets(VARIANTS['tiny'], keys)


def gradients(module):
    return {name for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


def parts(names):
    return {name.split('.')[0] for name in names}


def test_crops_are_of_many_scanners_and_whole_slices_of_brains(head):
    batch = drawn(slices(head), 3)
    assert batch.images.shape == batch.masks.shape == (3, 2, 32, 32)
    assert batch.whole.shape == (3, 1, 32, 64)
    assert not (batch.images * (1 - batch.masks)).any()
    assert not torch.equal(batch.images[0, 0], batch.images[0, 1])
    # the head has skin at the ends of its middle rows, a brain has not
    assert (batch.whole > 0.1).any(dim=(1, 2, 3)).all()
    again = drawn(slices(head), 3)
    assert torch.equal(again.whole, batch.whole)


def test_each_turn_moves_the_networks_that_its_equation_names(head):
    batch = drawn(slices(head), 2)
    named = {
        'pixel': {'encoder', 'decoder'},
        'prior': {'encoder'},
        'judging': {'encoder', 'discriminator'},
        'penalty': {'encoder', 'discriminator'},
        'fooling': {'mapping', 'decoder'},
        'latent': {'encoder', 'decoder'},
    }
    turns = {'judging': 0, 'penalty': 0, 'fooling': 1, 'latent': 2}
    assert set(named) == set(TERMS)
    for term, expected in named.items():
        training = DlestTraining(SETTINGS, slices(head))
        training.compute_terms(batch, turns.get(term, 0))[term].backward()
        assert parts(gradients(training.network)) == expected, term
    whole = training.compute_terms(batch, 3)
    assert [name for name in TERMS if whole[name] != 0] == ['pixel', 'prior']


def test_the_gradient_penalty_is_of_the_judgement_of_real_slices(head):
    from harmony_app.training.dlest_losses import judging_loss

    network, batch = networks(), drawn(slices(head), 2)
    made = torch.zeros(2, 6, 8, 16)
    _, penalty = judging_loss(network, batch.whole, made, torch.zeros(2, 1, 8, 16))
    x = batch.whole.clone().requires_grad_(True)
    network.discriminator(*network.encode(x, torch.ones_like(x))).sum().backward()
    expected = x.grad.square().sum((1, 2, 3)).mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)


def phantom(head, name='mprage-3t'):
    return PhantomSites([head], [STANDARD[name]], ENERGY)


def test_every_loss_of_an_energy_reaches_it_and_nothing_else(head):
    batch = drawn(phantom(head), 2)
    for term in ('energy', 'content', 'cycle', 'regular', 'truth'):
        network = networks(KEY, 'T1w:other')
        network.encoder.requires_grad_(True)
        generator = torch.Generator().manual_seed(0)
        translation_terms(network, KEY, batch, generator, 0.5)[term].backward()
        moved = gradients(network)
        # a shift of all energies changes no gradient of theirs, so nothing that follows a chain
        expected = {f'energies.{KEY}.{n}' for n, _ in network.energies[KEY].named_parameters()}
        if term in ('content', 'cycle', 'truth'):
            expected -= {f'energies.{KEY}.head.bias'}
        if term == 'energy':
            expected -= {f'energies.{KEY}.head.bias'}
            moved -= {f'energies.{KEY}.head.bias'}  # what rounding leaves
        assert moved == expected, term
        assert all(p.requires_grad for p in network.encoder.parameters())


def test_the_contrast_of_energies_is_equation_6(head):
    network, batch = networks(KEY), drawn(phantom(head), 2)
    for parameter in network.energies[KEY].parameters():
        parameter.data.zero_()
    terms = translation_terms(network, KEY, batch, torch.Generator().manual_seed(0), 0.0)
    assert terms['energy'] == 0
    # a flat energy leaves a code where it is, but for the noise of its chain
    chain = network.config.chain
    noise = (2 / np.pi) ** 0.5 * (chain.step * chain.steps) ** 0.5
    assert terms['content'].item() == pytest.approx(noise, rel=0.1)


def test_what_is_unknown_is_no_truth(head):
    batch = drawn(phantom(head), 2)
    unknown = replace(batch, known=torch.zeros(2))
    network = networks(KEY)
    terms = translation_terms(network, KEY, unknown, torch.Generator().manual_seed(0), 0.5)
    assert terms['truth'] == 0
    assert terms['energy'] != 0


def shown(level, seed=0):
    """A ball of two tissues, the outer one at a level."""
    axes = np.meshgrid(*(np.linspace(-1, 1, 40) for _ in range(3)), indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes))
    data = np.where(radius < 0.5, 1.0, level) * (radius < 0.9)
    data = data + 0.01 * np.random.default_rng(seed).standard_normal(data.shape)
    return Shown((data * (radius < 0.9)).astype(np.float32), radius < 0.9)


def test_about_a_hundred_slices_are_taken_of_all_scans():
    assert len(Planes([shown(0.5)] * 4, 100).planes) == 96
    assert len(Planes([shown(0.5)], 9).planes) == 9
    image, mask = Planes([shown(0.5)], 9).crop(32, np.random.default_rng(0))
    assert image.shape == mask.shape == (32, 32)
    assert mask.any()
    assert not image[~mask].any()
    empty = Shown(np.zeros((8, 8, 8), np.float32), np.zeros((8, 8, 8), bool))
    with pytest.raises(ValueError, match='show nothing'):
        Planes([empty], 9)


def test_sources_are_of_other_sites_or_of_the_site_through_a_random_map():
    site, other = Planes([shown(0.5)], 9), Planes([shown(0.7)], 9)
    paired = drawn(SiteSlices([site], [None], ENERGY), 6)
    assert paired.known.tolist() == [1.0] * 6
    assert not torch.equal(paired.source, paired.truth)
    assert ((paired.source > 0) == (paired.truth > 0)).float().mean() > 0.999
    mixed = drawn(SiteSlices([site], [other], ENERGY), 12)
    assert 0 < mixed.known.sum() < 12
    alone = mixed.take(mixed.known == 0)
    assert torch.equal(alone.source, alone.truth)
    rising = remapped(np.linspace(0, 2, 50), 0.35, np.random.default_rng(1))
    assert (np.diff(rising) > 0).all()
    assert rising[0] == 0


def coded(network, planes, count=4):
    """Codes of crops and their masks."""
    rng = np.random.default_rng(7)
    crops = [planes.crop(32, rng) for _ in range(count)]
    images, masks = (
        torch.from_numpy(np.stack(part)[:, None].astype(np.float32))
        for part in zip(*crops, strict=True)
    )
    with torch.no_grad():
        return network.encode(images, masks)


def centre(code, cells):
    return (code.sum((0, 2, 3)) / cells.sum()).numpy()


def test_by_the_papers_losses_alone_a_site_lies_below_its_sources_and_they_are_led_there():
    network = networks()
    known = copy.deepcopy(network.state_dict())
    there, elsewhere = Planes([shown(0.9)], 30), Planes([shown(0.3)], 30)
    settings = replace(ENERGY, unpaired=1.0, truth=0.0, energy=1.0, content=0.01, cycle=0.01)
    loop = LoopSettings(batch=4, steps=40, rate=1e-2, decay=0.0, warm_steps=5, average=0.9)
    told = fit_energies(network, [KEY], SiteSlices([there], [elsewhere], settings), settings, loop)
    assert told['energies'] == [KEY]
    energy = network.energies[KEY]
    with torch.no_grad():
        low, high = (
            float(energy(code, cells).sum() / cells.sum())
            for code, cells in (coded(network, there), coded(network, elsewhere))
        )
    assert low < high
    target, (source, cells) = centre(*coded(network, there)), coded(network, elsewhere)
    moved = langevin(energy, source, cells, network.config.chain)
    before, after = (np.abs(centre(code, cells) - target).sum() for code in (source, moved))
    assert after < 0.8 * before
    for name, tensor in known.items():
        assert torch.equal(network.state_dict()[name], tensor), name


def scan(level, name='scan', contrast='T1w'):
    volume = Volume(shown(level).data, np.eye(4))
    inside = shown(level).mask
    return SimpleNamespace(working=volume, contrast=contrast, name=name, brain=inside)


def test_an_energy_is_fitted_to_scans_of_a_site(head):
    network = networks(KEY)
    known = copy.deepcopy(network.state_dict())
    scans = [scan(0.5), scan(0.5)]
    key = fit_energy_to_scans(network, 'B', scans, [scan(0.7)], ENERGY, SHORT)
    assert key == energy_key('B', 'T1w')
    assert list(network.energies) == [KEY, key]
    for name, tensor in known.items():
        assert torch.equal(network.state_dict()[name], tensor), name
    # two steps from where the other energy stands, but told of its own site
    near = {
        n: (network.energies[key].state_dict()[n] - t).abs().max()
        for n, t in network.energies[KEY].state_dict().items()
    }
    assert near.pop('site') > 0.05
    assert 0 < max(near.values()) < 0.01
    with pytest.raises(ValueError, match='one contrast'):
        fit_energy_to_scans(network, 'B', [scan(0.5), scan(0.5, contrast='T2w')])
    with pytest.raises(ValueError, match='at least one'):
        fit_energy_to_scans(network, 'B', [])


def test_validation_judges_a_model_without_the_energy_by_its_reconstruction(head):
    checks = draw_checks(phantom(head), 1, 3)
    told = validate_translation(networks(KEY), [KEY], checks)
    assert {'psnr', 'ssim', 'l1', 'before_psnr', 'energy_gap'} <= set(told)
    without = validate_translation(networks(), [KEY], checks)
    assert without['before_psnr'] == told['before_psnr']
    assert 'energy_gap' not in without


def test_a_training_ends_in_a_model_that_gives_the_same(head, tmp_path, monkeypatch):
    for module in ('slice_command', 'dlest_weights'):
        monkeypatch.setattr(
            f'harmony_app.training.{module}.split_heads', lambda folder, seed: ([head], [head])
        )
    out = tmp_path / 'run'
    common = ['--heads', str(tmp_path), '--out', str(out), '--size', '32', '--variant', 'tiny']
    main([*common, '--steps', '2', '--batch', '1'])
    assert (out / 'examples.png').exists()
    with pytest.raises(InputError, match='--resume'):
        main([*common, '--steps', '2'])
    main([*common, '--steps', '3', '--batch', '1', '--resume'])
    model = tmp_path / 'model'
    dlest_weights.main(
        [
            str(out / BEST),
            str(model),
            '--heads',
            str(tmp_path),
            '--energy-steps',
            '1',
            '--size',
            '32',
        ]
    )
    method = Dlest.load(model)
    keys = [energy_key(n, 'T1w') for n, p in STANDARD.items() if p.contrast == 'T1w']
    keys = [SHARED, *keys]
    assert list(method.nets.energies) == keys
    assert method.metadata['contrasts'] == ['T1w']
    assert method.metadata['metrics']['psnr'] > 0
    assert len(method.metadata['training']['energies_fitted']) == len(keys)
    expected, _ = dlest_weights.read_averaged(out / BEST)
    state = method.nets.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state[name], tensor.half().float()), name
    with pytest.raises(InputError, match='not a checkpoint'):
        dlest_weights.read_averaged(tmp_path / 'nothing.safetensors')


def session(name, site, level):
    volume = shown(level)
    data = SimpleNamespace(
        name=f'{name}_T1w',
        contrast='T1w',
        site=site,
        stem=name,
        data=lambda: volume.data.astype(np.float16),
        shown=lambda: (255 * volume.mask).astype(np.uint8),
    )
    maps = np.stack([255 * volume.mask] * 4).astype(np.uint8)
    return SimpleNamespace(name=name, subject=name, scans=(data,), stem=name, maps=lambda: maps)


def test_an_adaptation_makes_an_energy_of_the_site_and_nothing_else(tmp_path, monkeypatch):
    parent = tmp_path / 'parent'
    Dlest(networks(KEY), None, {'styles': []}).save(parent)
    monkeypatch.setattr(dlest_recipe, 'EnergySettings', lambda: ENERGY)
    recipe = DlestRecipe()
    people = [session('1', 'B', 0.5), session('2', 'B', 0.52)]
    training = recipe.adaptation(parent, people[:1], people[1:], 'cpu', 1, 'B')
    names = keep_all_but(training.network, recipe.adapted)
    assert {name.split('.')[1] for name in names} == {'T1w:B'}
    loop = Loop(training, SHORT, tmp_path / 'run')
    loop.run()
    load_averaged(tmp_path / 'run' / BEST, loop.average)
    method = Dlest.load(parent)
    before = copy.deepcopy(method.nets.state_dict())
    assert 'psnr' in training.validate(recipe.network_of(method))
    method = recipe.adapted_method(parent, loop.average, 'cpu')
    assert method.reaches('B', 'T1w')
    assert not method.reaches('B', 'T2w')
    for name, tensor in before.items():
        assert torch.equal(method.nets.state_dict()[name], tensor), name


def test_a_model_of_sessions_has_an_energy_for_each_site(head, monkeypatch):
    monkeypatch.setattr(dlest_recipe, 'EnergySettings', lambda: ENERGY)
    sessions = [session('1', 'A', 0.5), session('2', 'B', 0.7), session('3', None, 0.6)]
    material = Material(sessions, [], [], [], None)
    method, facts = DlestRecipe().finish(networks(), material, SHORT, 'cpu')
    assert set(method.nets.energies) == {'T1w:A', 'T1w:B', 'T1w:group'}
    assert len(facts['energies_fitted']) == 3
    both = shown_sessions(sessions, 'T1w')
    assert len(both) == 3
    assert shown_sessions(sessions, 'T2w') == []


def test_a_training_on_sessions_begins_where_a_model_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(DlestRecipe, 'settings', SETTINGS)
    parent = tmp_path / 'parent'
    known = networks(KEY)
    Dlest(known, None, {'styles': []}).save(parent)
    sessions = [session('1', 'A', 0.5), session('2', 'B', 0.7)]
    material = Material(sessions[:1], sessions[1:], [], [], None)
    training = DlestRecipe().training(material, 'cpu', 3, parent)
    assert isinstance(training.source, RealSlices)
    # energies are of the codes of the old autoencoder
    assert list(training.network.energies) == []
    given = training.network.encoder.head.weight
    assert torch.equal(given, known.encoder.head.weight.half().float())
    batch = drawn(training.source, 2)
    assert isinstance(batch, Slices)
    assert torch.isfinite(training.losses(batch, 0, 0.0)['loss'])
    assert training.validate(training.network)['psnr'] > 0


def test_standard_protocols_share_a_budget(head):
    network = networks()
    told = standard_energies(network, [head], [], SHORT, ENERGY)
    names = [name for name, p in STANDARD.items() if p.contrast == 'T1w']
    keys = [[energy_key(n, 'T1w')] for n in names]
    assert [t['energies'] for t in told] == [[SHARED], *keys]
    assert all(t['steps'] == 1 for t in told)
    untold = DlestNets(replace(VARIANTS['tiny'], told=False))
    told = standard_energies(untold, [head], [], SHORT, ENERGY)
    assert [t['energies'] for t in told] == keys


def test_energies_of_two_contrasts_learn_from_their_own(head):
    network = networks()
    keys = [energy_key('B', 'T1w'), energy_key('B', 'T2w')]
    planes = Planes([shown(0.5)], 9)
    training = EnergyTraining(network, keys, SiteSlices([planes] * 2, [None] * 2, ENERGY), ENERGY)
    batch = drawn(training.source, 8)
    assert set(batch.kind.tolist()) == {0, 1}
    one = batch.take(batch.kind == 1)
    training.losses(one, 0, 0.0)['loss'].backward()
    moved = gradients(training.network)
    assert moved
    assert {name.split('.')[1] for name in moved} == {keys[1]}
    assert isinstance(one, Translations)


def test_the_middle_of_an_image_is_taken():
    assert inner(np.arange(16).reshape(4, 4), (2, 2)).tolist() == [[5, 6], [9, 10]]
