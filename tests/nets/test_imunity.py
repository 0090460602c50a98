"""The networks of ImUnity: margins change nothing, detail passes the latent, theta the image."""

import pytest
import torch
from torch.nn import functional

from harmony_app.nets.imunity import CELL, VARIANTS, ImUnityConfig, ImUnityNets, LatentModule


@pytest.fixture(scope='module', params=sorted(VARIANTS))
def nets(request):
    torch.manual_seed(1)
    return ImUnityNets(VARIANTS[request.param]).eval()


@pytest.fixture(scope='module')
def ragged():
    """Slices whose foreground lies inside rows 16..48 and columns 32..80 of 64 x 96 pixels."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 1, 64, 96)
    mask[:, :, 18:47, 35:79] = (torch.rand(2, 1, 29, 44, generator=generator) > 0.2).float()
    # something outside of the mask, as the air around a head is
    return torch.rand(mask.shape, generator=generator), mask


@torch.no_grad()
def test_a_crop_of_the_foreground_has_the_same_latent_and_image(nets, ragged):
    theta = torch.full((2, nets.config.theta), 0.3)
    module = LatentModule(nets.config.latent, 3)

    def computed(images, mask):
        latent = nets.anatomy(images, mask)[0]
        return latent, nets.decode(latent, mask, theta), module(latent, mask)

    whole = computed(*ragged)
    crop = computed(*(t[:, :, 16:48, 32:80] for t in ragged))
    cells = whole[0][:, :, 16 // CELL : 48 // CELL, 32 // CELL : 80 // CELL]
    torch.testing.assert_close(crop[0], cells, atol=1e-5, rtol=0)
    torch.testing.assert_close(crop[1], whole[1][:, :, 16:48, 32:80], atol=1e-5, rtol=0)
    torch.testing.assert_close(crop[2], whole[2], atol=1e-5, rtol=0)
    assert not whole[1][ragged[1] == 0].any()
    assert (whole[1] >= 0).all()


@torch.no_grad()
def test_the_latent_is_a_fourth_as_fine_and_holds_all_pixels(nets, ragged):
    latent, log_variance = nets.anatomy(*ragged)
    assert latent.shape == log_variance.shape == (2, nets.config.latent, 16, 24)
    assert nets.config.latent >= CELL * CELL
    # nothing goes around it: the image is a function of latent, mask and theta alone
    image = nets.translate(*ragged, torch.zeros(2, nets.config.theta))
    assert torch.equal(image, nets.decode(latent, ragged[1], torch.zeros(2, nets.config.theta)))


@torch.no_grad()
def test_an_untrained_generator_is_sharp(nets):
    fine = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    image = nets.translate(fine, torch.ones_like(fine), torch.zeros(1, nets.config.theta))
    pairs = torch.stack([fine.flatten(), image.flatten()])
    assert torch.corrcoef(pairs)[0, 1] > 0.9


@torch.no_grad()
def test_theta_reaches_every_place(nets, ragged):
    latent, mask = nets.anatomy(*ragged)[0], ragged[1]
    one, other = (
        nets.decode(latent, mask, torch.full((2, nets.config.theta), t)) for t in (-1.0, 1.0)
    )
    inside = (functional.avg_pool2d(mask, 5, 1, 2) > 0.6) & (mask > 0)
    assert ((one - other).abs()[inside] > 1e-5).float().mean() > 0.9


def test_widths_survive_json(nets):
    assert ImUnityConfig.from_dict(nets.config.to_dict()) == nets.config
    with pytest.raises(TypeError):
        ImUnityConfig.from_dict(nets.config.to_dict() | {'skip': 1})


def test_in_the_paper_theta_is_joined_to_the_latent_and_no_more():
    paper = ImUnityNets(VARIANTS['paper']).decoder
    assert paper.modulator is None
    assert paper.levels is None
    config = VARIANTS['paper']
    assert paper.stem.conv.in_channels == config.latent + config.theta
