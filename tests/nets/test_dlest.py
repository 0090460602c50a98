"""The networks of DLEST: codes that keep their place, and chains that are Langevin dynamics."""

from dataclasses import replace

import pytest
import torch

from harmony_app.nets.dlest import VARIANTS, DlestConfig, DlestNets, energy_key
from harmony_app.nets.energy import ChainConfig, EnergyNet, langevin

SMALL = replace(
    VARIANTS['compact'],
    variant='small',
    channels=4,
    widths=(8,),
    blocks=1,
    canvas=(32, 64),
    noise=4,
    mapping_width=8,
    discriminator_width=8,
    energy_width=8,
)
GLOBAL = replace(
    VARIANTS['paper'],
    variant='global',
    channels=16,
    widths=(4, 4, 8),
    canvas=(64, 64),
    noise=4,
    mapping_width=8,
    discriminator_width=8,
    energy_width=8,
)
KEY = energy_key('there', 'T1w')


def nets(config=SMALL):
    torch.manual_seed(0)
    return DlestNets(config, (KEY,)).eval()


def disc(height=48, width=48):
    rows, columns = torch.meshgrid(
        torch.arange(float(height)), torch.arange(float(width)), indexing='ij'
    )
    mask = (torch.hypot(rows - height / 2, columns - width / 2) < 18).float()[None, None]
    return torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) * mask, mask


class Bowl(torch.nn.Module):
    """Half the square of a code."""

    def forward(self, code, cells):
        return 0.5 * (code.square() * cells).sum((1, 2, 3))


class Flat(torch.nn.Module):
    """The same energy everywhere: only the noise of a chain is left."""

    def forward(self, code, cells):
        return (0 * code).sum((1, 2, 3))


def test_a_code_has_a_place_for_every_cell_and_none_for_what_lies_outside():
    network, (image, mask) = nets(), disc()
    code, cells = network.encode(image, mask)
    assert code.shape == (1, 4, 12, 12)
    assert cells.shape == (1, 1, 12, 12)
    assert not (code * (1 - cells)).any()
    decoded = network.decode(code, cells, mask)
    assert decoded.shape == image.shape
    assert not (decoded * (1 - mask)).any()
    assert (decoded >= 0).all()


def test_empty_margins_change_nothing():
    network, (image, mask) = nets(), disc()
    wide = [torch.nn.functional.pad(x, (16, 32, 32, 16)) for x in (image, mask)]
    with torch.no_grad():
        network.energies[KEY].head.weight.mul_(30)
    here, there = (network.translate(*x, KEY) for x in ((image, mask), wide))
    torch.testing.assert_close(there[:, :, 32:80, 16:64], here, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(here, network.decode(*network.encode(image, mask), mask), atol=1e-3)


def test_the_noise_of_a_chain_has_the_variance_of_equation_7():
    chain = ChainConfig(steps=5, step=0.04)
    code, cells = torch.zeros(4, 8, 32, 32), torch.ones(4, 1, 32, 32)

    def moved(seed):
        return langevin(Flat(), code, cells, chain, torch.Generator().manual_seed(seed))

    # the sum of five independent steps of variance alpha, not one constant five times
    assert moved(0).var().item() == pytest.approx(5 * 0.04, rel=0.03)
    assert moved(0).mean().item() == pytest.approx(0, abs=0.01)
    single = langevin(
        Flat(), code, cells, replace(chain, steps=1), torch.Generator().manual_seed(0)
    )
    assert single.std().item() == pytest.approx(0.2, rel=0.03)
    assert torch.equal(moved(0), moved(0))
    assert abs(torch.corrcoef(torch.stack([moved(0).flatten(), moved(1).flatten()]))[0, 1]) < 0.02


def test_a_chain_follows_the_gradient_and_uphill_undoes_it():
    chain = ChainConfig(steps=3, step=0.02, temperature=0.1)
    code, cells = torch.randn(2, 3, 4, 4), torch.ones(2, 1, 4, 4)
    # half of alpha over the temperature is a tenth: each step leaves nine tenths
    torch.testing.assert_close(langevin(Bowl(), code, cells, chain), 0.9**3 * code)
    back = langevin(Bowl(), 0.9**3 * code, cells, chain, uphill=True)
    torch.testing.assert_close(back, (0.9 * 1.1) ** 3 * code)


def test_nothing_moves_outside_the_mask():
    chain = ChainConfig(steps=2)
    cells = torch.zeros(1, 1, 4, 4)
    cells[..., :2] = 1
    energy = EnergyNet(3, 8)
    code = torch.randn(1, 3, 4, 4) * cells
    moved = langevin(energy, code, cells, chain, torch.Generator().manual_seed(0))
    assert not moved[..., 2:].any()
    assert (moved[..., :2] != code[..., :2]).all()


def test_a_chain_needs_no_graph_of_its_caller():
    network, (image, mask) = nets(), disc()
    plain = network.translate(image, mask, KEY)
    with torch.inference_mode():
        assert torch.equal(network.translate(image, mask, KEY), plain)
    code, cells = (x.detach() for x in network.encode(image, mask))
    assert not langevin(network.energies[KEY], code, cells, SMALL.chain).requires_grad


def test_a_cell_moves_alike_in_a_small_slice_and_in_a_large_one():
    torch.manual_seed(0)
    energy = EnergyNet(3, 8, pooled=False)
    chain = ChainConfig(steps=1, temperature=1e-4)
    code = torch.randn(1, 3, 12, 12)
    small = langevin(energy, code[..., :6, :6], torch.ones(1, 1, 6, 6), chain)
    large = langevin(energy, code, torch.ones(1, 1, 12, 12), chain)
    torch.testing.assert_close(small[..., :4, :4], large[..., :4, :4])


def test_the_energy_sees_the_style_of_the_whole_slice():
    torch.manual_seed(0)
    chain = ChainConfig(steps=1, temperature=1e-4)
    cells = torch.ones(1, 1, 12, 12)
    dark = torch.zeros(1, 3, 12, 12)
    bright = dark.clone()
    bright[..., 8:] = 2.0
    for pooled in (False, True):
        energy = EnergyNet(3, 8, pooled=pooled)
        energy.style and energy.style[-1].weight.data.mul_(20)
        one, other = (langevin(energy, code, cells, chain) for code in (dark, bright))
        assert torch.allclose(one[..., :4], other[..., :4], atol=1e-7) != pooled


def test_what_is_made_of_noise_is_made_again_by_its_seed():
    for config in (SMALL, GLOBAL):
        network = nets(config)
        made = network.synthesize(3, KEY, torch.Generator().manual_seed(5))
        assert made.shape == (3, 1, *config.canvas)
        assert torch.equal(made, network.synthesize(3, KEY, torch.Generator().manual_seed(5)))
        assert not torch.equal(made[0], made[1])


def test_the_latent_of_the_paper_is_one_vector():
    config = VARIANTS['paper']
    assert (config.latent, config.channels, config.energy_width) == ('global', 512, 2048)
    network, (image, mask) = nets(GLOBAL), disc()
    code, cells = network.encode(image, mask)
    assert code.shape == (1, 16, 1, 1)
    assert cells.item() == 1
    assert network.translate(image, mask, KEY).shape == image.shape
    with pytest.raises(ValueError, match='canvas of 64'):
        network.encode(*disc(80, 80))


def test_a_new_energy_begins_as_another_one():
    network, (image, mask) = nets(), disc()
    network.add_energy('T1w:like', like=KEY)
    network.add_energy('T1w:chance')
    like, chance, known = (
        network.translate(image, mask, key) for key in ('T1w:like', 'T1w:chance', KEY)
    )
    assert torch.equal(like, known)
    assert not torch.equal(chance, known)
    with torch.no_grad():
        network.energies['T1w:like'].head.weight.add_(1)
    assert torch.equal(network.translate(image, mask, KEY), known)


def test_a_config_comes_back_from_json():
    for config in (*VARIANTS.values(), SMALL):
        assert DlestConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match='spatial, global'):
        replace(SMALL, latent='none')
    with pytest.raises(TypeError):
        DlestConfig.from_dict(SMALL.to_dict() | {'depth': 3})
