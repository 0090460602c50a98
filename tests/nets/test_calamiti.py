"""The networks of CALAMITI: margins change nothing, theta reaches the image, widths are told."""

import pytest
import torch
from torch.nn import functional

from harmony_app.nets.calamiti import VARIANTS, CalamitiConfig, CalamitiNets


def slice_with_margin(batch=2):
    """A ragged foreground inside rows 16..48 and columns 32..80 of 64 x 96 pixels."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(batch, 1, 64, 96)
    mask[:, :, 18:47, 35:79] = (torch.rand(batch, 1, 29, 44, generator=generator) > 0.2).float()
    return torch.rand(mask.shape, generator=generator) * mask, mask


@pytest.fixture(scope='module', params=sorted(VARIANTS))
def nets(request):
    torch.manual_seed(1)
    return CalamitiNets(VARIANTS[request.param]).eval()


@torch.no_grad()
def test_empty_margins_change_nothing(nets):
    images, mask = slice_with_margin()
    theta = torch.tensor([[0.4, -1.2]]).expand(2, 2)
    cropped = [t[:, :, 16:48, 32:80] for t in (images, mask)]
    padded = [functional.pad(t, (48, 16, 32, 80)) for t in (images, mask)]

    def all_of(x, m):
        anatomy = nets.anatomy(x, m)
        logits, places = nets.discriminator(anatomy, m)
        judged = (logits * places).sum((1, 2, 3)) / places.sum((1, 2, 3))
        return nets.logits(x, m), nets.decode(anatomy, m, theta), judged

    whole = all_of(images, mask)
    crop, pad = all_of(*cropped), all_of(*padded)
    for i in range(2):
        assert whole[i].abs().max() > 1e-3
        torch.testing.assert_close(crop[i], whole[i][:, :, 16:48, 32:80], atol=1e-5, rtol=0)
        torch.testing.assert_close(pad[i][:, :, 32:96, 48:144], whole[i], atol=1e-5, rtol=0)
        assert not whole[i][mask.expand_as(whole[i]) == 0].any()
    torch.testing.assert_close(crop[2], whole[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(pad[2], whole[2], atol=1e-5, rtol=0)


@torch.no_grad()
def test_anatomy_is_one_hot_and_theta_changes_the_image(nets):
    images, mask = slice_with_margin()
    anatomy = nets.anatomy(images, mask)
    torch.testing.assert_close(anatomy.sum(1, keepdim=True), mask)
    assert set(anatomy.unique().tolist()) == {0.0, 1.0}
    one, other = (nets.decode(anatomy, mask, torch.tensor([[t, t]] * 2)) for t in (-1.0, 1.0))
    # everywhere and not only at the rim, where a padded theta would be seen
    inside = (functional.avg_pool2d(mask, 5, 1, 2) > 0.6) & (mask > 0)
    assert ((one - other).abs()[inside] > 1e-5).float().mean() > 0.9


def test_widths_survive_json(nets):
    assert CalamitiConfig.from_dict(nets.config.to_dict()) == nets.config
    with pytest.raises(TypeError):
        CalamitiConfig.from_dict(nets.config.to_dict() | {'attention': 1})


def test_the_paper_has_four_levels_and_a_decoder_of_twice_the_width():
    paper = VARIANTS['paper']
    assert (paper.levels, paper.theta) == (4, 2)
    assert paper.decoder.widths == tuple(2 * width for width in paper.beta.widths)
