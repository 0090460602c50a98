"""The transfer method: a grid that neither invents nor erases, and ends near the target's tissues."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.errors import ModelError, OptionError
from harmony_app.imaging.curves import (
    IDENTITY,
    apply_curve,
    calibration_curve,
    compose_curves,
)
from harmony_app.imaging.denoise import white_matter_noise
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.profile import TissueProfile, measure_profile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.registry import packaged_model
from harmony_app.methods.transfer import (
    LEVELS_CLOSED,
    MEDIANS_CLOSED,
    BilateralGrid,
    Guides,
    Transfer,
    personal_target,
)
from harmony_app.methods.transfer_features import CONDITION, condition_vector
from harmony_app.nets.bilateral import (
    CELLS,
    KNOTS,
    TransferConfig,
    TransferNetwork,
    sample_grid,
    sample_planes,
    slice_grid,
)


def _network(seed: int | None = None) -> TransferNetwork:
    torch.manual_seed(0)
    network = TransferNetwork(TransferConfig(condition=CONDITION, width=8))
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.05 * noise)
    return network


@pytest.fixture(scope='module')
def scan() -> Scan:
    """Nested ellipsoids of WM, GM and CSF on the working grid, with noise."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in WORKING_SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum((a / 0.75) ** 2 for a in axes))
    tissues = np.stack(
        [(radius > 0.6) & (radius <= 0.85), radius <= 0.6, (radius > 0.85) & (radius < 1)]
    )
    data = np.tensordot([0.6, 1.0, 0.2], tissues, axes=1) + 0.5 * ((radius >= 1) & (radius < 1.1))
    data = (data * (1 + 0.03 * rng.standard_normal(WORKING_SHAPE))).astype(np.float32)
    maps = (255 * tissues).astype(np.uint8)
    volume = Volume(data, WORKING_AFFINE)
    brain = radius < 1
    return Scan(
        name='T1w', contrast='T1w', working=volume, native=volume, native_to_working=np.eye(4),
        brain=brain, tissues=maps, profile=measure_profile(data, brain, maps),
    )  # fmt: skip


def _profile(gm: float, wm: float, csf: float) -> TissueProfile:
    return TissueProfile((gm, wm, csf), (0.05,) * 3, tuple(np.linspace(csf, wm, 100)), ())


def test_untrained_grid_is_the_identity():
    grid = BilateralGrid(torch.zeros(32, 24, 28, 24), 0.9)
    data = np.random.default_rng(0).uniform(0, 6, (20, 30, 25)).astype(np.float32)
    volume = Volume(data, np.diag([2.0, 2, 2, 1]))
    np.testing.assert_allclose(grid.apply(volume).data, data, atol=1e-6)


def test_zero_stays_zero():
    coefficients = torch.randn(32, 24, 28, 24, generator=torch.Generator().manual_seed(1))
    volume = Volume(np.zeros((8, 8, 8), np.float32), np.eye(4))
    assert not BilateralGrid(coefficients, 0.9).apply(volume).data.any()


def test_grid_cells_lie_at_their_centres():
    grid = torch.zeros(1, 24, 28, 24)
    grid[0, 5, 6, 7] = 1
    centre = torch.tensor([[8 * 5 + 3.5, 8 * 6 + 3.5, 8 * 7 + 3.5]])
    assert sample_grid(grid, centre).item() == pytest.approx(1)
    assert sample_grid(grid, centre + torch.tensor([[4.0, 0, 0]])).item() == pytest.approx(0.5)


def every_voxel(grid, matrix, box):
    """The grid at the voxels of a box, each sampled by itself."""
    axes = [np.arange(part.start, part.stop) for part in box]
    points = np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)
    points = torch.from_numpy(points @ matrix[:3, :3].T + matrix[:3, 3]).float()
    return sample_grid(grid, points).T.reshape(-1, *map(len, axes))


@pytest.fixture(scope='module')
def bumpy():
    return torch.randn(3, 6, 7, 6, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize('scale', [(1, 1, 1), (0.8, 1.2, 5), (-1, 1, 1)])
def test_planes_along_the_axes_are_sampled_exactly(bumpy, scale):
    matrix = np.diag([*scale, 1.0])
    matrix[:3, 3] = [40 if scale[0] < 0 else -3, 1.3, -2]  # part of it lies beyond the grid
    box = slice(2, 45), slice(0, 40), slice(3, 9)
    planes = torch.stack(list(sample_planes(bumpy, matrix, box)), 1)
    torch.testing.assert_close(planes, every_voxel(bumpy, matrix, box), rtol=1e-4, atol=1e-4)


def test_planes_of_an_oblique_volume_cut_the_kinks_only(bumpy):
    matrix = np.eye(4)
    turn = np.radians(20)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    box = slice(5, 40), slice(5, 40), slice(5, 40)
    planes = torch.stack(list(sample_planes(bumpy, matrix, box)), 1)
    error = (planes - every_voxel(bumpy, matrix, box)).abs()
    # A kink at a cell centre bends a line by the second difference over a cell; between knots that
    # are K apart it is missed by a quarter of K times that at most, and along each axis.
    bends = [torch.diff(bumpy, 2, dim=axis).abs().max() / 8 for axis in (1, 2, 3)]
    assert error.max() < KNOTS / 4 * sum(bends)
    assert error.mean() < 0.05 * bumpy.std()
    # and a field that is linear has none
    slope = torch.linspace(0, 1, 6)[None, :, None, None].expand(1, 6, 7, 6)
    inner = slice(24, 34), slice(12, 20), slice(12, 30)
    planes = torch.stack(list(sample_planes(slope, matrix, inner)), 1)
    torch.testing.assert_close(planes, every_voxel(slope, matrix, inner), atol=1e-5, rtol=1e-5)


def test_one_voxel_is_a_box_too(bumpy):
    box = slice(7, 8), slice(9, 10), slice(3, 4)
    (plane,) = sample_planes(bumpy, np.eye(4), box)
    torch.testing.assert_close(plane[:, None], every_voxel(bumpy, np.eye(4), box))


def test_slicing_interpolates_between_bins():
    # the offset of the last bin alone is 1: halfway to it the offset is a half
    coefficients = torch.zeros(1, 32)
    coefficients[0, 31] = 1
    squeezed = 0.9 * 14.5 / 15
    intensity = torch.tensor([squeezed / (1 - squeezed)])
    result = slice_grid(coefficients, intensity, intensity, 0.9)
    assert result.item() == pytest.approx(intensity.item() + 0.5, abs=1e-4)


def test_a_learned_guide_begins_with_even_bins_and_moves_them():
    network = TransferNetwork(TransferConfig(condition=CONDITION, width=8, bins=4, guide=True))
    torch.testing.assert_close(network.guide(), torch.linspace(0, 1, 4))
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(50, 8, generator=generator)
    intensity = 5 * torch.rand(50, generator=generator)
    even = slice_grid(coefficients, intensity, intensity, 0.9)
    same = slice_grid(coefficients, intensity, intensity, 0.9, network.guide())
    torch.testing.assert_close(same, even, rtol=1e-4, atol=1e-5)
    # the offset of the second of three bins alone is 1, and that bin lies at a fifth of 0.9
    coefficients = torch.zeros(1, 6)
    coefficients[0, 4] = 1
    intensity = torch.tensor([0.18 / (1 - 0.18)])
    result = slice_grid(coefficients, intensity, intensity, 0.9, torch.tensor([0, 0.2, 1]))
    assert result.item() == pytest.approx(intensity.item() + 1, abs=1e-4)


@pytest.mark.parametrize('cell', CELLS)
def test_cells_of_any_edge_span_the_working_grid(cell):
    network = TransferNetwork(TransferConfig(condition=CONDITION, width=8, cell=cell))
    features = torch.zeros(1, 6, 16, 24, 16)
    grid = network(features, torch.zeros(1, CONDITION))[0]
    assert grid.shape == (32, 64 // cell, 96 // cell, 64 // cell)
    grid = torch.zeros_like(grid)
    grid[0, 1, 1, 1] = 1
    centre = torch.full((1, 3), 1.5 * cell - 0.5)
    assert sample_grid(grid, centre, cell)[0, 0].item() == pytest.approx(1)


def test_a_cell_that_no_stride_gives_is_refused():
    with pytest.raises(ValueError, match='cell of 5'):
        TransferConfig(cell=5)


def test_a_network_of_other_settings_is_applied_as_it_was_trained(scan, tmp_path):
    config = TransferConfig(condition=CONDITION, width=8, cell=16, guide=True, base=False)
    torch.manual_seed(0)
    Transfer(TransferNetwork(config), {}).save(tmp_path)
    method = Transfer.load(tmp_path)
    assert method.network.config == config
    style = Style('x', 'T1w', _profile(0.8, 1.0, 0.35))
    grid, _ = method.predict(scan, style)
    assert grid.coefficients.shape[1:] == tuple(n // 16 for n in WORKING_SHAPE)
    np.testing.assert_allclose(grid.map(scan.working), scan.working.data, atol=1e-5)


def test_native_and_working_grid_agree(scan):
    network = _network(seed=3)
    rigid = np.eye(4)
    rigid[:3, 3] = (4, -6, 2)
    # the same voxels, told to lie elsewhere and brought back by the transform
    native = Volume(scan.native.data, np.linalg.inv(rigid) @ WORKING_AFFINE)
    moved = Scan(**{**scan.__dict__, 'native': native, 'native_to_working': rigid})
    style = Style('x', 'T1w', _profile(0.75, 1.0, 0.3))
    (result,) = Transfer(network, {}).harmonize([moved], style)
    np.testing.assert_allclose(result.native.data, result.working.data, atol=2e-3)
    assert np.array_equal(result.native.affine, native.affine)


def test_tissue_levels_come_near_the_target(scan):
    """A wrong network is brought back: each level lies within what may be left of its way."""
    style = Style('x', 'T1w', _profile(0.8, 1.0, 0.35))
    (result,) = Transfer(_network(seed=4), {}).harmonize([scan], style)
    reached = measure_profile(result.working.data, scan.brain, scan.tissues)
    left = np.abs(np.subtract(reached.levels, style.profile.levels))
    way = np.abs(np.subtract(scan.profile.levels, style.profile.levels))
    assert (left <= (1 - LEVELS_CLOSED) * way + 0.01).all()


def test_medians_of_a_single_target_scan_are_met_too(scan):
    """Levels and plain medians of one scan may differ; the medians come near, too."""
    profile = TissueProfile(
        (0.75, 1.0, 0.4), (0.05,) * 3, tuple(np.linspace(0.3, 1, 100)), (), (0.85, 1.0, 0.3)
    )
    method = Transfer(_network(seed=4), {})
    distances = {}
    for scans in (1, 5):
        style = Style('x', 'T1w', profile, scans=scans)
        data = method.harmonize([scan], style)[0].working.data
        reached = measure_profile(data, scan.brain, scan.tissues)
        distances[scans] = reached.distance(profile)
    allowed = (1 - MEDIANS_CLOSED) * scan.profile.distance(profile)
    assert distances[1] <= allowed + 0.01
    assert distances[1] < distances[5]


def test_what_people_differ_in_goes_with_them(scan):
    """Grey matter that is 5 % above its site's average ends 5 % above the target's."""
    own = scan.profile.levels
    here = replace(scan.profile, levels=(own[0] / 1.05, own[1], own[2]))
    style = Style('x', 'T1w', _profile(0.75, 1.0, 0.3), scans=4)
    method = Transfer(_network(), {})
    reached = {}
    for average in (None, here):
        (result,) = method.harmonize([replace(scan, site_average=average)], style)
        data = result.working.data
        reached[average] = measure_profile(data, scan.brain, scan.tissues).levels[0]
        assert result.settings['TransferStart'] == ('site average' if average else 'scan')
    assert reached[here] / reached[None] == pytest.approx(1.05, abs=0.015)
    # a target that is one person tells nothing of its site
    single = personal_target(replace(scan, site_average=here), replace(style, scans=1))
    assert single.profile is style.profile


def test_a_scan_at_its_own_site_stays_itself(scan, packaged):
    average = replace(scan.profile, levels=tuple(np.multiply(scan.profile.levels, (1.1, 1, 0.9))))
    style = Style('here', 'T1w', average, scans=9)
    (result,) = packaged.harmonize([replace(scan, site_average=average)], style)
    change = np.abs(result.working.data - scan.working.data)[scan.brain]
    assert np.median(change) < 0.02


def test_a_planted_thin_structure_is_kept(scan):
    data = scan.working.data.copy()
    data[90:92, 60:160, 96] = 0.6  # a line of grey in the white matter
    marked = Scan(**{**scan.__dict__, 'working': scan.working.with_data(data)})
    style = Style('x', 'T1w', _profile(0.8, 1.0, 0.35))
    method = Transfer(_network(seed=4), {})
    after = method.harmonize([marked], style)[0].working.data
    around = np.median(after[86:96, 60:160, 90:102])
    assert np.median(after[90:92, 60:160, 96]) < 0.9 * around


@pytest.mark.parametrize(
    ('choice', 'wanted', 'share'),
    [
        ('match', 0.015, 0.5),
        ('match', 0.2, 1),
        ('match', None, 1),
        ('keep', 0.01, 1),
        ('remove', 1, 0),
    ],
)
def test_noise_becomes_what_was_asked_for(scan, choice, wanted, share):
    """Noise of 3 % of white matter, of which the target has half, more, or nobody knows."""
    style = Style('x', 'T1w', scan.profile, noise=wanted)
    (result,) = Transfer(_network(), {}, noise=choice).harmonize([scan], style)
    before = white_matter_noise(scan.working, scan.tissues)
    assert before == pytest.approx(0.03, rel=0.08)
    assert result.settings['TransferNoiseKept'] == pytest.approx(share, abs=0.03)
    for volume in (result.working, result.native):
        after = white_matter_noise(volume, scan.tissues)
        assert after <= max(share, 0.25) * before * 1.1
        assert after >= share * before * 0.9


def test_an_unknown_choice_of_noise_is_refused():
    with pytest.raises(OptionError, match='--noise loud'):
        Transfer(_network(), {}, noise='loud')


def test_noise_of_a_style_is_that_of_its_scans(scan):
    style = Transfer(_network(), {}).encode_target([scan], 'x')
    assert style.noise == pytest.approx(0.03, rel=0.08)
    assert Style.from_dict(style.to_dict()) == style


@pytest.fixture(scope='module')
def packaged() -> Transfer:
    return Transfer.load(packaged_model('transfer'))


def test_identity_stays_identity(scan, packaged):
    """The packaged network, asked for the scan's own style, leaves the brain as it is."""
    style = packaged.encode_target([scan], 'own')
    (result,) = packaged.harmonize([scan], style)
    inside = scan.brain
    change = np.abs(result.working.data - scan.working.data)[inside]
    assert np.percentile(change, 95) < 0.03


@pytest.mark.parametrize('power', [0.7, 1.4])
def test_a_monotone_remapping_is_undone(scan, packaged, power):
    remapped = scan.working.data**power
    source = Scan.of_working(
        'T1w', 'T1w', Volume(remapped, WORKING_AFFINE), scan.brain, scan.tissues
    )
    style = packaged.encode_target([scan], 'own')
    result = packaged.harmonize([source], style)[0].working.data
    error = [np.abs(x - scan.working.data)[scan.brain].mean() for x in (remapped, result)]
    assert error[1] < 0.35 * error[0]


def test_an_unseen_style_gives_a_sane_image(scan, packaged):
    style = Style('odd', 'T1w', _profile(1.9, 1.0, 3.5))
    result = packaged.harmonize([scan], style)[0].working.data
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() < 8
    assert (result[scan.working.data == 0] == 0).all()


def test_a_planted_lesion_stays_and_none_comes(scan, packaged):
    """A ball in white matter, darker than grey matter, and what there is without it."""
    grid = np.meshgrid(*map(np.arange, WORKING_SHAPE), indexing='ij', sparse=True)
    ball = sum((g - c) ** 2 for g, c in zip(grid, (96, 100, 80), strict=True)) <= 16
    marked = scan.working.data.copy()
    marked[ball] *= 0.5
    style = Style('x', 'T1w', _profile(0.75, 1.0, 0.3))
    found = {}
    for name, data in (('with', marked), ('without', scan.working.data)):
        source = replace(scan, working=scan.working.with_data(data))
        after = packaged.harmonize([source], style)[0].working.data
        found[name] = float(np.median(after[ball]))
    assert found['with'] < 0.75
    assert found['without'] == pytest.approx(1, abs=0.05)


def test_the_next_target_finds_what_is_the_same_for_all(scan, monkeypatch):
    first, second = (Style(str(n), 'T1w', _profile(n, 1.0, 0.25)) for n in (0.5, 0.7))
    (alone,) = Transfer(_network(1), {}).harmonize([scan], second)
    made = []

    class Counted(Guides):
        def __init__(self, *arguments):
            made.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr('harmony_app.methods.transfer.Guides', Counted)
    method = Transfer(_network(1), {})
    method.harmonize([scan], first)
    (after,) = method.harmonize([scan], second)
    assert len(made) == 1
    np.testing.assert_array_equal(after.native.data, alone.native.data)
    np.testing.assert_array_equal(after.working.data, alone.working.data)
    other = replace(scan, name='other')
    method.harmonize([other], first)
    # nothing of another session is kept
    assert [guides.scan for guides in method._guides] == [other]


def test_other_contrasts_are_left_out(scan):
    style = Style('x', 'T2w', _profile(1.5, 1.0, 3.0))
    assert Transfer(_network(), {}).harmonize([scan], style) == []


def test_save_and_load_give_the_same_voxels(scan, tmp_path):
    method = Transfer(_network(seed=5), {'version': '1'})
    method.save(tmp_path / 'model')
    loaded = Transfer.load(tmp_path / 'model')
    loaded.save(tmp_path / 'again')
    again = Transfer.load(tmp_path / 'again')
    style = Style('x', 'T1w', _profile(0.8, 1.0, 0.35))
    first, second = (m.harmonize([scan], style)[0].working.data for m in (loaded, again))
    assert np.array_equal(first, second)


def test_a_model_of_another_condition_is_refused(tmp_path):
    Transfer(TransferNetwork(TransferConfig(condition=CONDITION - 1)), {}).save(tmp_path)
    with pytest.raises(ModelError, match='train it again'):
        Transfer.load(tmp_path)


levels = st.tuples(*[st.floats(0.05, 5.0)] * 3)


@given(levels, levels)
def test_calibration_is_monotone(here, there):
    curve = np.array(calibration_curve(_profile(*here), _profile(*there)))
    assert (curve[0] == 0).all()
    assert (np.diff(curve, axis=0) > 0).all()


@given(st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.floats(0.6, 0.9), st.floats(0.6, 0.9))
def test_calibration_meets_separable_levels(csf, wanted_csf, gm, wanted_gm):
    curve = calibration_curve(_profile(gm, 1.0, csf), _profile(wanted_gm, 1.0, wanted_csf))
    reached = apply_curve(np.array([gm, 1.0]), curve)
    np.testing.assert_allclose(reached, [wanted_gm, 1.0], atol=1e-5)


@given(levels, levels, levels)
def test_composition_of_curves(a, b, c):
    first = calibration_curve(_profile(*a), _profile(*b))
    second = calibration_curve(_profile(*b), _profile(*c))
    x = np.linspace(0, 8, 200)
    both = apply_curve(x, compose_curves(first, second))
    np.testing.assert_allclose(
        both, apply_curve(apply_curve(x, first), second), rtol=2e-3, atol=2e-3
    )


@given(st.lists(st.tuples(levels, levels), min_size=2, max_size=6))
def test_many_compositions_stay_finite_and_monotone(pairs):
    """Each round of the calibration adds a curve, also one that changes next to nothing."""
    curve = IDENTITY
    for here, there in pairs:
        for wanted in (there, tuple(v + 1e-6 for v in here)):
            step = calibration_curve(_profile(*here), _profile(*wanted))
            curve = compose_curves(curve, step)
    knots = np.array(curve)
    assert np.isfinite(knots).all()
    assert (np.diff(knots, axis=0) > 0).all()
    assert np.isfinite(apply_curve(np.linspace(0, 50, 500), curve)).all()


def test_condition_tells_contrasts_and_heads_apart():
    bare, head = (
        _profile(0.6, 1, 0.2),
        TissueProfile((0.6, 1, 0.2), (0.1,) * 3, (0.5,) * 100, (0.4,) * 100),
    )
    vectors = [condition_vector(bare, head, c) for c in ('T1w', 'T2w', 'PDw', 'FLAIR')]
    assert all(len(v) == CONDITION for v in vectors)
    assert len({tuple(v.tolist()) for v in vectors}) == 4


def test_a_doubtful_scan_is_no_part_of_a_style_where_another_is_sure(scan, caplog):
    method = Transfer(_network(), {})
    wrong = replace(scan, name='wrong', profile=_profile(0.2, 1.0, 0.9), doubtful=True)
    style = method.encode_target([scan, wrong], 'site')
    assert style.profile == method.encode_target([scan], 'site').profile
    assert style.scans == 1
    assert 'wrong' in caplog.text
    assert method.encode_target([wrong], 'site').profile == wrong.profile
