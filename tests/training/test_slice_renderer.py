"""Slices rendered on a device are those that the sampler draws, in their statistics."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from harmony_app.training import slice_renderer as rendering
from harmony_app.training.slice_batch import Batch
from harmony_app.training.slice_plans import KNOTS, PlanSampler, join_plans
from harmony_app.training.slice_renderer import SliceRenderer, fill_holes
from harmony_app.training.slices import SliceSampler

SIZE, COUNT = 32, 160


@pytest.fixture(scope='module')
def plans(head):
    sampler = PlanSampler([head, head], SIZE)
    return [sampler.draw(np.random.default_rng([3, i])) for i in range(COUNT)]


@pytest.fixture(scope='module')
def renderer(head):
    return SliceRenderer([head, head], SIZE, 'cpu')


@pytest.fixture(scope='module')
def rendered(plans, renderer):
    return renderer.render(join_plans(plans))


@pytest.fixture(scope='module')
def sampled(head):
    sampler = SliceSampler([head, head], SIZE)
    return Batch.join([sampler.draw(np.random.default_rng([4, i])) for i in range(COUNT)])


def test_fields_are_those_of_the_sampler(rendered, sampled):
    for field in fields(Batch):
        one, other = getattr(rendered, field.name), getattr(sampled, field.name)
        assert one.shape == other.shape, field.name
        assert one.dtype == other.dtype, field.name
        assert torch.isfinite(one.float()).all(), field.name


@pytest.mark.parametrize(
    'name',
    ('sources', 'source_masks', 'views', 'target', 'style', 'style_mask', 'clean', 'mild', 'severe',
     'severity', 'source_severity', 'levels'),
)  # fmt: skip
def test_means_and_spreads_are_those_of_the_sampler(rendered, sampled, name):
    """Means of examples agree within what chance gives their means, and so do their spreads."""
    one, other = (getattr(b, name).flatten(1).double().mean(1) for b in (rendered, sampled))
    chance = torch.hypot(one.std(), other.std()) / COUNT**0.5
    assert abs(one.mean() - other.mean()) < 3.5 * chance
    assert one.std().item() == pytest.approx(other.std().item(), rel=0.35)


def test_tissues_are_as_frequent_and_as_rough(rendered, sampled):
    pairs = [[b.anatomy[:, level] for b in (rendered, sampled)] for level in range(5)]
    # differences of neighbours show texture, noise and blur
    for name in ('sources', 'target', 'style', 'clean', 'severe'):
        pairs.append([getattr(b, name).diff(dim=-1).abs() for b in (rendered, sampled)])
    for pair in pairs:
        one, other = (values.flatten(1).mean(1) for values in pair)
        chance = torch.hypot(one.std(), other.std()) / COUNT**0.5
        assert abs(one.mean() - other.mean()) < 3.5 * chance


def test_ranges_and_masks(rendered):
    torch.testing.assert_close(
        rendered.anatomy.sum(1), torch.ones(COUNT, SIZE, SIZE), atol=0.02, rtol=0
    )
    assert rendered.anatomy.min() >= 0
    assert rendered.sources.min() >= 0
    assert rendered.severe.max() <= rendering.BRIGHTEST
    for image, mask in (
        (rendered.sources, rendered.views[:, :2]),
        (rendered.style, rendered.views[:, 2:]),
        (rendered.severe, rendered.views[:, 2:]),
    ):
        assert (image[mask == 0] == 0).all()
    assert (rendered.views[:, :2] >= rendered.source_masks).all()
    assert (rendered.views[:, 2:] >= rendered.style_mask).all()
    assert (rendered.severity.diff(dim=1) >= 0).all()
    air = (rendered.views[:, 2:] - rendered.style_mask).sum((1, 2, 3)) > 0
    assert 0.4 < air.float().mean() < 1


def test_white_matter_is_at_one(rendered):
    sure = rendered.anatomy[:, 3:4] > 0.99
    medians = [t[s].median() for t, s in zip(rendered.target, sure, strict=True) if s.sum() > 30]
    assert len(medians) > 20
    np.testing.assert_allclose(np.array(medians), 1, atol=0.1)


def test_the_same_plans_give_the_same_slices(plans, renderer):
    few = join_plans(plans[:6])
    one, again = renderer.render(few), renderer.render(few)
    other = renderer.render(join_plans(plans[6:12]))
    for field in fields(Batch):
        assert torch.equal(getattr(one, field.name), getattr(again, field.name)), field.name
    assert not torch.equal(one.sources, other.sources)


def test_plans_repeat_with_the_seed(head, plans):
    again = PlanSampler([head, head], SIZE).draw(np.random.default_rng([3, 5]))
    for name, value in again.items():
        assert np.array_equal(value, plans[5][name]), name


def test_an_undeformed_crop_is_a_slice_of_the_head(head, plans, renderer):
    given = join_plans(plans)
    crops = renderer._crops(given, torch.Generator().manual_seed(0)).unflatten(0, (COUNT, 2))
    stack = np.concatenate([head.fractions, head.maps[:1]]) / 255
    found = 0
    for plan, crop in zip(plans, crops[:, 0], strict=True):
        if plan['bend'][0] == 0:
            plane = stack.take(plan['plane'][0], axis=1 + plan['axis'][0])
            row, column = plan['start'][0] + SIZE // 8
            expected = plane[:, row : row + SIZE, column : column + SIZE]
            if plan['flip'][0]:
                expected = expected[:, ::-1]
            np.testing.assert_allclose(crop.numpy(), expected, atol=1e-4)
            found += 1
    assert found > 10


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_holes_are_filled_as_scipy_does(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((2, 14, 11)) < rng.uniform(0.3, 0.8)
    expected = [ndimage.binary_fill_holes(m) for m in mask]
    assert np.array_equal(fill_holes(torch.from_numpy(mask)).numpy(), np.stack(expected))


def test_blur_and_dilation_are_those_of_scipy():
    rng = np.random.default_rng(0)
    images = rng.random((4, 20, 24)).astype(np.float32)
    sigma = torch.tensor([0.1, 0.3, 0.8, 2.0])
    blurred = rendering._blurred(torch.from_numpy(images), sigma)
    np.testing.assert_array_equal(blurred[0], images[0])
    for i in range(1, 4):
        expected = ndimage.gaussian_filter(images[i], float(sigma[i]), truncate=3)
        np.testing.assert_allclose(blurred[i], expected, atol=1e-5)
    masks = images > 0.9
    grown = rendering._dilated(torch.from_numpy(masks), torch.arange(4))
    for i in range(4):
        expected = ndimage.binary_dilation(masks[i], iterations=i) if i else masks[i]
        assert np.array_equal(grown[i], expected)


def test_curves_are_those_of_numpy(renderer):
    rng = np.random.default_rng(1)
    curves = np.cumsum(rng.random((2, 3, len(KNOTS))), axis=2).astype(np.float32)
    images = rng.uniform(-0.5, 7, (2, 3, 5, 4)).astype(np.float32)
    found = renderer._mapped(torch.from_numpy(images), torch.from_numpy(curves))
    for i, j in np.ndindex(2, 3):
        expected = np.interp(images[i, j], KNOTS, curves[i, j])
        np.testing.assert_allclose(found[i, j], expected, rtol=1e-4, atol=1e-4)


def test_crops_larger_than_the_heads_are_refused(head):
    with pytest.raises(ValueError, match='smaller crops'):
        PlanSampler([head], 64)
