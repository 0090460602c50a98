"""Spectrum swapping: against SciPy's cosine transform, on turned grids, and what it refuses."""

import json

import numpy as np
import pytest
from scipy import fft

from harmony_app.errors import OptionError
from harmony_app.imaging.profile import measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.classical.ssimh import SpectrumSwapping, lowest_cosines

SHAPE = (40, 44, 36)
CENTER = [(n - 1) / 2 for n in SHAPE]


def make_scan(name='sub-01_T1w', contrast='T1w', seed=0, gain=1.0, turn=0.0):
    """An ellipsoid of three tissues in blocks and air with noise; the native grid is turned about z."""
    generator = np.random.default_rng(seed)
    axes = np.meshgrid(
        *[np.arange(n) - c for n, c in zip(SHAPE, CENTER, strict=True)], indexing='ij'
    )
    radius = np.sqrt(sum((a / n) ** 2 for a, n in zip(axes, SHAPE, strict=True)))
    brain = radius < 0.38
    label = generator.integers(0, 3, [n // 4 for n in SHAPE]).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    data = np.choose(label, (0.65, 1.0, 0.3)) + generator.normal(0, 0.03, SHAPE)
    data = np.where(brain, data * gain, 0.02 * generator.random(SHAPE)).astype(np.float32)
    data[:2] = 0
    tissues = np.stack([(label == i) & brain for i in range(3)]).astype(np.uint8) * 255
    working = Volume(data, np.eye(4))
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = np.eye(4)
    rotation[:2, :2] = [[cosine, -sine], [sine, cosine]]
    rotation[:3, 3] = CENTER - rotation[:3, :3] @ CENTER
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    native = resample(working, (40, 44, 18), affine, np.linalg.inv(rotation), order=1)
    return Scan(
        name=name,
        contrast=contrast,
        working=working,
        native=native,
        native_to_working=rotation,
        brain=brain,
        tissues=tissues,
        profile=measure_profile(data, brain, tissues),
    )


@pytest.fixture(scope='module')
def source():
    return make_scan(turn=0.2)


@pytest.fixture(scope='module')
def target():
    return make_scan('sub-02_T1w', seed=1, gain=1.3)


def test_cosines_are_those_of_scipy():
    data = np.random.default_rng(0).random((8, 9, 10))
    plain = fft.dctn(data, type=2)[:3, :3, :3]
    # SciPy's sums are 2 sum x cos; an amplitude is 2/N of a sum, for the mean 1/N.
    weight = np.where(np.arange(3) == 0, 0.5, 1)
    scale = np.einsum('i,j,k->ijk', weight, weight, weight) / (8 * 9 * 10)
    np.testing.assert_allclose(lowest_cosines(data, 3), plain * scale, atol=1e-12)


def test_the_swap_is_that_of_a_whole_transform(source, target):
    method = SpectrumSwapping()
    (result,) = method.harmonize([source], method.encode_target([target], 'x'))
    brain, other = (np.where(s.brain, s.working.data, 0).astype(float) for s in (source, target))
    spectrum = fft.dctn(brain)
    spectrum[:3, :3, :3] = fft.dctn(other)[:3, :3, :3]
    swapped = fft.idctn(spectrum)
    full = source.brain & (source.working.data >= 0.1) & (swapped > 0)
    assert full.sum() > 5000
    np.testing.assert_allclose(result.working.data[full], swapped[full], atol=1e-5)


def test_nearer_to_the_target(source, target):
    method = SpectrumSwapping()
    (result,) = method.harmonize([source], method.encode_target([target], 'x'))
    means = [v.data[source.brain].mean() for v in (source.working, result.working, target.working)]
    assert abs(means[1] - means[2]) < 0.5 * abs(means[0] - means[2])


def test_the_native_grid_shows_the_same_field(source, target):
    """What is added, interpolated from the working grid, is what was evaluated on the turned one."""
    method = SpectrumSwapping()
    (result,) = method.harmonize([source], method.encode_target([target], 'x'))
    added = Volume(result.working.data - source.working.data, np.eye(4))
    inside = Volume((source.brain & (source.working.data > 0.1)).astype(np.float32), np.eye(4))
    there = np.linalg.inv(source.native_to_working)
    moved, sure = (
        resample(v, source.native.shape, source.native.affine, there, order=1)
        for v in (added, inside)
    )
    sure = (sure.data > 0.999) & (source.native.data > 0.1)
    assert sure.sum() > 1000
    difference = (result.native.data - source.native.data)[sure] - moved.data[sure]
    assert np.abs(difference).max() < 0.01
    assert np.abs(moved.data[sure]).mean() > 0.05
    np.testing.assert_array_equal(result.native.affine, source.native.affine)
    assert result.native.shape == source.native.shape


def test_own_style_changes_nothing(source):
    method = SpectrumSwapping()
    (result,) = method.harmonize([source], method.encode_target([source], 'x'))
    np.testing.assert_allclose(result.working.data, source.working.data, atol=1e-6)
    np.testing.assert_allclose(result.native.data, source.native.data, atol=1e-6)


@pytest.mark.parametrize('gain', (0.2, 3.0))
def test_air_stays_air_and_nothing_is_negative(source, gain):
    method = SpectrumSwapping()
    style = method.encode_target([make_scan(seed=1, gain=gain)], 'x')
    (result,) = method.harmonize([source], style)
    for before, after in ((source.working, result.working), (source.native, result.native)):
        air = before.data <= 0.02
        np.testing.assert_array_equal(after.data[air], before.data[air])
        assert after.data.min() >= 0
        assert after.data.dtype == np.float32


def test_a_site_is_the_median_of_its_scans(target):
    method = SpectrumSwapping()
    scans = [target, make_scan('b', seed=2, gain=1.3), make_scan('wrong', seed=3, gain=9.0)]
    single = [method.encode_target([scan], 'x').spectrum for scan in scans]
    site = method.encode_target(scans, 'site')
    assert site.spectrum == pytest.approx(np.median(single, axis=0))
    assert site.scans == 3
    pair = method.encode_target(scans[:2], 'pair')
    assert pair.spectrum == pytest.approx(np.mean(single[:2], axis=0))


def test_a_style_keeps_its_spectrum_in_json(target):
    style = SpectrumSwapping().encode_target([target], 'x')
    assert len(style.spectrum) == 27
    assert Style.from_dict(json.loads(json.dumps(style.to_dict()))) == style
    old = style.to_dict()
    del old['spectrum']  # a file that was written before styles had one
    assert Style.from_dict(old).spectrum == ()


def test_a_style_without_spectrum_is_refused(source):
    plain = Style('mprage-3t', 'T1w', source.profile)
    with pytest.raises(OptionError, match=r'mprage-3t \(T1w\) holds no spectrum.*--target'):
        SpectrumSwapping().harmonize([source], plain)
    with pytest.raises(OptionError, match='threshold 2, and method ssimh needs one of threshold 3'):
        SpectrumSwapping().check_target(SpectrumSwapping(2).encode_target([source], 'x'))


def test_only_scans_of_the_contrast_of_the_target(source, target):
    method = SpectrumSwapping(2)
    other = make_scan('sub-01_T2w', 'T2w')
    results = method.harmonize([other, source], method.encode_target([target], 'x'))
    assert [r.source for r in results] == ['sub-01_T1w']
    assert results[0].settings['method'] == 'ssimh'
    assert results[0].settings['threshold'] == 2


@pytest.mark.parametrize('threshold', (0, 17))
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(OptionError, match='threshold'):
        SpectrumSwapping(threshold)


def test_too_small_a_volume_is_told():
    with pytest.raises(ValueError, match='has no 3 frequencies'):
        lowest_cosines(np.ones((8, 2, 8)), 3)
