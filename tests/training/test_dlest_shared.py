"""The energy of no site: what it is told, what it learns from, and that it leads the right way."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import SHARED, VARIANTS, DlestNets, energy_key
from harmony_app.nets.energy import langevin
from harmony_app.training import dlest_shared
from harmony_app.training.base import LoopSettings
from harmony_app.training.dlest_energy import EnergyTraining, tell_sites
from harmony_app.training.dlest_recipe import DlestRecipe
from harmony_app.training.dlest_settings import EnergySettings, SharedSettings
from harmony_app.training.dlest_shared import (
    Codes,
    Pairs,
    PhantomPairs,
    SharedEnergyTraining,
    fit_shared_energy,
    told,
)
from harmony_app.training.dlest_sites import PhantomSites, Translations
from harmony_app.training.parts import keep_all_but
from harmony_app.training.styles import STANDARD

SETTINGS = SharedSettings(size=32, again=2, kept=3)
CONFIG = replace(
    VARIANTS['compact'],
    variant='tiny',
    channels=6,
    widths=(8,),
    blocks=1,
    canvas=(32, 64),
    energy_width=8,
)


def networks(*keys, **changed):
    torch.manual_seed(0)
    return DlestNets(replace(CONFIG, **changed), keys)


def drawn(source, count, seed=0):
    return Pairs.join([source.draw(np.random.default_rng([seed, i])) for i in range(count)])


def test_a_pair_is_of_two_scanners_and_others_show_the_second(head):
    batch = drawn(PhantomPairs([head], SETTINGS), 3)
    assert batch.source.shape == batch.truth.shape == (3, 1, 32, 32)
    assert batch.targets.shape == batch.target_masks.shape == (3, SETTINGS.shown, 32, 32)
    assert not (batch.targets * (1 - batch.target_masks)).any()
    assert not torch.equal(batch.source, batch.truth)
    assert torch.equal(drawn(PhantomPairs([head], SETTINGS), 3).targets, batch.targets)


def test_the_share_of_t1w_is_as_asked(head, monkeypatch):
    asked = []
    look = dlest_shared.draw_look

    def noted(contrast, *rest):
        asked.append(contrast)
        return look(contrast, *rest)

    monkeypatch.setattr(dlest_shared, 'draw_look', noted)
    drawn(PhantomPairs([head], replace(SETTINGS, t1w=1.0)), 4)
    assert set(asked) == {'T1w'}
    asked.clear()
    drawn(PhantomPairs([head], replace(SETTINGS, t1w=0.0)), 12)
    assert set(asked) == {'T2w', 'PDw', 'FLAIR'}


def test_every_loss_reaches_the_energy_and_nothing_else(head):
    batch = drawn(PhantomPairs([head], SETTINGS), 2)
    for term in ('truth', 'energy', 'regular'):
        training = SharedEnergyTraining(networks('T1w:other'), None, SETTINGS)
        training.losses(batch, 0, 0.0)[term].backward()
        moved = {
            n for n, p in training.network.named_parameters() if p.grad is not None and p.grad.any()
        }
        energy = training.network.energies[SHARED]
        expected = {f'energies.{SHARED}.{n}' for n, _ in energy.named_parameters()}
        expected.discard(f'energies.{SHARED}.site')
        # a shift of all energies changes neither a gradient of theirs nor, but for rounding, a
        # difference of two
        if term != 'regular':
            moved.discard(f'energies.{SHARED}.head.bias')
            expected.discard(f'energies.{SHARED}.head.bias')
        assert moved == expected, term


def test_what_the_energy_is_told_decides_where_it_leads(head):
    network = networks(SHARED)
    codes = Codes.encoded(network, drawn(PhantomPairs([head], SETTINGS), 2))
    energy = network.energies[SHARED]
    with torch.no_grad():
        site = told(energy, codes)
        each = torch.stack(
            [energy.statistics(codes.target[:, i], codes.there[:, i]) for i in (0, 1)]
        )
    assert torch.allclose(site, each.mean(0))
    one, other = (
        langevin(lambda c, m, s=s: energy(c, m, s), codes.source, codes.cells, CONFIG.chain)
        for s in (site, site.flip(0))
    )
    assert not torch.allclose(one, other, atol=1e-5)
    # what it holds is what it is told of without
    energy.site.data.copy_(site[0])
    alone = langevin(energy, codes.source[:1], codes.cells[:1], CONFIG.chain)
    assert torch.allclose(alone, one[:1], atol=1e-6)


def test_earlier_draws_are_learned_from_again(head):
    source = PhantomPairs([head], SETTINGS)
    training = SharedEnergyTraining(networks(), source, SETTINGS)
    first, second, third = (drawn(source, 2, seed) for seed in (1, 2, 3))
    codes = [Codes.encoded(training.network, b) for b in (first, second, third)]
    assert len(training._with_earlier(codes[0], first).source) == 2
    assert len(training._with_earlier(codes[1], second).source) == 4
    learned = training._with_earlier(codes[2], third)
    assert torch.equal(learned.source[:2], codes[2].source)
    earlier = torch.cat([codes[0].source[1:], codes[1].source])
    assert len(learned.source) == 4
    for again in learned.source[2:]:
        assert any(torch.equal(again, known) for known in earlier)


def test_training_leads_codes_towards_what_they_are_at_the_other_scanner(head):
    settings = replace(SETTINGS, again=0, kept=0)
    batch = drawn(PhantomPairs([head], settings), 6, seed=9)
    training = SharedEnergyTraining(networks(), None, settings)
    energy = training.network.energies[SHARED]

    def error():
        codes = Codes.encoded(training.network, batch)
        with torch.no_grad():
            site = told(energy, codes)
        moved = langevin(lambda c, m: energy(c, m, site), codes.source, codes.cells, CONFIG.chain)
        return float(((moved - codes.truth) ** 2).sum())

    before = error()
    optimizer = torch.optim.Adam(energy.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        training.losses(batch, 0, 0.0)['loss'].backward()
        optimizer.step()
    assert error() < 0.7 * before


def test_it_is_added_to_networks_and_nothing_else_of_them_changes(head):
    network = networks('T1w:other')
    known = copy.deepcopy(network.state_dict())
    loop = LoopSettings(batch=2, steps=2, log_steps=1, validation_steps=2)
    facts = fit_shared_energy(network, [head], [], SETTINGS, loop)
    assert facts['energies'] == [SHARED]
    assert facts['steps'] == 2
    assert network.beginning('T2w') == SHARED
    for name, tensor in known.items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_held_out_slices_are_judged_the_same_each_time(head, monkeypatch):
    monkeypatch.setattr(dlest_shared, 'CHECKS', (1, 2))
    source = PhantomPairs([head], SETTINGS)
    training = SharedEnergyTraining(networks(), source, SETTINGS, source)
    told_first = training.validate(training.network)
    assert {'psnr', 'ssim', 'l1', 'before_psnr'} <= set(told_first)
    assert training.validate(training.network) == told_first
    assert SharedEnergyTraining(networks(), source, SETTINGS).validate(training.network) == {}


def test_an_energy_that_sees_no_site_cannot_be_of_all(head):
    with pytest.raises(ValueError, match='told'):
        SharedEnergyTraining(networks(told=False), None, SETTINGS)


def test_a_new_site_is_told_by_its_slices(head):
    network = networks(SHARED)
    keys = [energy_key(n, 'T1w') for n in ('mprage-3t', 'spgr-1.5t')]
    for key in keys:
        network.add_energy(key, like=network.beginning('T1w'))
    source = PhantomSites(
        [head], [STANDARD[n] for n in ('mprage-3t', 'spgr-1.5t')], EnergySettings(32)
    )
    tell_sites(network, keys, source, 10)
    one, other = (network.energies[key] for key in keys)
    assert not torch.allclose(one.site, other.site)
    assert torch.equal(one.first.weight, other.first.weight)
    assert one.site.abs().max() > 0.01
    untold = networks(*keys, told=False)
    tell_sites(untold, keys, source, 10)
    assert untold.energies[keys[0]].site is None


def test_a_model_keeps_the_energy_of_no_site_and_reaches_nothing_by_it(tmp_path):
    network = networks(SHARED, energy_key('B', 'T1w'))
    method = Dlest(network, None, {'styles': []})
    method.save(tmp_path / 'model')
    again = Dlest.load(tmp_path / 'model')
    assert again.metadata['contrasts'] == ['T1w']
    assert again.nets.beginning('FLAIR') == SHARED
    assert not again.reaches(SHARED, 'T1w')
    site = network.energies[SHARED].first.weight
    assert torch.equal(again.nets.energies[SHARED].first.weight, site.half().float())


@pytest.mark.parametrize('whole', [False, True])
def test_of_an_energy_that_began_as_that_of_no_site_its_site_is_learned_alone(head, whole):
    network, key = networks(SHARED), energy_key('mprage-3t', 'T1w')
    settings = replace(EnergySettings(32, slices=4), whole=whole)
    source = PhantomSites([head], [STANDARD['mprage-3t']], settings)
    training = EnergyTraining(network, [key], source, settings)
    learning = {n for n, p in training.network.named_parameters() if p.requires_grad}
    everything = {f'energies.{key}.{n}' for n, _ in network.energies[SHARED].named_parameters()}
    assert learning == (everything if whole else {f'energies.{key}.site'})
    parts = DlestRecipe().parts(training)
    assert set(keep_all_but(training.network, parts)) == learning
    batch = Translations.join([source.draw(np.random.default_rng(i)) for i in range(2)])
    training.losses(batch, 0, 0.0)['loss'].backward()
    assert training.network.energies[key].site.grad.any()
