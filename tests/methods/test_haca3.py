"""HACA3 as a method: any subset of contrasts, any order, same voxels, models that are checked."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError, ModelError, OptionError, ScanError
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.profile import blend_profiles, measure_profile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS, Harmonized, Method, Scan, Style
from harmony_app.methods.haca3 import Haca3
from harmony_app.methods.model_folder import METADATA, WEIGHTS
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import Haca3Config, Haca3Nets
from harmony_app.nets.unet import UNetConfig

SHAPE = (48, 48, 48)
LOOKS = {'T1w': (0.7, 0.2), 'T2w': (1.4, 3.0), 'PDw': (1.2, 1.4), 'FLAIR': (1.3, 0.1)}


def ball_scan(contrast, name=None, shape=SHAPE, affine=None, seed=0):
    """White matter in grey matter in fluid; looks by contrast."""
    affine = np.eye(4) if affine is None else affine
    gm, csf = LOOKS[contrast]
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes))
    tissues = np.stack(
        [(radius > 0.45) & (radius <= 0.6), radius <= 0.45, (radius > 0.6) & (radius <= 0.75)]
    )
    data = np.tensordot([gm, 1.0, csf], tissues, axes=1)
    data = data + 0.02 * np.random.default_rng(seed).random(shape) * (radius <= 0.75)
    volume = Volume(data.astype(np.float32), affine)
    maps, brain = (255 * tissues).astype(np.uint8), radius <= 0.75
    return Scan(
        name or contrast, contrast, volume, volume, np.eye(4), brain, maps,
        measure_profile(volume.data, brain, maps),
    )  # fmt: skip


class Recorder(Method):
    """Stands for the transfer: halves the scan and keeps what it was asked for."""

    name = 'recorder'

    def __init__(self):
        self.calls = []

    def harmonize(self, session, target):
        self.calls.append((list(session), target))
        same = [scan for scan in session if scan.contrast == target.contrast]
        half = [scan.working.with_data(scan.working.data / 2) for scan in same]
        return [
            Harmonized(scan.name, scan.contrast, image, image, settings={'Half': True})
            for scan, image in zip(same, half, strict=True)
        ]


def small_nets(seed=0):
    torch.manual_seed(seed)
    config = Haca3Config(
        'test',
        UNetConfig((4, 4, 8, 8, 8), (1, 1, 1, 1, 1), norm_finest=False),
        UNetConfig((4, 4, 8, 8, 8), (1, 1, 1, 1, 1), norm=False),
        theta_widths=(4, 4, 8, 8),
        eta_widths=(4, 4),
        fusion_width=4,
    )
    return Haca3Nets(config), FusionNet(4)


@pytest.fixture(scope='module')
def scans():
    return {contrast: ball_scan(contrast, seed=i) for i, contrast in enumerate(CONTRASTS)}


def method(**options):
    nets, fusion = small_nets()
    options.setdefault('transfer', Recorder())
    return Haca3(nets, fusion, {'styles': []}, **options)


@pytest.fixture(scope='module')
def target(scans):
    return method().encode_target([scans['T2w']], 'site')


def test_target_is_the_average_over_scans(scans):
    other = ball_scan('T2w', 'other', seed=9)
    haca3 = method()
    one, two = (haca3.encode_target([scan], 'x') for scan in (scans['T2w'], other))
    both = haca3.encode_target([scans['T2w'], other], 'x')
    np.testing.assert_allclose(both.theta, (np.array(one.theta) + two.theta) / 2, atol=1e-6)
    np.testing.assert_allclose(both.eta, (np.array(one.eta) + two.eta) / 2, atol=1e-6)
    assert len(one.theta) == len(one.eta) == 2
    with pytest.raises(ValueError, match='one contrast'):
        haca3.encode_target([scans['T2w'], scans['T1w']], 'x')


@pytest.mark.parametrize(
    'contrasts', [c for n in range(1, 5) for c in combinations(CONTRASTS, n)], ids='+'.join
)
def test_every_subset_of_contrasts_gives_the_target(scans, target, contrasts):
    session = [scans[contrast] for contrast in contrasts]
    (result,) = method(detail='decoder').harmonize(session, target)
    assert result.contrast == 'T2w'
    assert result.working.shape == SHAPE
    assert result.working.data.dtype == np.float32
    assert np.isfinite(result.working.data).all()
    assert result.working.data.max() > 0
    assert set(result.attention) == set(contrasts)
    assert sum(result.attention.values()) == pytest.approx(1)
    assert set(result.theta) == set(result.eta) == {*contrasts, 'target'}
    if 'T2w' in contrasts:
        assert result.source == 'T2w'
        assert result.native.shape == SHAPE
    else:
        assert result.source is None
        assert result.native is None


def test_eta_is_judged_where_the_model_has_a_scale(scans, target):
    session = [scans['T2w'], scans['T1w']]
    (plain,) = method().harmonize(session, target)
    assert plain.artifacts == {}
    haca3 = method()
    scale = {'unspoiled': {'T1w': 0.0, 'T2w': 1e3}, 'doubtful': 0.0, 'poor': 1e3, 'note': 'a test'}
    haca3.metadata['artifact_scale'] = scale
    (result,) = haca3.harmonize(session, target)
    assert result.artifacts['T2w'] == (0.0, 'good')
    level, word = result.artifacts['T1w']
    assert level == pytest.approx(np.linalg.norm(plain.eta['T1w']))
    assert word == 'doubtful'


def test_order_of_the_session_changes_nothing(scans, target):
    session = [scans['T1w'], scans['PDw'], scans['FLAIR']]
    (one,) = method().harmonize(session, target)
    (other,) = method().harmonize(session[::-1], target)
    np.testing.assert_allclose(one.working.data, other.working.data, atol=1e-5)
    for name, weight in one.attention.items():
        assert other.attention[name] == pytest.approx(weight, abs=1e-6)


def test_two_runs_give_the_same_voxels(scans, target):
    session = [scans['T1w'], scans['FLAIR']]
    results = [method().harmonize(session, target)[0].working.data for _ in range(2)]
    np.testing.assert_array_equal(*results)


def test_transfer_is_the_last_stage_and_the_tables_are_given(scans, target):
    recorder = Recorder()
    session = [scans['T1w'], scans['T2w']]
    (result,) = method(transfer=recorder).harmonize(session, target)
    ((given, style),) = recorder.calls
    assert given == [scans['T2w'], scans['T1w']]
    assert style.profile == target.profile
    np.testing.assert_array_equal(result.working.data, scans['T2w'].working.data / 2)
    assert result.decoder is None
    assert set(result.attention) == {'T1w', 'T2w'}
    assert result.settings['Half']
    assert result.settings['Detail'] == 'transfer'


def test_decoder_image_is_kept_where_asked_and_lends_its_profile(scans, target):
    recorder = Recorder()
    haca3 = method(transfer=recorder, keep_decoder=True, decoder_profile_weight=0.5)
    (result,) = haca3.harmonize([scans['T2w']], target)
    assert result.decoder.shape == SHAPE
    reached = measure_profile(result.decoder.data, scans['T2w'].brain, scans['T2w'].tissues)
    expected = blend_profiles(target.profile, reached, 0.5)
    assert recorder.calls[0][1].profile == expected
    assert expected.medians != target.profile.medians
    assert expected.medians == pytest.approx(
        (np.array(target.profile.medians) + reached.medians) / 2
    )


def test_each_run_of_a_contrast_has_its_own_result(scans, target):
    other = ball_scan('T2w', 'T2w_run-2', seed=5)
    results = method(detail='decoder').harmonize([scans['T2w'], scans['T1w'], other], target)
    assert [r.source for r in results] == ['T2w', 'T2w_run-2']
    assert set(results[0].attention) == {'T2w', 'T1w'}
    assert set(results[1].attention) == {'T2w_run-2', 'T1w'}


def test_a_source_is_encoded_once_for_all_targets(scans, target, monkeypatch):
    import harmony_app.methods.anatomy_method as module

    counted = []
    encode = module.encode_anatomy
    monkeypatch.setattr(module, 'encode_anatomy', lambda *a: counted.append(1) or encode(*a))
    haca3, session = method(), [scans['T1w']]
    one = haca3.harmonize(session, target)[0]
    two = haca3.harmonize(session, replace(target, contrast='FLAIR', theta=(3.0, -3.0)))[0]
    assert len(counted) == 1
    assert np.abs(one.working.data - two.working.data).max() > 1e-3
    haca3.harmonize([scans['PDw']], target)
    assert len(counted) == 2
    assert [e.scan.name for e in haca3._encoded] == ['PDw']


def test_attention_follows_what_a_scan_shows(scans, target):
    half = scans['T1w'].working.data.copy()
    half[:, :, 24:] = 0
    part = replace(scans['T1w'], name='part', working=scans['T1w'].working.with_data(half))
    (whole,) = method().harmonize([scans['T1w'], scans['PDw']], target)
    (result,) = method().harmonize([part, scans['PDw']], target)
    assert result.attention['part'] < whole.attention['T1w']
    assert result.working.data[24, 24, 40] > 0  # there the other scan alone


def test_a_target_without_theta_serves_the_transfer_but_not_the_decoder(scans, target):
    bare = replace(target, theta=(), eta=())
    (result,) = method().harmonize([scans['T2w']], bare)
    assert 'target' not in result.theta
    assert result.attention == {}
    with pytest.raises(InputError, match='no theta'):
        method().harmonize([scans['T1w']], bare)
    known = method()
    known.metadata['styles'] = [target.to_dict()]
    (result,) = known.harmonize([scans['T1w']], bare)
    assert result.theta['target'] == pytest.approx(target.theta)
    with pytest.raises(InputError, match='of another model'):
        method().harmonize([scans['T1w']], replace(target, theta=(1.0,)))


def test_a_scan_that_shows_nothing_is_named(scans, target):
    empty = replace(
        scans['T1w'],
        name='void',
        working=scans['T1w'].working.with_data(np.zeros(SHAPE, np.float32)),
    )
    with pytest.raises(ScanError, match='void'):
        method().harmonize([empty], target)


def test_native_decoder_image_lies_on_the_native_grid(scans, target):
    coarse = Volume(np.ones((24, 20, 30), np.float32), np.diag([2.0, 2.4, 1.6, 1.0]))
    shift = np.eye(4)
    shift[:3, 3] = 3, -2, 1
    scan = replace(scans['T2w'], native=coarse, native_to_working=shift)
    (result,) = method(detail='decoder').harmonize([scan], target)
    assert result.native.shape == coarse.shape
    np.testing.assert_array_equal(result.native.affine, coarse.affine)

    # centre of mass in native millimetres, moved to the working grid, is where it was
    def centre(volume):
        weights = volume.data / volume.data.sum()
        index = [
            np.einsum('ijk,' + 'ijk'[a] + '->', weights, np.arange(volume.shape[a]))
            for a in range(3)
        ]
        return volume.affine[:3, :3] @ index + volume.affine[:3, 3]

    np.testing.assert_allclose(
        centre(result.native) + shift[:3, 3], centre(result.working), atol=0.3
    )


@pytest.mark.parametrize(
    'options, message',
    [
        ({'detail': 'magic'}, '--detail magic'),
        ({'decoder_profile_weight': 2.0}, 'lies in 0 to 1'),
        ({'device': 'cuda:99'}, '--device cuda:99'),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(OptionError, match=message):
        method(**options)


def test_model_folder_round_trip(scans, target, tmp_path):
    haca3 = method()
    haca3.nets.half().float()  # the folder keeps float16
    haca3.fusion.half().float()
    haca3.save(tmp_path / 'model')
    loaded = Haca3.load(tmp_path / 'model', detail='decoder', transfer=Recorder())
    assert loaded.detail == 'decoder'
    expected = haca3.harmonize([scans['T1w']], target)[0]
    result = loaded.harmonize([scans['T1w']], target)[0]
    np.testing.assert_array_equal(result.working.data, expected.working.data)
    assert result.settings['Haca3Model'] == loaded.metadata['weights_sha256']
    assert result.settings['Fusion'] == 'network'


def test_damaged_and_foreign_models_are_refused(tmp_path):
    method().save(tmp_path)
    metadata = json.loads((tmp_path / METADATA).read_text())

    def refused(match, **fields):
        (tmp_path / METADATA).write_text(json.dumps(metadata | fields))
        with pytest.raises(ModelError, match=match):
            Haca3.load(tmp_path)

    refused('of the method mispel', method='mispel')
    refused('does not describe', networks={'variant': 'x'})
    for width, told in ((6, 'numbers, and the weights'), (2, 'has shape')):
        other = json.loads(json.dumps(metadata['networks']))
        other['beta']['widths'][0] = width
        refused(told, networks=other)
    (tmp_path / METADATA).write_text(json.dumps(metadata))
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match='sha256'):
        Haca3.load(tmp_path)


def test_training_while_in_use_is_refused(scans):
    with pytest.raises(OptionError, match='--task train'):
        method().fit([scans['T1w']])


def test_with_the_transfer_network_on_the_working_grid():
    from harmony_app.methods.transfer import Transfer
    from harmony_app.methods.transfer_features import CONDITION
    from harmony_app.nets.bilateral import TransferConfig, TransferNetwork

    scan = ball_scan('T1w', shape=WORKING_SHAPE, affine=WORKING_AFFINE)
    torch.manual_seed(0)
    transfer = Transfer(TransferNetwork(TransferConfig(condition=CONDITION, width=8)), {})
    gm, wm, csf = scan.profile.levels
    wanted = replace(scan.profile, levels=(0.5 * (gm + wm), wm, csf))
    style = Style('site', 'T1w', wanted, (0.1, 0.2), (0.0, 0.1))
    (result,) = method(transfer=transfer).harmonize([scan], style)
    reached = measure_profile(result.working.data, scan.brain, scan.tissues)
    before = scan.profile.distance(wanted, 'levels')
    assert reached.distance(wanted, 'levels') < 0.32 * before
    assert result.attention == {'T1w': pytest.approx(1)}
