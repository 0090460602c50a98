"""RAVEL on groups whose unwanted factor is known."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from harmony_app.errors import ModelError, OptionError, ScanError
from harmony_app.imaging.profile import measure_profile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.classical.ravel import Ravel
from harmony_app.methods.classical.white_stripe import WhiteStripe

SHAPE = (32, 36, 32)
GROUP = (-0.12, -0.08, -0.05, 0.0, 0.02, 0.06, 0.07, 0.1)


def make_scan(factor, seed=0, name=None, contrast='T1w', brain=None):
    """A ball of GM, WM and CSF; the unwanted factor brightens CSF, half as much GM, WM not."""
    generator = np.random.default_rng(1)
    axes = [np.arange(n) - (n - 1) / 2 for n in SHAPE]
    ball = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing='ij'))) < 13
    label = generator.integers(0, 3, [n // 4 for n in SHAPE]).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    tissues = np.stack([(label == i) & ball for i in range(3)]).astype(np.uint8) * 255
    # The texture is anatomy, the same in all scans; the noise is each scan's own.
    texture = generator.normal(0, 0.03, SHAPE)
    noise = np.random.default_rng(seed + 100).normal(0, 0.005, SHAPE)
    level = np.choose(label, (0.65 + 0.5 * factor, 1.0, 0.3 + factor))
    data = np.where(ball, np.maximum(level + texture + noise, 0.01), 0).astype(np.float32)
    brain = ball if brain is None else brain
    return Scan(
        name=name or f'sub-{seed:02}_{contrast}',
        contrast=contrast,
        working=Volume(data, np.eye(4)),
        native=Volume(data[:, :, ::2], np.diag([1.0, 1.0, 2.0, 1.0])),
        native_to_working=np.eye(4),
        brain=brain,
        tissues=tissues,
        profile=measure_profile(data, ball, tissues),
    )


@pytest.fixture(scope='module')
def group():
    return [make_scan(factor, seed) for seed, factor in enumerate(GROUP)]


@pytest.fixture(scope='module')
def fitted(group):
    method = Ravel()
    method.fit(group)
    return method


def spread(volumes, mask):
    """Standard deviation between scans, averaged over voxels."""
    return np.std([v.data[mask] for v in volumes], axis=0).mean()


def test_the_factor_is_found_and_removed(group, fitted):
    found = fitted.group.factors[:, 0]
    target = fitted.group.style
    results = fitted.harmonize(group, target)
    plain = WhiteStripe().harmonize(group, target)
    # White Stripe is not exact on so few voxels: what it leaves belongs to the factor too.
    fluid = [p.working.data[group[0].tissues[2] > 0].mean() for p in plain]
    assert abs(np.corrcoef(found, fluid)[0, 1]) > 0.99
    assert abs(np.corrcoef(found, GROUP)[0, 1]) > 0.9
    for tissue, left in ((0, 0.35), (2, 0.2)):
        mask = group[0].tissues[tissue] > 0
        after = spread([r.working for r in results], mask)
        assert after < left * spread([r.working for r in plain], mask)
    for result in results:
        assert result.settings['method'] == 'ravel'
        assert result.settings['scans'] == len(GROUP)


def test_it_is_least_squares_in_every_voxel(group, fitted):
    """Residuals of each voxel on the factor, its mean kept, by NumPy's own solver."""
    target = fitted.group.style
    plain = WhiteStripe().harmonize(group, target)
    results = fitted.harmonize(group, target)
    voxels = group[0].brain & np.all([p.working.data > 0.1 for p in plain], axis=0)
    values = np.stack([p.working.data[voxels] for p in plain]).astype(float)
    design = np.column_stack([np.ones(len(GROUP)), fitted.group.factors])
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    wanted = np.maximum(values - fitted.group.factors @ coefficients[1:], 0)
    reached = np.stack([r.working.data[voxels] for r in results])
    np.testing.assert_allclose(reached, wanted, atol=1e-4)
    np.testing.assert_allclose(reached.mean(axis=0), values.mean(axis=0), atol=1e-4)


def test_scans_of_the_group_have_the_singular_vectors(group, fitted):
    found = [fitted.factors_of(scan) for scan in group]
    np.testing.assert_allclose(found, fitted.group.factors, atol=1e-4)


def test_a_new_scan_is_projected(group, fitted):
    new = make_scan(0.04, seed=77)
    target = fitted.group.style
    (result,) = fitted.harmonize([new], target)
    (plain,) = WhiteStripe().harmonize([new], target)
    middle = np.mean([r.working.data for r in fitted.harmonize(group, target)], axis=0)
    fluid = new.tissues[2] > 0
    before, after = (
        np.abs((v.data - middle)[fluid].mean()) for v in (plain.working, result.working)
    )
    assert after < 0.2 * before


def test_the_target_gives_the_unit(group, fitted):
    """A target whose stripe is elsewhere moves all scans by the linear map of White Stripe."""
    own = fitted.group.style
    profile = replace(
        own.profile,
        brain=tuple(0.1 + 0.9 * q for q in own.profile.brain),
        medians=tuple(0.1 + 0.9 * m for m in own.profile.medians),
    )
    (first,) = fitted.harmonize(group[:1], own)
    (second,) = fitted.harmonize(group[:1], Style('x', 'T1w', profile))
    # CSF lies partly below the first percentile, where White Stripe is not linear.
    inside = group[0].tissues[:2].any(axis=0)
    wanted = 0.1 + 0.9 * first.working.data[inside]
    np.testing.assert_allclose(second.working.data[inside], wanted, atol=2e-3)


def test_the_native_grid_shows_the_same(group, fitted):
    (result,) = fitted.harmonize(group[:1], fitted.group.style)
    # Every second plane lies on a plane of the working grid; half-way smoothing is that of resample.
    inside = group[0].brain[:, :, ::2]
    difference = (result.native.data - result.working.data[:, :, ::2])[inside]
    assert np.abs(difference).mean() < 0.03
    assert result.native.shape == group[0].native.shape


def test_air_stays_air_and_nothing_is_negative(group, fitted):
    for scan, result in zip(group, fitted.harmonize(group, fitted.group.style), strict=True):
        for before, after in ((scan.working, result.working), (scan.native, result.native)):
            assert np.all(after.data[before.data == 0] == 0)
            assert after.data.min() >= 0
            assert after.data.dtype == np.float32


def test_a_voxel_that_few_scans_share_is_left_to_white_stripe(group):
    cropped = group[0].brain.copy()
    cropped[SHAPE[0] // 2 :] = False
    scans = group[:2] + [replace(scan, brain=cropped) for scan in group[2:]]
    method = Ravel()
    method.fit(scans)
    coefficients = method.group.coefficients[0]
    assert np.all(coefficients[SHAPE[0] // 2 :] == 0)
    assert np.abs(coefficients[: SHAPE[0] // 2][cropped[: SHAPE[0] // 2]]).mean() > 0.05
    (result,) = method.harmonize(scans[:1], method.group.style)
    (plain,) = WhiteStripe().harmonize(scans[:1], method.group.style)
    half = slice(SHAPE[0] // 2, None)
    np.testing.assert_array_equal(result.working.data[half], plain.working.data[half])


def test_two_factors_remove_more(group):
    one, two = Ravel(), Ravel(factors=2)
    for method in (one, two):
        method.fit(group)
    fluid = group[0].tissues[2] > 0
    left = [
        spread([r.working for r in m.harmonize(group, m.group.style)], fluid) for m in (one, two)
    ]
    assert left[1] < left[0]


def test_it_has_to_be_fitted(group):
    with pytest.raises(OptionError, match='fitted on a group of scans first'):
        Ravel().harmonize(group[:1], Style('x', 'T1w', group[0].profile))


def test_another_contrast_is_refused(group, fitted):
    with pytest.raises(OptionError, match='fitted on T1w, not on T2w'):
        fitted.harmonize(group[:1], Style('x', 'T2w', group[0].profile))


def test_a_scan_that_shows_no_control_voxel_is_told(group, fitted):
    bare = group[0].working.data.copy()
    bare[fitted.group.controls] = 0
    blind = replace(group[0], working=Volume(bare, np.eye(4)))
    with pytest.raises(ScanError, match='shows 0 of the control voxels'):
        fitted.factors_of(blind)


def test_what_is_no_group_is_told(group):
    other = replace(group[1], contrast='T2w')
    with pytest.raises(ValueError, match='a group has one contrast'):
        Ravel().fit([*group, other])
    with pytest.raises(ValueError, match='need a group of 3 scans'):
        Ravel().fit(group[:2])
    with pytest.raises(ValueError, match='does not vary enough'):
        Ravel().fit([group[0]] * 4)
    lost = replace(group[0], tissues=np.zeros_like(group[0].tissues))
    with pytest.raises(ValueError, match='only 0 voxels are CSF'):
        Ravel().fit([*group, lost])


@pytest.mark.parametrize('options', ({'factors': 0}, {'width': 0.5}))
def test_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError):
        Ravel(**options)


def test_doubtful_scans_are_left_out_where_enough_remain(group, fitted, caplog):
    # Laid elsewhere: under its CSF map lies other tissue.
    lost = replace(make_scan(0.0, 50, 'lost'), doubtful=True)
    shifted = Volume(np.roll(lost.working.data, 6, axis=0), np.eye(4))
    lost = replace(lost, working=shifted)
    method = Ravel()
    with caplog.at_level(logging.WARNING, 'harmony_app'):
        method.fit([*group, lost])
    assert caplog.messages == ['ravel: the registration of lost is doubtful: it is left out']
    np.testing.assert_array_equal(method.group.factors, fitted.group.factors)
    np.testing.assert_array_equal(method.group.coefficients, fitted.group.coefficients)


def test_doubtful_scans_stay_where_too_few_are_sure(group, caplog):
    few = [group[0], group[3], replace(group[7], doubtful=True)]
    method = Ravel()
    with caplog.at_level(logging.WARNING, 'harmony_app'):
        method.fit(few)
    assert len(method.group.factors) == 3
    assert 'it is kept, 3 scans are needed' in caplog.text


def test_a_model_folder_gives_the_same_method_again(group, tmp_path):
    method = Ravel(factors=2, width=0.06)
    method.fit(group)
    method.save(tmp_path / 'model')
    again = Ravel.load(tmp_path / 'model')
    assert (again.factors, again.stripe.width) == (2, 0.06)
    assert again.group.style == method.group.style
    np.testing.assert_array_equal(again.group.controls, method.group.controls)
    np.testing.assert_allclose(again.group.factors, method.group.factors, atol=1e-6)
    new = make_scan(0.04, seed=77)
    (wanted,), (found,) = (m.harmonize([new], method.group.style) for m in (method, again))
    np.testing.assert_array_equal(found.working.data, wanted.working.data)
    np.testing.assert_array_equal(found.native.data, wanted.native.data)
    assert found.settings == wanted.settings
    metadata = json.loads((tmp_path / 'model' / 'model.json').read_text())
    assert metadata['contrasts'] == ['T1w']
    assert metadata['scans'] == len(GROUP)


def test_what_is_no_fitted_model_is_told(fitted, tmp_path):
    with pytest.raises(OptionError, match='fitted on a group'):
        Ravel().save(tmp_path / 'none')
    assert not (tmp_path / 'none').exists()
    assert Ravel.load(None).group is None
    fitted.save(tmp_path)
    path = tmp_path / 'model.json'
    whole = json.loads(path.read_text())
    for change, words in (
        ({'method': 'nyul'}, 'not of ravel'),
        ({'style': {}}, 'does not describe'),
        ({'settings': {'colours': 1}}, 'does not describe'),
        ({'settings': {'factors': 2}}, 'do not fit each other'),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(ModelError, match=words):
            Ravel.load(tmp_path)
