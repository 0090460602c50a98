import pytest
import torch

from harmony_app.phantom.acquisition import render
from harmony_app.phantom.artifacts import ARTIFACTS
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.sites import load_sites
from harmony_app.phantom.tissues import tissue_properties

LEVELS = (0.05, 0.15, 0.3, 0.5, 0.75, 1.0)
EVERY = pytest.mark.parametrize('name', list(ARTIFACTS))


@pytest.fixture(scope='module')
def volume(head):
    protocol = load_sites()['siteD'].protocols['T1w']
    return render(head.fractions, signal(protocol, tissue_properties(3.0))[None])


@pytest.fixture(scope='module')
def slices(volume):
    return volume[0, :, :, 30:38].permute(2, 0, 1).contiguous()


def spoiled(name, image, severity, seed=0):
    return ARTIFACTS[name](image, severity, torch.Generator().manual_seed(seed))


def error(before, after):
    return float((after - before).pow(2).mean().sqrt() / before.std())


@EVERY
def test_severity_zero_is_the_identity(name, volume, slices):
    assert torch.equal(spoiled(name, slices, 0.0), slices)
    assert torch.equal(spoiled(name, volume, 0.0), volume)


@EVERY
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_more_severity_is_more_error(name, slices, seed):
    errors = [error(slices, spoiled(name, slices, level, seed)) for level in LEVELS]
    assert errors == sorted(errors)
    # on the 3 mm head of these tests a slice of 1.35 voxels is 4 mm thick already
    assert 0 < errors[0] < (0.4 if name == 'anisotropy' else 0.2)
    assert errors[-1] > 0.08


@EVERY
def test_more_severity_is_more_error_in_volumes(name, volume):
    errors = [error(volume, spoiled(name, volume, level)) for level in (0.1, 0.4, 1.0)]
    assert errors == sorted(errors)


@EVERY
def test_the_seed_decides(name, slices):
    one, same, other = (spoiled(name, slices, 0.6, seed) for seed in (5, 5, 9))
    assert torch.equal(one, same)
    if name not in ('gibbs', 'anisotropy'):
        assert not torch.equal(one, other)


@EVERY
def test_each_of_a_batch_has_its_own_severity(name, slices):
    severity = torch.zeros(len(slices))
    severity[3] = 0.8
    result = spoiled(name, slices, severity)
    assert result.shape == slices.shape
    untouched = [i for i in range(len(slices)) if i != 3]
    assert torch.equal(result[untouched], slices[untouched])
    assert error(slices[3], result[3]) > 0.02


@EVERY
def test_results_are_magnitudes(name, slices, volume):
    for image in (slices, volume):
        result = spoiled(name, image, 0.7)
        assert result.dtype == image.dtype
        assert bool(torch.isfinite(result).all())
        assert float(result.min()) >= 0


@EVERY
@pytest.mark.parametrize('severity', [-0.1, 1.5])
def test_severity_out_of_range(name, slices, severity):
    with pytest.raises(ValueError, match='severity is within 0 and 1'):
        spoiled(name, slices, severity)


@EVERY
def test_one_slice_without_a_batch_is_refused(name, slices):
    with pytest.raises(ValueError, match='axes'):
        spoiled(name, slices[0], 0.5)


def test_ghosts_lie_along_the_phase_axis():
    image = torch.zeros((1, 96, 96))
    image[:, 40:56, 40:56] = 1
    result = spoiled('ghosting', image, 0.8)
    along, across = result[0, :, 40:56].clone(), result[0, 40:56].clone()
    along[40:56] = 0
    across[:, 40:56] = 0
    assert float(along.max()) > 0.1
    assert float(across.max()) < 1e-4


def test_gibbs_rings_beside_an_edge():
    image = torch.zeros((1, 128, 128))
    image[:, 32:96, 32:96] = 1
    result = spoiled('gibbs', image, 0.6)
    # the overshoot of a truncated Fourier series, 9 % of the step
    assert 1.05 < float(result[0, 64].max()) < 1.2


def test_spikes_are_stripes_of_few_frequencies():
    image = torch.ones((1, 64, 64))
    spectrum = torch.fft.fft2(spoiled('spikes', image, 0.5) - image).abs()[0]
    strongest = spectrum.flatten().sort(descending=True).values
    assert float(strongest[:60].pow(2).sum() / strongest.pow(2).sum()) > 0.95


def test_noise_has_the_level_of_its_severity():
    image = torch.ones((1, 200, 200))
    image[:, ::2] = 0.999
    for severity in (0.2, 0.4):
        noisy = spoiled('noise', image, severity)
        assert float((noisy - image).std()) == pytest.approx(0.25 * severity, rel=0.05)


def test_bias_changes_no_ratio_of_neighbours(slices):
    result = spoiled('bias', slices, 0.8)
    inside = slices > 0.5 * slices.max()
    ratio = torch.where(inside, result / slices.clamp(min=1e-6), torch.nan)
    steps = ratio.diff(dim=1)
    assert float(steps[~steps.isnan()].abs().max()) < 0.2
