"""How a target is reached by a method that no scan can be the target of."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks.compared import DECODERS, METHODS, reached
from harmony_app.errors import OptionError
from harmony_app.methods.classical.unchanged import Unchanged
from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import VARIANTS, DlestNets, energy_key


def style(contrast='T1w'):
    return SimpleNamespace(name='siteA', contrast=contrast)


def test_the_decoder_of_dlest_has_a_row():
    assert DECODERS['dlest-decoder'] == 'dlest'
    assert 'dlest-decoder' in METHODS


def test_any_scan_is_a_target_of_other_methods():
    asked = style()
    assert reached(Unchanged(), asked, [], '1') is asked


def test_an_energy_is_fitted_once_for_each_person_who_is_left_out(monkeypatch, make_style):
    small = replace(VARIANTS['compact'], channels=4, widths=(8,), blocks=1, energy_width=8)
    torch.manual_seed(0)
    method = Dlest(DlestNets(small, (energy_key('mprage-3t', 'T1w'),)), None, {'styles': []})
    fitted = []

    def fit(nets, name, scans, loop):
        fitted.append((name, tuple(scans), loop.steps))
        nets.add_energy(energy_key(name, 'T1w'))

    monkeypatch.setattr('benchmarks.compared.fit_energy_to_scans', fit)
    asked = replace(make_style('T1w'), name='siteA')
    names = [reached(method, asked, ['scan'], person).name for person in ('1', '1', '2')]
    assert names == ['siteA without sub-1'] * 2 + ['siteA without sub-2']
    assert [name for name, _, _ in fitted] == ['siteA without sub-1', 'siteA without sub-2']
    assert all(scans == ('scan',) and steps > 0 for _, scans, steps in fitted)
    with pytest.raises(OptionError, match='none of this contrast'):
        reached(method, replace(make_style('T2w'), name='siteA'), ['scan'], '1')
