"""The segmentation network on nested ellipsoids: what it learns, and what another site does to it."""

import numpy as np
import pytest
import torch

from harmony_app.evaluation.segmentation_network import LabelledScan, Segmenter, train_segmenter

SHAPE = (32, 36, 12)
SITE, OTHER = (0.6, 1.0, 0.2), (0.85, 1.0, 0.45)


def labelled(size, intensities, seed):
    """A cylinder of WM, GM and CSF, with noise."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE[:2]), indexing='ij')
    radius = np.broadcast_to((np.hypot(x, y) / size)[..., None], SHAPE)
    labels = np.select([radius <= 0.45, radius <= 0.7, radius <= 0.95], [2, 1, 3]).astype(np.uint8)
    image = np.array([0, *intensities])[labels]
    image = image + np.random.default_rng(seed).normal(0, 0.03, SHAPE)
    return LabelledScan(image.astype(np.float32), labels > 0, labels)


def right(segmenter, scan):
    labels = segmenter.predict(scan.image, scan.brain)
    return (labels == scan.labels)[scan.brain].mean()


@pytest.fixture(scope='module')
def scans():
    return [labelled(0.9, SITE, seed=1), labelled(1.0, SITE, seed=2)]


@pytest.fixture(scope='module')
def segmenter(scans):
    return train_segmenter(scans, steps=60, seed=3, patch=32)


def test_it_labels_another_head_of_its_site(segmenter):
    assert right(segmenter, labelled(0.95, SITE, seed=5)) > 0.95


def test_another_site_is_labelled_worse(segmenter):
    """The shift that harmonization is to take away shows."""
    here, there = (labelled(0.95, site, seed=5) for site in (SITE, OTHER))
    assert right(segmenter, there) < right(segmenter, here) - 0.1


def test_only_the_brain_is_labelled_and_only_it_counts(segmenter):
    scan = labelled(0.95, SITE, seed=5)
    labels = segmenter.predict(scan.image, scan.brain)
    assert labels.dtype == np.uint8
    assert not labels[~scan.brain].any()
    skull = np.where(scan.brain, scan.image, 3).astype(np.float32)
    assert np.array_equal(segmenter.predict(skull, scan.brain), labels)


def test_how_many_slices_are_computed_at_once_changes_nothing(segmenter):
    scan = labelled(0.95, SITE, seed=5)
    first, second = (segmenter.predict(scan.image, scan.brain, batch) for batch in (1, 5))
    assert (first == second).mean() > 0.999


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before(scans):
    torch.manual_seed(8)
    before = torch.get_rng_state()
    first = train_segmenter(scans, steps=3, seed=1, patch=16)
    assert torch.equal(torch.get_rng_state(), before), 'the global generator was used'
    torch.rand(5)
    second, other = (train_segmenter(scans, steps=3, seed=seed, patch=16) for seed in (1, 2))
    weights = [
        torch.cat([p.detach().flatten() for p in s.network.parameters()])
        for s in (first, second, other)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_what_cannot_be_learned_is_refused(scans, segmenter):
    image, brain, labels = (getattr(scans[0], name) for name in ('image', 'brain', 'labels'))
    cases = {
        'unequal shapes': (image[1:], brain, labels),
        'labels': (image, brain, labels[1:]),
        'mask is empty': (image, np.zeros_like(brain), labels),
        'constant': (np.ones_like(image), brain, labels),
        'not finite': (np.full_like(image, np.nan), brain, labels),
        'labels are 0 to 3': (image, brain, labels + 3),
        'one label only': (image, brain, np.ones_like(labels)),
    }
    for message, arguments in cases.items():
        with pytest.raises(ValueError, match=message):
            LabelledScan(*arguments)
    with pytest.raises(ValueError, match='no scan'):
        train_segmenter([])
    with pytest.raises(ValueError, match='1 step or more'):
        train_segmenter(scans, steps=0)
    with pytest.raises(ValueError, match='multiple of 4'):
        train_segmenter(scans, steps=1, patch=30)
    with pytest.raises(ValueError, match='mask is empty'):
        segmenter.predict(image, np.zeros_like(brain))


def test_weights_go_to_arrays_and_back(segmenter):
    scan = labelled(0.95, SITE, seed=5)
    arrays = segmenter.to_arrays()
    again = Segmenter.from_arrays(arrays)
    np.testing.assert_array_equal(
        again.predict(scan.image, scan.brain), segmenter.predict(scan.image, scan.brain)
    )
    arrays.popitem()
    with pytest.raises(ValueError, match='not the weights'):
        Segmenter.from_arrays(arrays)
