"""Histogram matching, White Stripe and Nyul on profiles and small volumes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.errors import OptionError, ScanError
from harmony_app.imaging.profile import PERCENTILES, TissueProfile, measure_profile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.classical.histogram_matching import HistogramMatching
from harmony_app.methods.classical.intensity_map import IntensityMap
from harmony_app.methods.classical.nyul import Nyul, extend_ends
from harmony_app.methods.classical.unchanged import Unchanged
from harmony_app.methods.classical.white_stripe import WhiteStripe, white_stripe

METHODS = (Unchanged(), HistogramMatching(), WhiteStripe(), Nyul())
MAPPING = METHODS[1:]
SHAPE = (32, 36, 32)


def make_scan(seed=0, name='sub-01_T1w', contrast='T1w', remap=None, seen_through=None):
    """A ball of three noisy tissues in blocks of 4 voxels, a shell of scalp, and dark air."""
    generator = np.random.default_rng(seed)
    axes = [np.arange(n) - (n - 1) / 2 for n in SHAPE]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing='ij')))
    brain = radius < 13
    label = generator.integers(0, 3, [n // 4 for n in SHAPE]).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    data = np.choose(label, (0.65, 1.0, 0.3)) + generator.normal(0, 0.04, SHAPE)
    data[~brain] = np.where(radius[~brain] < 15, 1.4, 0.0)
    air = (radius > 15) & (generator.random(SHAPE) < 0.3)
    data[air] = 0.02
    data = np.maximum(data, 0).astype(np.float32)
    if remap is not None:
        data = remap(data).astype(np.float32)
    tissues = np.stack([(label == i) & brain for i in range(3)]).astype(np.uint8) * 255
    native = data[::2, ::2] if seen_through is None else seen_through
    return Scan(
        name=name,
        contrast=contrast,
        working=Volume(data, np.eye(4)),
        native=Volume(native, np.diag([2.0, 2.0, 1.0, 1.0])),
        native_to_working=np.eye(4),
        brain=brain,
        tissues=tissues,
        profile=measure_profile(data, brain, tissues),
    )


def style_of(scan, name='target'):
    return Style(name, scan.contrast, scan.profile)


def brighten(data):
    """A smooth monotone map that keeps 0 and 1."""
    return data**0.6


@pytest.mark.parametrize('method', METHODS, ids=lambda m: m.name)
def test_own_style_changes_nothing(method):
    scan = make_scan()
    (result,) = method.harmonize([scan], style_of(scan))
    np.testing.assert_allclose(result.working.data, scan.working.data, atol=1e-5)
    np.testing.assert_allclose(result.native.data, scan.native.data, atol=1e-5)


@pytest.mark.parametrize('method', MAPPING, ids=lambda m: m.name)
def test_map_is_monotone_and_keeps_the_background(method):
    scan = make_scan()
    intensity_map, _ = method.fit_map(scan, style_of(make_scan(1, remap=brighten)))
    steps = np.linspace(-0.5, 4, 4001)
    mapped = intensity_map(steps)
    assert np.all(np.diff(mapped) >= 0)
    assert np.all(mapped[steps <= 0] == 0)
    assert mapped[-1] > mapped[2000]


@pytest.mark.parametrize('method', METHODS, ids=lambda m: m.name)
def test_air_stays_dark(method):
    scan = make_scan()
    (result,) = method.harmonize([scan], style_of(make_scan(1, remap=brighten)))
    for before, after in ((scan.working, result.working), (scan.native, result.native)):
        assert np.all(after.data[before.data == 0] == 0)
        assert after.data[before.data == np.float32(0.02)].max() < 0.06
        assert after.data.dtype == np.float32
        np.testing.assert_array_equal(after.affine, before.affine)
        assert after.shape == before.shape


def test_histogram_matching_undoes_a_monotone_map():
    plain = make_scan()
    remapped = make_scan(remap=brighten)
    (result,) = HistogramMatching().harmonize([remapped], style_of(plain))
    error = np.abs(result.working.data - plain.working.data)[plain.brain]
    before = np.abs(remapped.working.data - plain.working.data)[plain.brain]
    assert before.mean() > 0.08
    # The rest is the mean over 2 mm, which does not commute with the map.
    assert error.mean() < 0.015
    profile = measure_profile(result.working.data, plain.brain, plain.tissues)
    np.testing.assert_allclose(profile.medians, plain.profile.medians, atol=0.02)


@pytest.mark.parametrize('method', (WhiteStripe(), Nyul()), ids=lambda m: m.name)
def test_nearer_to_the_target(method):
    source, target = make_scan(), make_scan(1, remap=brighten)
    (result,) = method.harmonize([source], style_of(target))
    reached = measure_profile(result.working.data, source.brain, source.tissues)
    assert reached.distance(target.profile) < 0.5 * source.profile.distance(target.profile)


def test_white_stripe_has_the_moments_of_the_target():
    source = make_scan()
    target = make_scan(1, remap=lambda data: np.where(data > 0, 0.3 * data + 0.7, 0))
    (result,) = WhiteStripe().harmonize([source], style_of(target))
    reached = white_stripe(measure_profile(result.working.data, source.brain, source.tissues), 0.05)
    wanted = white_stripe(target.profile, 0.05)
    assert reached.mean == pytest.approx(wanted.mean, abs=0.005)
    assert reached.deviation == pytest.approx(wanted.deviation, rel=0.1)


def test_white_stripe_of_a_uniform_histogram():
    """Quantile p is p: the stripe is uniform within .05 of .5, standard deviation .1 / sqrt(12)."""
    profile = TissueProfile((0.3, 0.5, 0.7), (0.1,) * 3, tuple(PERCENTILES / 100), ())
    stripe = white_stripe(profile, 0.05)
    assert stripe.mean == pytest.approx(0.5, abs=1e-6)
    assert stripe.deviation == pytest.approx(0.1 / np.sqrt(12), rel=0.02)


def test_white_stripe_at_the_bright_end_stays_within_the_histogram():
    profile = TissueProfile((0.3, 5.0, 0.7), (0.1,) * 3, tuple(PERCENTILES / 100), ())
    assert white_stripe(profile, 0.05).mean == pytest.approx(0.945, abs=1e-6)


def test_white_stripe_without_spread_is_told():
    scan = make_scan()
    flat = replace(scan, profile=replace(scan.profile, brain=(1.0,) * 100))
    with pytest.raises(ScanError, match=r'sub-01_T1w .* no spread'):
        WhiteStripe().harmonize([flat], style_of(scan))


@pytest.mark.parametrize('width', (0, 0.25, -1))
def test_white_stripe_refuses_a_width(width):
    with pytest.raises(OptionError, match='width'):
        WhiteStripe(width)


def test_nyul_reaches_its_landmarks():
    source, target = make_scan(), make_scan(1, remap=brighten)
    intensity_map, settings = Nyul().fit_map(source, style_of(target))
    mapped = intensity_map(np.array(settings['landmarks']))
    np.testing.assert_allclose(mapped, settings['target_landmarks'], atol=2e-3)


def test_nyul_never_lifts_air():
    """A first segment that would meet the axis above 0 gives way to the line to 0."""
    lifted = extend_ends(np.array([0.2, 1.0]), np.array([0.6, 1.0]))
    np.testing.assert_allclose(lifted(np.array([0.0, 0.1, 0.2, 2.0])), [0, 0.3, 0.6, 1.5])


@pytest.mark.parametrize('method', METHODS, ids=lambda m: m.name)
def test_only_scans_of_the_contrast_of_the_target(method):
    first, second = make_scan(), make_scan(1, name='sub-01_run-2_T1w')
    other = make_scan(2, name='sub-01_T2w', contrast='T2w')
    results = method.harmonize([first, other, second], style_of(first))
    assert [r.source for r in results] == ['sub-01_T1w', 'sub-01_run-2_T1w']
    assert {r.contrast for r in results} == {'T1w'}
    assert {r.settings['method'] for r in results} == {method.name}


def test_settings_tell_the_map():
    scan = make_scan()
    (stripe,) = WhiteStripe(0.1).harmonize([scan], style_of(scan))
    assert stripe.settings == {'method': 'white-stripe', 'width': 0.1, 'slope': 1.0, 'offset': 0.0}
    (nyul,) = Nyul().harmonize([scan], style_of(scan))
    assert nyul.settings['landmarks'] == nyul.settings['target_landmarks']
    assert len(nyul.settings['percentiles']) == len(nyul.settings['landmarks']) == 11


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=20),
    st.lists(st.floats(0, 5), min_size=20, max_size=20),
)
def test_any_landmarks_give_a_monotone_map(source, target):
    source = np.sort(source)
    target = np.sort(target[: source.size])
    if source[-1] <= 1e-6:
        return
    for intensity_map in (IntensityMap.through(source, target), extend_ends(source, target)):
        mapped = intensity_map(np.linspace(0, 6, 500))
        assert mapped[0] == 0
        assert np.all(np.isfinite(mapped))
        assert np.all(np.diff(mapped) >= -1e-6 * max(1, mapped[-1]))


@pytest.mark.parametrize(
    'source, target, slope',
    [((), (), 1), ((1, 2), (1,), 1), ((2, 1), (1, 2), 1), ((0, 1), (0, 1), 1), ((1, 2), (2, 1), 1)],
)
def test_a_map_that_falls_is_refused(source, target, slope):
    with pytest.raises(ValueError, match='intensity map'):
        IntensityMap(source, target, slope)
