"""MISPEL as a method: the unit of the scan's own scanner, in axial slices, and no target."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.errors import ModelError, OptionError, ScanError
from harmony_app.imaging.profile import measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan
from harmony_app.methods.mispel import MIDDLE_GROUND, Mispel
from harmony_app.methods.model_folder import METADATA
from harmony_app.methods.registry import get_method
from harmony_app.nets.mispel import MispelConfig, MispelNets
from harmony_app.nets.unet import UNetConfig

SHAPE = (32, 32, 32)
UNITS = (('T1w', 'GE'), ('T1w', 'Prisma'), ('T2w', 'GE'))


def ball_scan(site='GE', contrast='T1w', name='scan', shift=0.0):
    """White matter in grey matter in fluid, native on a grid of its own."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes))
    tissues = np.stack(
        [(radius > 0.45) & (radius <= 0.6), radius <= 0.45, (radius > 0.6) & (radius <= 0.75)]
    )
    data = np.tensordot([0.7, 1.0, 0.2], tissues, axes=1)
    data = data + 0.02 * np.random.default_rng(0).random(SHAPE) * (radius <= 0.75)
    volume = Volume(data.astype(np.float32), np.eye(4))
    to_working = np.eye(4)
    to_working[:3, 3] = shift
    native = resample(volume, (40, 36, 34), np.diag([0.9, 0.9, 0.9, 1]), np.linalg.inv(to_working))
    maps, brain = (255 * tissues).astype(np.uint8), radius <= 0.75
    profile = measure_profile(volume.data, brain, maps)
    return Scan(name, contrast, volume, native, to_working, brain, maps, profile, site)


def method(scale=(1.0, 1.0, 1.0)):
    """Units that give their scans times a number: an encoder whose first embedding is the image."""
    torch.manual_seed(0)
    nets = MispelNets(MispelConfig('test', UNetConfig((4, 4), (1, 1), norm=False), UNITS))
    with torch.no_grad():
        for unit, factor in zip(nets.units, scale, strict=True):
            for parameter in unit.parameters():
                parameter.zero_()
            first = unit.encoder.down[0][0].conv.weight
            first[0, 0, 1, 1] = 1
            unit.encoder.up[0][0].conv.weight[0, 0, 1, 1] = 1
            unit.encoder.head.weight[0, 0] = 1
            unit.decoder.weight[0, 0] = factor
    return Mispel(nets, {})


def test_each_scan_goes_through_the_unit_of_its_own_scanner(make_style):
    scans = [ball_scan('GE'), ball_scan('Prisma', name='other'), ball_scan('GE', 'T2w')]
    results = method((0.5, 2.0, 4.0)).harmonize(scans, make_style('T1w'))
    assert [result.source for result in results] == ['scan', 'other']
    for result, scan, factor in zip(results, scans, (0.5, 2.0), strict=False):
        shown = result.working.data > 0
        np.testing.assert_allclose(
            result.working.data[shown], factor * scan.working.data[shown], rtol=1e-5
        )
        assert shown[scan.working.data > 0.5].all()
        assert result.settings['Unit'] == scan.site
    (made,) = method((0.5, 2.0, 4.0)).harmonize(scans, make_style('T2w'))
    assert made.working.data.max() == pytest.approx(4 * scans[2].working.data.max(), rel=1e-5)


def test_what_the_target_looks_like_has_no_say(make_style):
    scan = ball_scan()
    style = make_style('T1w')
    other = replace(style, wm_peak=3.0, profile=scan.profile, name='other')
    one, two = (method().harmonize([scan], s)[0].working.data for s in (style, other))
    np.testing.assert_array_equal(one, two)
    assert not Mispel.takes_target


def test_the_native_result_lies_where_the_scan_lies(make_style):
    scan = ball_scan(shift=1.3)
    (result,) = method((2.0, 1.0, 1.0)).harmonize([scan], make_style('T1w'))
    assert result.native.shape == scan.native.shape
    np.testing.assert_array_equal(result.native.affine, scan.native.affine)
    inside = scan.native.data > 0.5
    difference = result.native.data[inside] - 2 * scan.native.data[inside]
    assert np.abs(difference).mean() < 0.05
    assert np.abs(np.median(difference)) < 0.01


def test_slices_are_axial():
    scan = ball_scan()
    model = method()
    torch.manual_seed(1)
    for parameter in model.nets.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    whole = model.map(scan).data
    changed = scan.working.data.copy()
    changed[:, :, 14] *= 1.5
    other = model.map(replace(scan, working=scan.working.with_data(changed))).data
    different = np.abs(other - whole).max(axis=(0, 1)) > 0
    assert np.flatnonzero(different).tolist() == [14]


def test_a_scanner_without_a_unit_is_refused_with_those_that_have_one(make_style):
    for site, contrast, told in (
        ('Skyra', 'T1w', 'GE, Prisma'),
        ('Prisma', 'T2w', 'one: GE;'),
        (None, 'T1w', 'names no scanner'),
        ('GE', 'FLAIR', 'one: none'),
    ):
        with pytest.raises(ScanError, match=told):
            method().harmonize([ball_scan(site, contrast)], make_style(contrast))
    empty = ball_scan()
    empty = replace(empty, working=empty.working.with_data(np.zeros(SHAPE, np.float32)))
    with pytest.raises(ScanError, match='shows nothing'):
        method().harmonize([empty], make_style('T1w'))


def test_the_middle_ground_is_what_the_units_make():
    style = method((1.0, 1.2, 1.0)).middle_ground([ball_scan('GE'), ball_scan('Prisma')])
    assert (style.name, style.contrast, style.scans) == (MIDDLE_GROUND, 'T1w', 2)
    # of fluid at the rim the outline of the ball shows a part
    expected = 1.1 * np.array(ball_scan().profile.medians[:2])
    np.testing.assert_allclose(style.profile.medians[:2], expected, rtol=0.02)
    with pytest.raises(ValueError, match='one contrast'):
        method().middle_ground([ball_scan(), ball_scan(contrast='T2w')])


def test_save_and_load_give_the_same_voxels(tmp_path, make_style):
    model = method((0.5, 2.0, 4.0))
    torch.manual_seed(3)
    for parameter in model.nets.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.nets.half().float()  # the folder keeps float16
    styles = [replace(make_style(c), name=MIDDLE_GROUND).to_dict() for c in ('T1w', 'T2w')]
    model.metadata = {'licence': 'CC0', 'contrasts': ['PDw'], 'styles': styles}
    model.save(tmp_path)
    told = json.loads((tmp_path / METADATA).read_text())
    assert told['contrasts'] == ['T1w', 'T2w']
    loaded = get_method('mispel', tmp_path)
    assert loaded.nets.config == model.nets.config
    one, other = (m.map(ball_scan()).data for m in (model, loaded))
    np.testing.assert_array_equal(one, other)
    assert loaded.metadata['licence'] == 'CC0'

    (tmp_path / METADATA).write_text(json.dumps(told | {'styles': styles[:1]}))
    with pytest.raises(ModelError, match='middle ground of T2w'):
        Mispel.load(tmp_path)
    (tmp_path / METADATA).write_text(json.dumps(told | {'networks': {'units': []}}))
    with pytest.raises(ModelError, match='does not describe networks of mispel'):
        Mispel.load(tmp_path)
    with pytest.raises(OptionError, match='mispel is trained by'):
        model.fit([])
