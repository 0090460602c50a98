import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from harmony_app.phantom.acquisition import (
    acquire,
    bias_field,
    point_spread,
    receive_field,
    render,
    rician_noise,
    sample,
)
from harmony_app.phantom.geometry import AXES, Grid, head_position, prescribe
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.sites import RECEIVE_FIELDS, load_sites
from harmony_app.phantom.tissues import TISSUES, tissue_properties

SITES = load_sites()
STRAIGHT = np.eye(4)


def coarse(protocol, **changes):
    return replace(protocol, zooms=tuple(max(3.0, z) for z in protocol.zooms), **changes)


def at_site(name, contrast='T1w', **changes):
    protocol = coarse(SITES[name].protocols[contrast], **changes)
    return protocol, signal(protocol, tissue_properties(protocol.field))


# --- noise


@pytest.mark.parametrize('snr', [5.0, 12.0, 30.0, 80.0])
def test_snr_is_as_asked_within_five_percent(snr, generator):
    image = torch.full((1, 60, 60, 60), 0.4)
    noisy = rician_noise(image, snr, 0.4, generator)
    assert float(noisy.mean() / noisy.std()) == pytest.approx(snr, rel=0.05)


def test_air_is_rayleigh(generator):
    noisy = rician_noise(torch.zeros((1, 80, 80, 40)), 20.0, 1.0, generator)
    sigma = 1 / 20
    assert float(noisy.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)
    assert float(noisy.std()) == pytest.approx(sigma * math.sqrt(2 - math.pi / 2), rel=0.01)
    assert float(noisy.min()) >= 0


def test_noise_of_a_batch_has_its_own_level_each(generator):
    image = torch.ones((2, 50, 50, 20))
    noisy = rician_noise(image, torch.tensor([10.0, 40.0]), torch.tensor([1.0, 1.0]), generator)
    assert float(1 / noisy[0].std()) == pytest.approx(10, rel=0.05)
    assert float(1 / noisy[1].std()) == pytest.approx(40, rel=0.05)


@pytest.mark.parametrize('name', ['siteA', 'siteC', 'mispel-siemensp'])
@pytest.mark.parametrize('contrast', ['T1w', 'T2w', 'FLAIR'])
def test_snr_of_a_scan_is_that_of_its_protocol(head, generator, name, contrast):
    protocol, signals = at_site(name, contrast, bias=0.0)
    scan, _, truth = acquire(head, signals, protocol, generator)
    white = (truth - signals[TISSUES.index('wm')]).abs() < 1e-4
    assert int(white.sum()) > 500
    measured = float(truth[white].mean() / (scan - truth)[white].std())
    assert measured == pytest.approx(protocol.snr, rel=0.05)


# --- receive field


@pytest.mark.parametrize('kind', RECEIVE_FIELDS)
@pytest.mark.parametrize('strength', [0.0, 0.2, 0.5])
def test_receive_field_has_mean_one_and_the_strength_asked_for(kind, strength, generator):
    affine = np.diag([4.0, 4.0, 4.0, 1])
    inside = torch.zeros((50, 60, 50), dtype=torch.bool)
    inside[8:42, 8:52, 8:42] = True
    field = bias_field((50, 60, 50), affine, kind, strength, generator, inside, batch=3)
    assert field.shape == (3, 50, 60, 50)
    values = field[:, inside]
    torch.testing.assert_close(values.mean(1), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        (values - 1).abs().amax(1), torch.full((3,), strength), atol=1e-3, rtol=0
    )


def test_receive_field_is_smooth(generator):
    field = bias_field((64, 64, 64), np.diag([3.0, 3, 3, 1]), 'array', 0.4, generator)[0]
    steps = max(float(field.diff(dim=axis).abs().max()) for axis in range(3))
    assert steps < 0.4 / 64 * 8


def test_receive_field_of_a_slice_and_of_another_seed():
    affine = np.eye(4)
    one, same, other = (
        bias_field((160, 192, 1), affine, 'birdcage', 0.3, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert one.shape == (1, 160, 192, 1)
    assert torch.equal(one, same)
    assert float((one - other).abs().max()) > 0.02


def test_coils_look_like_coils():
    line = torch.linspace(-0.9, 0.9, 19)
    x = torch.stack([line, torch.zeros(19), torch.zeros(19)])
    z = torch.stack([torch.zeros(19), torch.zeros(19), 1.6 * line])
    middle = 9
    assert receive_field(x, 'dielectric')[middle] > receive_field(x, 'dielectric')[0]
    assert receive_field(x, 'array')[middle] < receive_field(x, 'array')[0]
    assert receive_field(z, 'birdcage')[middle] > 1.2 * receive_field(z, 'birdcage')[0]
    with pytest.raises(ValueError, match='unknown receive field'):
        receive_field(x, 'flat')


# --- geometry


@pytest.mark.parametrize(
    'plane, codes', [('axial', 'LAS'), ('sagittal', 'PSR'), ('coronal', 'LSA')]
)
def test_planes_are_stored_as_converters_do(head, plane, codes):
    protocol = replace(SITES['siteD'].protocols['T1w'], plane=plane, zooms=(3, 3, 4))
    grid = prescribe(head, protocol, STRAIGHT)
    assert ''.join(nib.aff2axcodes(grid.affine)) == codes
    assert grid.zooms == pytest.approx((3, 3, 4))
    assert plane in AXES


@pytest.mark.parametrize('contrast', ['T1w', 'T2w'])
@pytest.mark.parametrize('name', ['siteA', 'siteC', 'siteJ', 'ge-signa'])
def test_the_whole_brain_is_in_the_field_of_view(head, generator, name, contrast):
    protocol = coarse(SITES[name].protocols[contrast])
    position = head_position(generator, rotation=8, translation=10)
    grid = prescribe(head, protocol, position, generator)
    brain = (head['wm'] + head['gm'] > 0.5).nonzero().numpy()
    points = nib.affines.apply_affine(np.linalg.inv(grid.affine) @ position @ head.affine, brain)
    assert points.min() > 0
    assert bool((points < np.array(grid.shape) - 1).all())


def test_a_point_lies_where_the_affine_says(generator):
    image = torch.zeros((1, 40, 50, 45))
    image[0, 12, 30, 20] = 1
    affine = np.array([[2.0, 0, 0, -30], [0, 2, 0, -40], [0, 0, 2, -50], [0, 0, 0, 1]])
    position = head_position(generator, rotation=15, translation=10)
    turned = np.array([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    grid = Grid((80, 84, 88), turned @ np.diag([1.4, 1.4, 1.4, 1]))
    centre = (position @ affine @ (12, 30, 20, 1))[:3]
    grid.affine[:3, 3] = centre - grid.affine[:3, :3] @ (41.3, 40.2, 44.9)
    seen = sample(image, affine, grid, position)[0].double()
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid.shape), indexing='ij'))
    mass = (index * seen).sum(dim=(1, 2, 3)) / seen.sum()
    np.testing.assert_allclose(mass.numpy(), (41.3, 40.2, 44.9), atol=0.1)


def test_sampling_on_the_same_grid_changes_nothing(head):
    grid = Grid(tuple(head.fractions.shape[1:]), head.affine)
    same = sample(head.fractions, head.affine, grid, STRAIGHT)
    torch.testing.assert_close(same, head.fractions, atol=1e-4, rtol=0)


@pytest.mark.parametrize('slice_profile', [False, True])
def test_thick_slices_keep_the_amount_of_tissue(head, slice_profile):
    fine = Grid((70, 82, 74), np.diag([3.0, 3, 3, 1]))
    fine.affine[:3, 3] = -3 * (np.array(fine.shape) - 1) / 2
    thick = Grid((70, 82, 30), np.diag([3.0, 3, 9, 1]))
    thick.affine[:3, 3] = -np.array([3.0, 3, 9]) * (np.array(thick.shape) - 1) / 2
    a = sample(head.fractions, head.affine, fine, STRAIGHT).sum(dim=(1, 2, 3)) * 27
    b = sample(head.fractions, head.affine, thick, STRAIGHT, slice_profile).sum(dim=(1, 2, 3)) * 81
    there = a > 0
    torch.testing.assert_close(a[there], b[there], rtol=0.03, atol=0)


def test_a_slice_is_as_thick_as_it_says():
    image = torch.zeros((1, 8, 8, 200))
    image[..., 100] = 1
    response = []
    for shift in np.arange(-6, 6.01, 0.25):
        grid = Grid((4, 4, 1), np.diag([1.0, 1, 5, 1]))
        grid.affine[:3, 3] = 2, 2, 100 + shift
        response.append(float(sample(image, np.eye(4), grid, STRAIGHT, True).mean()))
    response = np.array(response)
    width = 0.25 * (response > response.max() / 2).sum()
    assert width == pytest.approx(5, abs=0.8)


def test_positions_are_rigid_and_small(generator):
    for _ in range(20):
        position = head_position(generator, 3.0, 4.0)
        np.testing.assert_allclose(position[:3, :3] @ position[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(position) == pytest.approx(1)
        assert np.abs(position[:3, 3]).max() <= 8


# --- point spread


@pytest.mark.parametrize('fwhm', [0.8, 1.2, 2.5])
def test_point_spread_has_its_width_and_keeps_the_mean(fwhm):
    image = torch.zeros((1, 41, 41))
    image[0, 20, 20] = 1
    spread = point_spread(image, [fwhm, 0.0])[0]
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    assert int((spread[:, 20] > 0).sum()) > 1
    assert float(spread[:, :20].abs().sum()) == 0
    offset = torch.arange(41) - 20
    sigma = float((spread.sum(1) * offset**2).sum().sqrt())
    assert sigma * 2.3548 == pytest.approx(fwhm, rel=0.12)


def test_no_point_spread_changes_nothing():
    image = torch.rand((2, 9, 9, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(point_spread(image, [0.0, 0.0, 0.0]), image)


# --- rendering and scans


def test_render_is_linear_in_the_signals_and_batches(head):
    signals = torch.rand((3, len(TISSUES)), generator=torch.Generator().manual_seed(0))
    together = render(head.fractions, signals)
    assert together.shape == (3, *head.fractions.shape[1:])
    for row, image in zip(signals, together, strict=True):
        expected = (head.fractions * row.view(-1, 1, 1, 1)).sum(0)
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=1e-5)
    own = render(head.fractions[None].expand(3, *head.fractions.shape), signals)
    torch.testing.assert_close(own, together, atol=1e-5, rtol=1e-5)


def test_texture_moves_white_and_grey_towards_each_other(head):
    _, signals = at_site('siteD')
    texture = torch.full(head.fractions.shape[1:], 0.1)
    plain, moved = (render(head.fractions, signals[None], t)[0] for t in (None, texture))
    wm, gm = TISSUES.index('wm'), TISSUES.index('gm')
    pure = head['wm'] > 0.999
    expected = signals[wm] + 0.1 * (signals[gm] - signals[wm])
    assert float(moved[pure].mean()) == pytest.approx(float(expected), rel=1e-3)
    assert float(plain[pure].mean()) == pytest.approx(float(signals[wm]), rel=1e-3)


def test_scans_of_one_seed_are_the_same_and_of_two_are_not(head):
    protocol, signals = at_site('siteC')
    one, same, other = (
        acquire(head, signals, protocol, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(one.scan, same.scan)
    assert np.array_equal(one.affine, same.affine)
    assert not np.array_equal(one.affine, other.affine)


def test_scan_is_truth_without_bias_and_noise(head, generator):
    protocol, signals = at_site('siteD', snr=1e6, bias=0.0)
    scan, _, truth = acquire(head, signals, protocol, generator)
    torch.testing.assert_close(scan, truth, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('contrast', ['T1w', 'T2w', 'PDw', 'FLAIR'])
def test_anatomy_is_the_same_at_every_site(head, contrast):
    """On one grid, every pure voxel has the site's signal of its tissue, and no other."""
    grid = Grid(tuple(head.fractions.shape[1:]), head.affine)
    pure = {t: head.fractions[i] > 0.9999 for i, t in enumerate(TISSUES)}
    pure = {t: where for t, where in pure.items() if int(where.sum()) > 50}
    assert {'wm', 'csf'} <= set(pure)
    for name in SITES:
        protocol, signals = at_site(name, contrast)
        protocol = replace(protocol, acquisition='3D')
        _, _, truth = acquire(
            head,
            signals,
            protocol,
            torch.Generator().manual_seed(0),
            position=STRAIGHT,
            grid=grid,
            spread=0.0,
        )
        for tissue, where in pure.items():
            expected = float(signals[TISSUES.index(tissue)])
            assert float((truth[0][where] - expected).abs().max()) < 2e-3 * max(
                1.0, float(signals.max())
            )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no accelerator')
def test_the_same_scan_on_an_accelerator(head):
    protocol, signals = at_site('siteD')
    cpu = acquire(head, signals, protocol, torch.Generator().manual_seed(0), position=STRAIGHT)
    there = head.with_fractions(head.fractions.cuda())
    gpu = acquire(
        there,
        signals.cuda(),
        protocol,
        torch.Generator('cuda').manual_seed(0),
        position=STRAIGHT,
        grid=Grid(tuple(cpu.truth.shape[1:]), cpu.affine),
    )
    torch.testing.assert_close(gpu.truth.cpu(), cpu.truth, atol=1e-3, rtol=1e-3)
