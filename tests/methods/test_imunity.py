"""ImUnity as a method: one scan to any target of its contrast, encoded once, a folder that is whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError, ModelError, OptionError
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan
from harmony_app.methods.imunity import ImUnity
from harmony_app.methods.model_folder import METADATA
from harmony_app.methods.registry import get_method
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.imunity import ImUnityConfig, ImUnityNets

CONFIG = ImUnityConfig(
    'test',
    latent=16,
    theta=3,
    anatomy_width=6,
    anatomy_blocks=1,
    decoder_width=6,
    decoder_blocks=1,
    fine=(4, 4),
    theta_widths=(4, 4, 8, 8),
    fusion_width=4,
)


def shells(contrast, gm, csf, name=None):
    """White matter within grey matter within fluid, 32 voxels wide."""
    line = np.linspace(-1, 1, 32)
    radius = np.sqrt(line[:, None, None] ** 2 + line[:, None] ** 2 + line**2)
    layers = np.digitize(radius, [0.45, 0.6, 0.75])
    grain = 1 + 0.02 * np.random.default_rng(0).random(layers.shape)
    data = (np.array([1.0, gm, csf, 0.0])[layers] * grain).astype(np.float32)
    tissues = np.stack([layers == tissue for tissue in (1, 0, 2)])
    maps = (255 * tissues).astype(np.uint8)
    return Scan.of_working(name or contrast, contrast, Volume(data, np.eye(4)), layers < 3, maps)


def method(fused=False, **options):
    torch.manual_seed(0)
    nets = ImUnityNets(CONFIG)
    # kept as float16
    nets.half().float()
    options.setdefault('detail', 'decoder')
    return ImUnity(nets, FusionNet(4) if fused else None, {'styles': []}, **options)


@pytest.fixture(scope='module')
def scan():
    return shells('T1w', 0.7, 0.2)


@pytest.fixture(scope='module')
def target():
    return method().encode_target([shells('T1w', 0.6, 0.1), shells('T1w', 0.5, 0.1, 'b')], 'site')


def test_a_style_is_averaged_over_scans(target):
    one, other = (
        method().encode_target([shells('T1w', gm, 0.1)], 'one').theta for gm in (0.6, 0.5)
    )
    assert len(target.theta) == CONFIG.theta
    assert target.eta == ()
    np.testing.assert_allclose(target.theta, np.mean([one, other], axis=0), rtol=1e-5)


def test_a_scan_is_decoded_by_itself(scan, target):
    beside = shells('T2w', 1.4, 3.0)
    (alone,), (with_other,) = (
        method().harmonize(session, target) for session in ([scan], [beside, scan])
    )
    np.testing.assert_array_equal(alone.working.data, with_other.working.data)
    assert alone.source == scan.name
    assert alone.native.shape == scan.native.shape
    assert np.isfinite(alone.working.data).all()
    assert (alone.working.data >= 0).all()
    assert set(alone.theta) == {'T1w', 'target'}
    assert alone.settings['Detail'] == 'decoder'
    assert alone.settings['Fusion'] == 'median'


def test_further_targets_cost_the_decoder_alone_and_give_the_same(scan, target, monkeypatch):
    other = replace(target, name='other', theta=(1.0, -2.0, 0.5))
    fresh = method().harmonize([scan], other)[0].working.data
    imunity = method()
    first = imunity.harmonize([scan], target)[0].working.data
    asked = []
    encode = imunity.nets.anatomy.forward
    monkeypatch.setattr(
        imunity.nets.anatomy, 'forward', lambda *given: asked.append(1) or encode(*given)
    )
    second = imunity.harmonize([scan], other)[0].working.data
    assert not asked
    np.testing.assert_array_equal(second, fresh)
    assert not np.array_equal(second, first)
    np.testing.assert_array_equal(imunity.harmonize([scan], target)[0].working.data, first)
    imunity.forget()
    imunity.harmonize([scan], target)
    assert asked


def test_a_contrast_that_was_not_acquired_is_not_made(scan, target):
    assert not ImUnity.can_impute
    assert method().harmonize([scan], replace(target, contrast='T2w')) == []
    assert method(detail='transfer').harmonize([scan], replace(target, contrast='T2w')) == []
    with pytest.raises(ValueError, match='decodes one scan, not 2'):
        method().decode([scan, shells('T1w', 0.5, 0.1, 'b')], target)


def test_save_and_load_give_the_same_voxels(scan, target, tmp_path):
    imunity = method(fused=True)
    imunity.save(tmp_path)
    loaded = get_method('imunity', tmp_path, detail='decoder')
    one, other = (m.harmonize([scan], target)[0] for m in (imunity, loaded))
    np.testing.assert_array_equal(one.working.data, other.working.data)
    told = json.loads((tmp_path / METADATA).read_text())
    assert other.settings['ImUnityModel'] == told['weights_sha256']
    assert other.settings['Fusion'] == 'network'


def test_what_does_not_fit_is_refused(scan, target, tmp_path):
    with pytest.raises(InputError, match='of another model'):
        method().harmonize([scan], replace(target, theta=(0.1, 0.2)))
    with pytest.raises(InputError, match='has no theta'):
        method().harmonize([scan], replace(target, theta=()))
    method().save(tmp_path)
    with pytest.raises(OptionError, match='has no fusion network'):
        ImUnity.load(tmp_path, fusion='network')
    told = json.loads((tmp_path / METADATA).read_text())
    (tmp_path / METADATA).write_text(json.dumps(told | {'networks': {'variant': 'x', 'y': 1}}))
    with pytest.raises(ModelError, match='does not describe networks of imunity'):
        ImUnity.load(tmp_path)
    with pytest.raises(OptionError, match='imunity is trained by'):
        method().fit([scan])
