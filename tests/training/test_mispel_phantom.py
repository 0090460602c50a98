"""MISPEL on the phantom: whole scans at its scanners, the recipe, and the model folder."""

import json

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError
from harmony_app.imaging.resample import resample
from harmony_app.methods.mispel import MIDDLE_GROUND, Mispel
from harmony_app.nets.mispel import VARIANTS
from harmony_app.nets.unet import UNetConfig
from harmony_app.phantom.sites import find_sites, load_sites
from harmony_app.training import mispel_weights
from harmony_app.training.base import LoopSettings
from harmony_app.training.heads import Head
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.matched_volumes import scanned_volumes
from harmony_app.training.material import Material, PhantomConfig
from harmony_app.training.mispel import MispelTraining
from harmony_app.training.mispel_recipe import MispelRecipe
from harmony_app.training.mispel_settings import SITES as TABLE_1

SITES = TABLE_1[:2]


@pytest.fixture(autouse=True, scope='module')
def tiny():
    """Widths that are computed in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, 'tiny', UNetConfig((4, 4), (1, 1), norm=False))
        yield


@pytest.fixture(scope='module')
def told(head):
    """The head with maps that tell its tissues, as a registration would."""
    fractions = head.fractions
    maps = [head.maps[0], fractions[1], fractions[0], fractions[3]]
    return Head(head.name, fractions, np.stack(maps))


@pytest.fixture(scope='module')
def scans(told):
    return scanned_volumes(told, find_sites(SITES, load_sites()), 'T1w', seed=3)


def test_a_head_is_scanned_on_the_grid_of_each_protocol(told, scans):
    assert [scan.site for scan in scans] == list(SITES)
    for scan, site in zip(scans, find_sites(SITES, load_sites()), strict=True):
        zooms = sorted(site.protocols['T1w'].zooms)
        np.testing.assert_allclose(sorted(scan.native.zooms), zooms, rtol=1e-5)
        assert scan.working.shape == told.maps.shape[1:]
        white = scan.working.data[told.fractions[0] > 250]
        assert np.median(white) == pytest.approx(1, abs=0.05)
        # one transform leads from the native scan to the working grid
        again = resample(
            scan.native, scan.working.shape, scan.working.affine, scan.native_to_working
        )
        np.testing.assert_allclose(np.maximum(again.data, 0), scan.working.data, atol=1e-4)
    # GE has the stronger contrast of grey and white matter, and both show one person
    grey = [scan.working.data[told.fractions[1] > 250] for scan in scans]
    assert np.median(grey[0]) < np.median(grey[1]) - 0.05
    again = scanned_volumes(told, find_sites(SITES[:1], load_sites()), 'T1w', seed=3)[0]
    np.testing.assert_array_equal(again.working.data, scans[0].working.data)


def test_the_phantom_s_scanners_are_learned_and_packed(told, tmp_path, monkeypatch):
    monkeypatch.setattr(MispelTraining, 'checks', (1, 1))
    file = PhantomConfig(sites=SITES, size=32, variant='tiny')
    material = Material((), (), [told], [told], file)
    recipe = MispelRecipe()
    # with this seed the units begin above 0: there is an image after two steps
    training = recipe.training(material, 'cpu', 12, None)
    assert training.network.config.units == tuple(('T1w', site) for site in SITES)
    settings = LoopSettings(batch=1, steps=2, validation_steps=2, average=0.0)
    Loop(training, settings, tmp_path).run()
    np.save(tmp_path / 'shells_fractions.npy', told.fractions)
    np.save(tmp_path / 'shells_maps.npy', told.maps)
    (tmp_path / 'card.json').write_text(json.dumps({'licence': 'CC0', 'name': 'phantom scanners'}))
    arguments = [str(tmp_path / CHECKPOINT), str(tmp_path / 'model'), '--heads', str(tmp_path)]
    mispel_weights.main([*arguments, '--card', str(tmp_path / 'card.json')])
    model = Mispel.load(tmp_path / 'model')
    assert model.metadata['name'] == 'phantom scanners'
    assert model.metadata['training']['steps'] == 2
    (style,) = model.metadata['styles']
    assert (style['name'], style['scans']) == (MIDDLE_GROUND, 2)
    for name, tensor in training.network.state_dict().items():
        torch.testing.assert_close(model.nets.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    again = recipe.training(material, 'cpu', 1, tmp_path / 'model')
    assert torch.equal(again.network.units[0].decoder.weight, model.nets.units[0].decoder.weight)
    monkeypatch.setattr(mispel_weights, 'read_facts', lambda path: {'training': {}})
    with pytest.raises(InputError, match='no checkpoint of MISPEL'):
        mispel_weights.read_averaged(tmp_path)


def test_without_heads_nothing_is_simulated(told):
    file = PhantomConfig(sites=SITES)
    assert MispelRecipe().simulated_scans(Material((), (), [], [], file)) == []
    found = MispelRecipe().simulated_scans(Material((), (), [told] * 3, [], file))
    assert [scan.site for scan in found] == [*SITES, *SITES]
