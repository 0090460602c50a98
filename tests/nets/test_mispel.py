"""The units of MISPEL: one for each scanner, a linear decoder, no say for the margin."""

from dataclasses import replace

import pytest
import torch

from harmony_app.nets.mispel import VARIANTS, MispelConfig, MispelNets
from harmony_app.nets.unet import UNetConfig

UNITS = [('T1w', 'GE'), ('T1w', 'Philips'), ('T2w', 'GE')]


def nets(seed=0):
    torch.manual_seed(seed)
    config = MispelConfig('tiny', UNetConfig((4, 4, 8), (1, 1, 1), norm=False), tuple(UNITS))
    return MispelNets(config)


def slices(count=2, size=32):
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(count, 1, size, size)
    mask[:, :, 6:25, 4:29] = 1
    return torch.rand(count, 1, size, size, generator=generator) * mask, mask


def test_a_config_goes_through_json_and_back():
    config = MispelConfig.of('paper', UNITS)
    assert MispelConfig.from_dict(config.to_dict()) == config
    assert config.scanners == ('GE', 'Philips')
    assert config.contrasts == ('T1w', 'T2w')
    assert config.embeddings == 6
    with pytest.raises(KeyError):
        MispelConfig.from_dict({'variant': 'paper'})
    for units in ((), (UNITS[0], UNITS[0])):
        with pytest.raises(ValueError, match='one for each contrast of a scanner'):
            MispelConfig.of('compact', units)


def test_the_encoder_of_the_paper_has_two_poolings_and_no_normalisation():
    assert VARIANTS['paper'].widths == (32, 64, 128)
    for config in VARIANTS.values():
        assert config.multiple == 4
        assert not config.norm


def test_the_decoder_is_a_linear_function_of_each_pixel():
    unit = nets().units[0]
    one, other = torch.randn(2, 1, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed = unit.decode(2 * one - 3 * other)
    torch.testing.assert_close(mixed, 2 * unit.decode(one) - 3 * unit.decode(other))
    changed = one.clone()
    changed[..., 2, 3] += 1
    different = (unit.decode(changed) != unit.decode(one)).nonzero()
    assert different.tolist() == [[0, 0, 2, 3]]


def test_empty_margins_change_nothing():
    unit = nets().units[0]
    image, mask = slices()
    image[:, :, :6] = 5.0  # outside the mask
    whole = unit(image, mask)
    assert (whole * (1 - mask)).abs().max() == 0
    padded = [torch.nn.functional.pad(v, (8, 4, 12, 16)) for v in (image * mask, mask)]
    torch.testing.assert_close(unit(*padded)[:, :, 12:44, 8:40], whole)


def test_units_start_alike_and_are_found_by_contrast_and_scanner():
    model = nets()
    for unit in model.units[1:]:
        for one, first in zip(unit.parameters(), model.units[0].parameters(), strict=True):
            assert torch.equal(one, first)
            assert one is not first
    assert model.unit('T2w', 'GE') is model.units[2]
    with pytest.raises(KeyError):
        model.unit('T2w', 'Philips')


def test_a_unit_more_leaves_the_others_as_they_are():
    model = nets()
    with torch.no_grad():
        model.units[1].decoder.weight += 1
    grown = model.with_unit('T1w', 'New', like='Philips')
    assert grown.config == replace(model.config, units=(*UNITS, ('T1w', 'New')))
    image, mask = slices()
    for contrast, scanner in UNITS:
        assert torch.equal(*(made(m.unit(contrast, scanner), image, mask) for m in (model, grown)))
    new = made(grown.units[-1], image, mask)
    assert torch.equal(new, made(model.units[1], image, mask))
    assert not torch.equal(new, made(model.units[0], image, mask))


def made(unit, image, mask):
    return unit.decode(unit.encode(image, mask))
