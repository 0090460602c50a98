"""What an MR physicist would check first."""

from dataclasses import replace

import pytest
import torch

from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.sites import load_sites
from harmony_app.phantom.tissues import TISSUES, tissue_properties, vary_properties

SITES = load_sites()
EVERY = pytest.mark.parametrize('name', list(SITES))


def signals(protocol: Protocol) -> dict[str, float]:
    values = signal(protocol, tissue_properties(protocol.field))
    return dict(zip(TISSUES, values.tolist(), strict=True))


@EVERY
def test_t1w_shows_white_above_grey_above_fluid(name):
    s = signals(SITES[name].protocols['T1w'])
    assert s['wm'] > 1.1 * s['gm'] > 1.1 * 1.3 * s['csf']
    assert s['wm'] > s['deep_gm'] > s['gm']
    assert s['lesion'] < s['wm']
    assert s['fat'] > s['wm'] > s['muscle']


@EVERY
def test_t2w_shows_fluid_above_grey_above_white(name):
    s = signals(SITES[name].protocols['T2w'])
    assert s['csf'] > 1.3 * s['gm'] > 1.3 * 1.1 * s['wm']
    assert s['lesion'] > s['gm']
    assert s['vitreous'] > 2 * s['wm']
    assert s['muscle'] < s['wm']


@EVERY
def test_flair_hides_fluid_and_shows_lesions(name):
    s = signals(SITES[name].protocols['FLAIR'])
    assert s['csf'] < 0.35 * s['wm']
    assert s['gm'] > s['wm']
    assert s['lesion'] > 1.3 * s['wm']
    assert s['lesion'] > s['gm']


@EVERY
def test_pdw_shows_grey_above_white_with_little_contrast(name):
    s = signals(SITES[name].protocols['PDw'])
    assert 1.05 * s['wm'] < s['gm'] < 1.4 * s['wm']
    assert s['lesion'] > s['wm']


@EVERY
def test_bone_and_flowing_blood_are_dark(name):
    for contrast, protocol in SITES[name].protocols.items():
        s = signals(protocol)
        assert s['bone'] < 0.06 * s['wm']
        if contrast != 'T1w':
            assert s['vessel'] < 0.7 * s['wm']


@EVERY
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_orderings_hold_for_every_person(name, seed):
    site = SITES[name]
    generator = torch.Generator().manual_seed(seed)
    person = vary_properties(tissue_properties(site.field), 0.05, generator)
    values = {
        contrast: dict(zip(TISSUES, signal(p, person).tolist(), strict=True))
        for contrast, p in site.protocols.items()
    }
    assert values['T1w']['wm'] > values['T1w']['gm'] > values['T1w']['csf']
    assert values['T2w']['csf'] > values['T2w']['gm'] > values['T2w']['wm']
    assert values['FLAIR']['csf'] < 0.5 * values['FLAIR']['wm'] < 0.5 * values['FLAIR']['lesion']


@pytest.mark.parametrize('contrast', ['T1w', 'T2w', 'PDw', 'FLAIR'])
def test_the_field_changes_what_a_protocol_shows(contrast):
    at_3t = SITES['siteD'].protocols[contrast]
    high, low = signals(at_3t), signals(replace(at_3t, field=1.5))
    assert low['wm'] > high['wm']
    change = abs(high['gm'] / high['wm'] / (low['gm'] / low['wm']) - 1)
    # proton density does not depend on the field; relaxation does
    assert change < 0.01 if contrast == 'PDw' else change > 0.015


def test_relaxation_follows_the_field():
    low, high = tissue_properties(1.5), tissue_properties(3.0)
    assert bool((high.t1 > low.t1).all())
    assert bool((high.t2_star < low.t2_star).all())
    assert bool((high.t2 <= low.t2).all())


def test_fluid_in_flair_is_nulled_near_the_inversion_time_of_theory():
    protocol = SITES['siteD'].protocols['FLAIR']
    times = torch.arange(1800, 3400, 20).tolist()
    fluid = [signals(replace(protocol, inversion_time=float(t)))['csf'] for t in times]
    best = times[fluid.index(min(fluid))]
    t1 = 4200.0
    # perfect inversion: TI = T1 ln(2 / (1 + exp(-TR/T1)))
    theory = t1 * float(
        torch.log(2 / (1 + torch.exp(torch.tensor(-protocol.repetition_time / t1))))
    )
    assert abs(best - theory) < 150


def test_a_longer_echo_is_more_t2_weighted():
    protocol = SITES['siteC'].protocols['T2w']
    ratios = []
    for echo in (20.0, 60.0, 100.0, 140.0):
        s = signals(replace(protocol, echo_time=echo))
        ratios.append(s['csf'] / s['wm'])
    assert ratios == sorted(ratios)


def test_ernst_angle_of_spgr():
    protocol = SITES['ge-signa'].protocols['T1w']
    angles = torch.arange(2, 90, 1).tolist()
    wm = [signals(replace(protocol, flip_angle=float(a)))['wm'] for a in angles]
    ernst = torch.rad2deg(torch.acos(torch.exp(torch.tensor(-protocol.repetition_time / 656.0))))
    assert abs(angles[wm.index(max(wm))] - float(ernst)) <= 1
