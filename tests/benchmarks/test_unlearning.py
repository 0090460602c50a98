"""What a module unlearns, measured: people at sites, and what a classifier makes of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import unlearning
from harmony_app.errors import OptionError
from harmony_app.evaluation.site_classification import CLASSIFIERS, LINEAR_GRID
from harmony_app.methods.dlest import Dlest
from harmony_app.methods.imunity import ImUnity
from harmony_app.nets.dlest import DlestConfig, DlestNets
from harmony_app.nets.imunity import ImUnityConfig, ImUnityNets
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES
from harmony_app.training.heads import Head
from harmony_app.training.imunity_draws import training_sites

SITES = {name: training_sites()[name] for name in ('siteB', 'mispel-ge')}


@pytest.fixture(autouse=True)
def one_setting(monkeypatch):
    """The classifier has nothing to choose."""
    monkeypatch.setitem(CLASSIFIERS, 'linear', LINEAR_GRID[:1])


@pytest.fixture(scope='module')
def head():
    """White matter around a ventricle, cortex, fluid and bone, 64 voxels wide."""
    line = np.linspace(-1, 1, 64)
    radius = np.sqrt(line[:, None, None] ** 2 + line[:, None] ** 2 + line**2)
    radius = radius + 0.04 * np.sin(12 * line)[:, None, None] * np.cos(9 * line)[:, None]
    fractions = np.zeros((len(TISSUES), 64, 64, 64), np.uint8)
    layers = np.digitize(radius, [0.2, 0.5, 0.62, 0.7, 0.85])
    for layer, tissue in enumerate(('csf', 'wm', 'gm', 'csf', 'bone')):
        fractions[TISSUES.index(tissue)][layers == layer] = 255
    return Head('ball', fractions, np.stack([(255 * (layers < 3)).astype(np.uint8)] * 4))


@pytest.fixture(scope='module')
def scans(head):
    return list(unlearning.scan_people([head], SITES, 8, loss=0.1, slices=3, size=32))


def brain(head):
    return head.fractions[[TISSUES.index(name) for name in BRAIN_TISSUES]].sum(dtype=float)


def test_atrophy_takes_its_share(head):
    assert brain(unlearning.with_atrophy(head, 0.1)) == pytest.approx(0.9 * brain(head), rel=0.02)


def test_a_person_is_scanned_at_all_sites(scans):
    assert len(scans) == 8 * len(SITES)
    for one, other in zip(scans[::2], scans[1::2], strict=True):
        assert (one.person, one.group) == (other.person, other.group)
        assert {one.site, other.site} == set(SITES)
        assert torch.equal(one.masks, other.masks)
        assert not torch.equal(one.images, other.images)
    assert [scan.group for scan in scans[::2]] == list(unlearning.GROUPS) * 4


def test_a_site_that_is_wiped_out_is_not_told(scans):
    """The classifier is told the site by one number, or by none."""
    wiped = [np.array([float(scan.group == 'atrophy'), 0.0]) for scan in scans]
    plain = [row + [0, float(scan.site == 'siteB')] for row, scan in zip(wiped, scans, strict=True)]
    before, after = (unlearning.told_apart(rows, scans, 4, 0) for rows in (plain, wiped))
    assert before['site_accuracy'] == 1
    assert after['site_accuracy'] == after['site_chance'] == 0.5
    assert before['atrophy_auc'] == after['atrophy_auc'] == 1


def test_the_table_has_the_scans_and_both_models(head, tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = ImUnityConfig(
        'tiny', 16, 2, 4, 1, 4, 1, fine=(4, 4), theta_widths=(4, 4, 4, 4), fusion_width=4
    )
    for name in ('on', 'off'):
        ImUnity(ImUnityNets(config), None, {}).save(tmp_path / name)
    scan_people = unlearning.scan_people

    def few(heads, sites, people, **options):
        return scan_people(heads, SITES, people, **options | {'slices': 2, 'size': 32})

    monkeypatch.setattr(unlearning, 'load_heads', lambda folder, names: [head])
    monkeypatch.setattr(unlearning, 'scan_people', few)
    models = ['--on', str(tmp_path / 'on'), '--off', str(tmp_path / 'off')]
    table = unlearning.main([str(tmp_path), '--heads', 'x', '--people', '20', *models])
    assert list(zip(table.model, table.features, strict=True)) == [
        ('none', 'scan'), ('on', 'latent'), ('on', 'image'), ('off', 'latent'), ('off', 'image'),
    ]  # fmt: skip
    assert table.site_accuracy[0] > 0.8
    assert set(json.loads((tmp_path / 'unlearning.json').read_text())) == set(table.columns)
    assert (table.people == 20).all()
    with pytest.raises(SystemExit):
        unlearning.main([str(tmp_path), '--heads', 'x', '--people', '4', *models])
    with pytest.raises(SystemExit):
        unlearning.main([str(tmp_path), '--heads', 'x', '--people', '20'])


def test_dlest_is_asked_the_same(scans, tmp_path):
    torch.manual_seed(0)
    nets = DlestNets(DlestConfig('tiny', channels=4, widths=(8,), blocks=1), ('T1w:here',))
    Dlest(nets, None, {}).save(tmp_path)
    found = unlearning.first_energy(tmp_path, 'T1w')
    assert found[1] == 'T1w:here'
    rows = unlearning.measure({}, scans, 4, 0, found)
    assert [(row['model'], row['features']) for row in rows] == [
        ('none', 'scan'), ('dlest', 'latent'), ('dlest', 'image'),
    ]  # fmt: skip
    image = nets.translate(scans[0].images, scans[0].masks, 'T1w:here').detach()
    np.testing.assert_allclose(
        unlearning.dlest_features(nets, 'T1w:here', scans[0])['image'],
        unlearning.intensity_features(image, scans[0].masks),
        atol=1e-5,
    )
    with pytest.raises(OptionError, match='no energy for FLAIR'):
        unlearning.first_energy(tmp_path, 'FLAIR')


def test_features_of_a_latent_do_not_see_the_air(scans):
    torch.manual_seed(0)
    nets = ImUnityNets(ImUnityConfig('tiny', 16, 2, 4, 1, 4, 1, fine=(4, 4)))
    scan = scans[0]
    airy = replace(scan, images=scan.images + (1 - scan.masks))
    one, other = (unlearning.latent_features(nets, s) for s in (scan, airy))
    np.testing.assert_array_equal(one, other)
