"""CALAMITI as a method: one scan is enough, a fusion for each contrast, a folder that is whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from harmony_app.errors import InputError, ModelError, OptionError
from harmony_app.imaging.profile import measure_profile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Harmonized, Method, Scan
from harmony_app.methods.calamiti import Calamiti
from harmony_app.methods.model_folder import METADATA
from harmony_app.nets.calamiti import CalamitiConfig, CalamitiNets
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.unet import UNetConfig

SHAPE = (32, 32, 32)
LOOKS = {'T1w': (0.7, 0.2), 'T2w': (1.4, 3.0), 'FLAIR': (1.3, 0.1)}


def ball_scan(contrast, name=None):
    """White matter in grey matter in fluid; looks by contrast."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes))
    tissues = np.stack(
        [(radius > 0.45) & (radius <= 0.6), radius <= 0.45, (radius > 0.6) & (radius <= 0.75)]
    )
    gm, csf = LOOKS[contrast]
    data = np.tensordot([gm, 1.0, csf], tissues, axes=1)
    data = data + 0.02 * np.random.default_rng(0).random(SHAPE) * (radius <= 0.75)
    volume = Volume(data.astype(np.float32), np.eye(4))
    maps, brain = (255 * tissues).astype(np.uint8), radius <= 0.75
    profile = measure_profile(volume.data, brain, maps)
    return Scan(name or contrast, contrast, volume, volume, np.eye(4), brain, maps, profile)


class Halves(Method):
    """Stands for the transfer."""

    name = 'halves'

    def harmonize(self, session, target):
        same = [scan for scan in session if scan.contrast == target.contrast]
        images = [scan.working.with_data(scan.working.data / 2) for scan in same]
        return [Harmonized(s.name, s.contrast, i, i) for s, i in zip(same, images, strict=True)]


def method(fused=('T2w',), **options):
    torch.manual_seed(0)
    config = CalamitiConfig(
        'test',
        UNetConfig((4, 4, 8, 8, 8), (1, 1, 1, 1, 1), norm_finest=False),
        UNetConfig((4, 4, 8, 8, 8), (1, 1, 1, 1, 1), norm=False),
        theta_widths=(4, 4, 8, 8),
        discriminator_widths=(4, 4),
        fusion_width=4,
    )
    nets, fusion = CalamitiNets(config), None
    if fused:
        fusion = nn.ModuleDict({contrast: FusionNet(4) for contrast in fused})
        for network in fusion.values():
            network.head.bias.data[0] = 10.0  # the axial result alone
    options.setdefault('transfer', Halves())
    return Calamiti(nets, fusion, {'styles': []}, **options)


@pytest.fixture(scope='module')
def scans():
    return {contrast: ball_scan(contrast) for contrast in LOOKS}


@pytest.fixture(scope='module')
def target(scans):
    return method().encode_target([scans['T2w']], 'site')


def test_a_style_has_two_thetas_and_no_eta(target):
    assert len(target.theta) == 2
    assert target.eta == ()


def test_one_t1w_scan_makes_a_t2w_image(scans, target):
    (result,) = method().harmonize([scans['T1w']], target)
    assert result.source is None
    assert result.contrast == 'T2w'
    assert np.isfinite(result.working.data).all()
    assert result.working.data.max() > 0
    assert set(result.theta) == {'T1w', 'target'}
    assert result.eta == result.attention == {}


def test_no_other_scan_of_the_session_takes_part(scans, target):
    alone, beside = (
        method(detail='decoder').harmonize([scans[c] for c in session], target)[0]
        for session in (('T2w',), ('T1w', 'T2w', 'FLAIR'))
    )
    np.testing.assert_array_equal(alone.working.data, beside.working.data)
    assert set(beside.theta) == {'T2w', 'target'}
    one, other = (
        method().harmonize([scans[c] for c in session], target)[0]
        for session in (('T1w',), ('FLAIR', 'T1w'))
    )
    np.testing.assert_array_equal(one.working.data, other.working.data)


def test_a_scan_of_the_same_contrast_ends_in_the_transfer(scans, target):
    (result,) = method().harmonize([scans['T1w'], scans['T2w']], target)
    assert result.settings['Detail'] == 'transfer'
    np.testing.assert_array_equal(result.working.data, scans['T2w'].working.data / 2)
    (image,) = method(detail='decoder').harmonize([scans['T2w']], target)
    assert image.settings['Detail'] == 'decoder'
    assert image.native.shape == SHAPE


def test_each_contrast_has_its_own_fusion_or_the_median(scans, target):
    network = method().harmonize([scans['T1w']], target)[0]
    median = method(fused=()).harmonize([scans['T1w']], target)[0]
    assert network.settings['Fusion'] == 'network'
    assert median.settings['Fusion'] == 'median'
    assert np.abs(network.working.data - median.working.data).max() > 0.05
    flair = replace(target, contrast='FLAIR')
    bare, fused = (method(fused=f).harmonize([scans['T1w']], flair)[0] for f in ((), ('T2w',)))
    assert fused.settings['Fusion'] == 'median'
    np.testing.assert_array_equal(bare.working.data, fused.working.data)


def test_save_and_load_give_the_same_voxels(scans, target, tmp_path):
    calamiti = method()
    calamiti.nets.half().float()  # the folder keeps float16
    calamiti.fusion.half().float()
    calamiti.save(tmp_path)
    told = json.loads((tmp_path / METADATA).read_text())
    assert told['fusion'] == ['T2w']
    loaded = Calamiti.load(tmp_path, transfer=Halves())
    for name, tensor in calamiti.nets.discriminator.state_dict().items():
        assert torch.equal(tensor, loaded.nets.discriminator.state_dict()[name])
    one, other = (m.harmonize([scans['T1w']], target)[0] for m in (calamiti, loaded))
    np.testing.assert_array_equal(one.working.data, other.working.data)
    assert other.settings['CalamitiModel'] == told['weights_sha256']
    median = Calamiti.load(tmp_path, transfer=Halves(), fusion='median')
    assert median.harmonize([scans['T1w']], target)[0].settings['Fusion'] == 'median'


def test_what_does_not_fit_is_refused(scans, target, tmp_path):
    with pytest.raises(InputError, match='of another model'):
        method().harmonize([scans['T1w']], replace(target, eta=(0.1, 0.2)))
    method(fused=()).save(tmp_path)
    with pytest.raises(OptionError, match='has no fusion network'):
        Calamiti.load(tmp_path, fusion='network')
    told = json.loads((tmp_path / METADATA).read_text())
    (tmp_path / METADATA).write_text(json.dumps(told | {'fusion': ['PET']}))
    with pytest.raises(ModelError, match='does not describe networks of calamiti'):
        Calamiti.load(tmp_path)
    with pytest.raises(OptionError, match='calamiti is trained by'):
        method().fit([scans['T1w']])
