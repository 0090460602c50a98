"""Empty margins, crops of them, batch mates and source order change nothing."""

import pytest
import torch
from torch.nn import functional

from harmony_app.nets.attention import Attention, fuse_anatomy
from harmony_app.nets.encoders import EtaEncoder, ThetaEncoder
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import VARIANTS, Haca3Config, Haca3Nets
from harmony_app.nets.unet import MaskedUNet, UNetConfig

TIGHT = UNetConfig((4, 8, 8, 12, 12), (1, 2, 2, 1, 1), norm_finest=False)
PLAIN = UNetConfig((4, 8, 8, 12, 12), (1, 1, 1, 1, 1), norm=False)
FULL = UNetConfig((4, 8, 8, 12, 12), (2, 2, 2, 1, 1), reduce_first=False)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def slice_with_margin(batch=2, seed=0):
    """A ragged foreground inside rows 16..48 and columns 32..80 of 64 x 96 pixels."""
    mask = torch.zeros(batch, 1, 64, 96)
    mask[:, :, 18:47, 35:79] = (random(batch, 1, 29, 44, seed=seed) > 0.2).float()
    return random(batch, 1, 64, 96, seed=seed + 1) * mask, mask


def networks():
    torch.manual_seed(3)
    for name, config in (('tight', TIGHT), ('plain', PLAIN), ('full', FULL)):
        net = MaskedUNet(1, 5, config, condition=2)
        yield name, lambda x, m, net=net: net(x, m, torch.tensor([[0.3, -1.0]]).expand(len(x), 2))
    theta, eta = ThetaEncoder(), EtaEncoder()
    yield 'theta', lambda x, m: theta(x, m)[0]
    yield 'theta variance', lambda x, m: theta(x, m)[1]
    yield 'eta', lambda x, m: eta(x, m)


@pytest.mark.parametrize('name, net', list(networks()))
@torch.no_grad()
def test_padding_and_cropping_of_empty_margins_change_nothing(name, net):
    images, mask = slice_with_margin()
    expected = net(images, mask)
    assert expected.abs().max() > 1e-3
    padded = [functional.pad(t, (48, 16, 32, 80)) for t in (images, mask)]
    cropped = [t[:, :, 16:48, 32:80] for t in (images, mask)]
    for result, window in ((net(*padded), (slice(32, 96), slice(48, 144))), (net(*cropped), None)):
        if result.ndim == 4:
            if window:
                assert result.abs().sum() == pytest.approx(
                    result[:, :, window[0], window[1]].abs().sum().item(), rel=1e-6
                )
                torch.testing.assert_close(
                    result[:, :, window[0], window[1]], expected, atol=1e-5, rtol=0
                )
            else:
                torch.testing.assert_close(result, expected[:, :, 16:48, 32:80], atol=1e-5, rtol=0)
        else:
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('name, net', list(networks()))
def test_what_lies_outside_the_foreground_is_not_seen_by_masked_input(name, net):
    images, mask = slice_with_margin()
    alone = torch.cat([net(images[i : i + 1], mask[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(net(images, mask), alone, atol=1e-5, rtol=0)


def test_an_empty_slice_gives_zeros_and_no_nan():
    net = MaskedUNet(1, 3, TIGHT)
    empty = torch.zeros(1, 1, 32, 32)
    assert torch.equal(net(empty, empty), torch.zeros(1, 3, 32, 32))
    assert torch.isfinite(EtaEncoder()(empty, empty)).all()
    assert torch.isfinite(ThetaEncoder()(empty, empty)[0]).all()


def test_encoders_take_any_slice_size_and_eta_is_not_negative():
    for height, width in ((16, 32), (160, 48), (224, 192)):
        images = random(1, 1, height, width)
        mask = torch.ones_like(images)
        mean, log_variance = ThetaEncoder(dimension=2)(images, mask)
        assert mean.shape == log_variance.shape == (1, 2)
        eta = EtaEncoder(dimension=2)(images, mask)
        assert eta.shape == (1, 2)
        assert (eta >= 0).all()


@pytest.fixture
def fused():
    torch.manual_seed(5)
    attention = Attention(dimension=4)
    target, sources = torch.randn(3, 4), torch.randn(3, 4, 4)
    betas, masks = random(3, 4, 5, 8, 8), (random(3, 4, 1, 8, 8, seed=2) > 0.4).float()
    return attention, target, sources, betas / betas.sum(2, keepdim=True) * masks, masks


def test_absent_sources_have_exactly_no_weight(fused):
    attention, target, sources, *_ = fused
    present = torch.tensor([[True, False, True, True], [False, True, False, False], [True] * 4])
    weights = attention(target, sources, present)
    assert torch.equal(weights == 0, ~present)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert weights[1, 1] == 1
    sources[0, 1] = 1e9  # whatever stands in the place of an absent source
    torch.testing.assert_close(attention(target, sources, present), weights)


def test_order_of_sources_and_batch_size_do_not_matter(fused):
    attention, target, sources, betas, masks = fused
    present = torch.ones(3, 4, dtype=torch.bool)
    weights = attention(target, sources, present)
    expected, union = fuse_anatomy(betas, weights, masks)
    order = [2, 0, 3, 1]
    shuffled = attention(target, sources[:, order], present)
    torch.testing.assert_close(shuffled, weights[:, order])
    result, same_union = fuse_anatomy(betas[:, order], shuffled, masks[:, order])
    torch.testing.assert_close(result, expected)
    assert torch.equal(union, same_union)
    for i in range(3):
        one = slice(i, i + 1)
        alone = attention(target[one], sources[one], present[one])
        torch.testing.assert_close(alone, weights[one])


def test_a_source_that_does_not_see_a_voxel_has_no_weight_there(fused):
    _, _, _, betas, masks = fused
    weights = torch.tensor([[0.7, 0.3, 0.0, 0.0]]).expand(3, 4)
    result, union = fuse_anatomy(betas, weights, masks)
    first, second = masks[:, 0].bool(), masks[:, 1].bool()
    assert torch.equal(union.bool(), first | second)
    only_second = (second & ~first).expand_as(result)
    torch.testing.assert_close(result[only_second], betas[:, 1][only_second])
    both = (second & first).expand_as(result)
    torch.testing.assert_close(result[both], (0.7 * betas[:, 0] + 0.3 * betas[:, 1])[both])
    assert (result[(union == 0).expand_as(result)] == 0).all()
    torch.testing.assert_close(result.sum(1, keepdim=True), union)


def test_inference_anatomy_is_the_arg_max_and_training_draws_from_a_passed_generator():
    torch.manual_seed(0)
    nets = Haca3Nets(Haca3Config('test', TIGHT, PLAIN))
    images, mask = slice_with_margin()
    anatomy = nets.anatomy(images, mask)
    assert torch.equal(anatomy, nets.anatomy(images, mask))
    assert torch.equal(anatomy.sum(1, keepdim=True), mask)
    assert torch.equal(anatomy.argmax(1) * mask[:, 0], nets.labels(images, mask).float())

    def drawn(seed):
        return nets.anatomy(images, mask, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    sampled = drawn(1)
    torch.testing.assert_close(sampled.detach().round(), sampled.detach(), atol=1e-6, rtol=0)
    (sampled * random(*sampled.shape)).sum().backward()
    assert nets.beta.head.weight.grad.abs().sum() > 0  # straight through


def test_decoder_listens_to_theta_and_is_not_negative():
    torch.manual_seed(0)
    nets = Haca3Nets(Haca3Config('test', TIGHT, PLAIN))
    images, mask = slice_with_margin(1)
    anatomy = nets.anatomy(images, mask)
    one, other = (nets.decode(anatomy, mask, torch.tensor([[v, 0.0]])) for v in (-2.0, 2.0))
    assert (one >= 0).all()
    assert (one[mask == 0] == 0).all()
    assert (one - other).abs().max() > 1e-3


def test_fusion_knows_no_margin():
    net = FusionNet(4)
    volumes, mask = random(1, 3, 10, 12, 8), torch.ones(1, 1, 10, 12, 8)
    torch.nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(1))
    padded = net(functional.pad(volumes, (3,) * 6), functional.pad(mask, (3,) * 6))
    torch.testing.assert_close(padded[..., 3:-3, 3:-3, 3:-3], net(volumes, mask), atol=1e-5, rtol=0)


def test_config_survives_json():
    import json

    for config in VARIANTS.values():
        assert Haca3Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
