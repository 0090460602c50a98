import numpy as np
import pytest
import torch

from harmony_app.engine.anatomy import (
    decode_volumes,
    encode_anatomy,
    fuse_volumes,
    represent,
    shown_part,
    translate_volumes,
)
from harmony_app.engine.compute import Compute
from harmony_app.engine.slicing import ORIENTATIONS
from harmony_app.errors import OptionError
from harmony_app.imaging.volume import Volume
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import Haca3Config, Haca3Nets
from harmony_app.nets.unet import UNetConfig

SHAPE = (48, 56, 40)


@pytest.fixture(scope='module')
def nets():
    torch.manual_seed(1)
    return Haca3Nets(
        Haca3Config(
            'test',
            UNetConfig((4, 8, 8, 8, 8), (1, 1, 1, 1, 1), norm_finest=False),
            UNetConfig((4, 8, 8, 8, 8), (1, 1, 1, 1, 1), norm=False),
        )
    ).eval()


@pytest.fixture(scope='module')
def head():
    """A noisy ball with a bright core, away from the edges."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.arange(n) - n / 2 for n in SHAPE), indexing='ij')
    radius = np.sqrt(sum(a**2 for a in axes))
    mask = radius < 17
    data = ((0.6 + 0.4 * (radius < 9)) * (1 + 0.05 * rng.standard_normal(SHAPE))) * mask
    return data.astype(np.float32), mask


def decoded(nets, head, weights=(1.0,), compute=Compute(batch=8), anatomies=None, masks=None):  # noqa: B008
    data, mask = head
    anatomies = anatomies or [encode_anatomy(nets, data, mask, compute)]
    return decode_volumes(nets, anatomies, masks or [mask], weights, (0.5, -0.5), compute)


def test_decoding_is_the_same_bit_for_bit_and_zero_outside(nets, head):
    volumes, union = decoded(nets, head)
    again, _ = decoded(nets, head)
    np.testing.assert_array_equal(volumes, again)
    np.testing.assert_array_equal(union, head[1])
    assert volumes.shape == (3, *SHAPE)
    assert not volumes[:, ~head[1]].any()
    assert (volumes[:, head[1]] > 0).all()


def test_batch_size_and_empty_margins_change_nothing(nets, head):
    volumes, _ = decoded(nets, head)
    others, _ = decoded(nets, head, compute=Compute(batch=3))
    np.testing.assert_allclose(others, volumes, atol=1e-5)
    padded = [np.pad(a, ((16, 0), (32, 5), (0, 16))) for a in head]
    inside = (slice(None), slice(16, None), slice(32, -5), slice(None, -16))
    np.testing.assert_allclose(decoded(nets, padded)[0][inside], volumes, atol=1e-5)


def test_slices_are_translated_in_every_orientation(head):
    data, mask = head
    seen = []

    def translate(images, shown):
        seen.append(images.shape)
        largest = (images * shown).amax(dim=(1, 2, 3), keepdim=True)
        return largest + torch.ones_like(images)  # outside the mask too

    volumes = translate_volumes(translate, data, mask, Compute(batch=8))
    assert volumes.dtype == np.float32
    for volume, axis in zip(volumes, ORIENTATIONS.values(), strict=True):
        others = tuple(a for a in range(3) if a != axis)
        largest = 1 + (data * mask).max(axis=others, keepdims=True)
        np.testing.assert_allclose(volume, np.where(mask, largest, 0), rtol=1e-6)
    assert max(shape[0] for shape in seen) == 8
    assert {n % 16 for shape in seen for n in shape[2:]} == {0}
    assert sum(shape[0] for shape in seen) == sum(
        int(mask.any(axis=(axis - 1, axis - 2)).sum()) for axis in range(3)
    )


def test_a_source_counts_only_where_it_shows_something(nets, head):
    data, mask = head
    compute = Compute(batch=8)
    lower = mask.copy()
    lower[:, :, 20:] = False
    whole, part = (encode_anatomy(nets, data * m, m, compute) for m in (mask, lower))
    both, union = decoded(nets, head, (0.0, 1.0), compute, [part, whole], [lower, mask])
    alone, _ = decoded(nets, head, (1.0,), compute, [whole], [mask])
    np.testing.assert_array_equal(both, alone)  # a source without weight has no say
    np.testing.assert_array_equal(union, mask)
    _, union = decoded(nets, head, (0.5, 0.5), compute, [part, whole], [lower, mask])
    np.testing.assert_array_equal(union, mask)
    mixed, _ = decoded(nets, head, (0.5, 0.5), compute, [part, whole], [lower, mask])
    swapped, _ = decoded(nets, head, (0.5, 0.5), compute, [whole, part], [mask, lower])
    np.testing.assert_allclose(mixed, swapped, atol=1e-5)


def test_theta_and_eta_do_not_see_margins(nets, head):
    compute = Compute(batch=8)
    one = represent(nets, *head, compute)
    padded = [np.pad(a, ((16, 3), (0, 32), (16, 16))) for a in head]
    other = represent(nets, *padded, compute)
    np.testing.assert_allclose(other.theta, one.theta, atol=1e-5)
    np.testing.assert_allclose(other.eta, one.eta, atol=1e-5)
    assert min(one.eta) >= 0


def test_fusion_in_slabs_is_fusion_at_once(head, monkeypatch):
    import harmony_app.engine.anatomy as engine

    torch.manual_seed(0)
    fusion = FusionNet(4).eval()
    torch.nn.init.normal_(fusion.head.weight, std=0.05)
    volumes = np.random.default_rng(1).random((3, *SHAPE)).astype(np.float32) * head[1]
    at_once = fuse_volumes(fusion, volumes, head[1], Compute())
    monkeypatch.setattr(engine, 'SLAB', 7)
    np.testing.assert_allclose(
        fuse_volumes(fusion, volumes, head[1], Compute()), at_once, atol=1e-6
    )
    direct = fusion(torch.from_numpy(volumes)[None], torch.from_numpy(head[1])[None, None].float())
    np.testing.assert_allclose(direct.detach().numpy()[0, 0], at_once, atol=1e-5)
    median = fuse_volumes(None, volumes, head[1], Compute())
    np.testing.assert_array_equal(median, np.median(volumes, axis=0))


def test_outline_is_filled_and_ends_at_the_field_of_view():
    rng = np.random.default_rng(2)
    axes = np.meshgrid(*(np.arange(n) - n / 2 for n in (96, 96, 80)), indexing='ij')
    radius = np.sqrt(sum(a**2 for a in axes))
    data = np.hypot(0.01 * rng.standard_normal(radius.shape), 1.0 * (radius < 36))
    data[radius < 8] = 0  # fluid that the sequence nulls
    data[:, :, 60:] = 0  # not scanned
    mask = shown_part(Volume(data.astype(np.float32), np.eye(4)))
    assert mask[48, 48, 40]
    assert not mask[:, :, 61:].any()
    assert not mask[2:8, 2:8, 2:8].any()
    truth = (radius < 36) & (np.arange(80) < 60)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


@pytest.mark.parametrize('device', ['cuda:77', 'toaster'])
def test_an_absent_device_is_one_clear_line(device):
    with pytest.raises(OptionError, match=f'--device {device}'):
        Compute(device)
