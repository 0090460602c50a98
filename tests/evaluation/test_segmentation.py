"""Tissue segmentation of nested ellipsoids, whose tissues are known."""

import numpy as np
import pytest

from harmony_app.evaluation.segmentation import segment_tissues

SHAPE = (32, 36, 28)
INTENSITIES = {
    'T1w': (0.6, 1.0, 0.2),
    'T2w': (1.4, 1.0, 2.5),
    'FLAIR': (1.3, 1.0, 0.4),
}


def ellipsoids(size=1.0):
    """GM, WM and CSF of a head, bool, shape (3, X, Y, Z)."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum((a / size) ** 2 for a in axes))
    return np.stack(
        [(radius > 0.5) & (radius <= 0.75), radius <= 0.5, (radius > 0.75) & (radius <= 0.95)]
    )


def scan_of(tissues, contrast, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.05, SHAPE)
    return (np.tensordot(INTENSITIES[contrast], tissues, axes=1) + noise).astype(np.float32)


@pytest.fixture(scope='module')
def head():
    """Brain mask, maps of another size than the head, and the true labels."""
    tissues = ellipsoids()
    maps = (255 * ellipsoids(size=1.06)).astype(np.uint8)
    truth = np.tensordot([1, 2, 3], tissues, axes=1).astype(np.uint8)
    return tissues, tissues.any(axis=0), maps, truth


@pytest.mark.parametrize('contrast', INTENSITIES)
def test_labels_follow_the_maps_in_every_contrast(head, contrast):
    """The order of intensities differs from contrast to contrast, that of the labels does not."""
    tissues, brain, maps, truth = head
    result = segment_tissues([scan_of(tissues, contrast)], brain, maps)
    assert result.labels.dtype == np.uint8
    assert (result.labels == truth)[brain].mean() > 0.97
    # The maps alone would be further off.
    by_maps = np.where(maps.any(axis=0), maps.argmax(axis=0) + 1, 0)
    assert (by_maps == truth)[brain].mean() < 0.9


def test_an_atrophied_head_keeps_its_fluid(head):
    """Its CSF lies under the maps of GM, where Atropos alone gets 14 percent wrong."""
    _, brain, _, _ = head
    tissues = ellipsoids(size=0.85)
    tissues[2] = brain & ~tissues[:2].any(axis=0)
    truth = np.tensordot([1, 2, 3], tissues, axes=1)
    maps = (255 * ellipsoids()).astype(np.uint8)
    labels = segment_tissues([scan_of(tissues, 'T1w')], brain, maps).labels
    assert (labels == truth)[brain].mean() > 0.97


def test_volumes_are_those_of_the_labels(head):
    tissues, brain, maps, _ = head
    result = segment_tissues([scan_of(tissues, 'T1w')], brain, maps)
    for number, name in enumerate(('GM', 'WM', 'CSF'), start=1):
        assert result.volumes[name] == np.count_nonzero(result.labels == number) / 1000
    assert sum(result.volumes.values()) == pytest.approx(brain.sum() / 1000)
    assert not result.labels[~brain].any()


@pytest.mark.parametrize('step', (1, 2))
def test_two_runs_are_the_same(head, step):
    tissues, brain, maps, _ = head
    scan = scan_of(tissues, 'T1w')
    first, second = (segment_tissues([scan], brain, maps, step).labels for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_half_the_resolution_labels_the_full_grid(head):
    tissues, brain, maps, truth = head
    labels = segment_tissues([scan_of(tissues, 'T1w')], brain, maps, step=2).labels
    assert np.array_equal(labels > 0, brain)
    assert (labels == truth)[brain].mean() > 0.85


def test_a_second_contrast_tells_apart_what_the_first_cannot(head):
    """In the first scan GM is as bright as CSF, in the second as WM."""
    tissues, brain, maps, truth = head
    rng = np.random.default_rng(1)
    first = np.tensordot([0.5, 1.0, 0.5], tissues, axes=1) + rng.normal(0, 0.05, SHAPE)
    second = np.tensordot([1.0, 1.0, 2.0], tissues, axes=1) + rng.normal(0, 0.05, SHAPE)
    right = [
        (segment_tissues(scans, brain, maps).labels == truth)[brain].mean()
        for scans in ([first], [second], [first, second])
    ]
    assert right[2] > 0.97
    assert right[2] > max(right[:2])


def test_quiet_scans_of_two_contrasts_can_be_segmented(head):
    """Their tissues have so little variance that Atropos takes it for none in this unit."""
    tissues, brain, maps, truth = head
    rng = np.random.default_rng(2)
    scans = [
        np.tensordot(INTENSITIES[contrast], tissues, axes=1) + rng.normal(0, 0.015, SHAPE)
        for contrast in ('T1w', 'T2w')
    ]
    labels = segment_tissues(scans, brain, maps).labels
    assert (labels == truth)[brain].mean() > 0.97


def test_nothing_is_left_in_the_temporary_folder(head, tmp_path, monkeypatch):
    tissues, brain, maps, _ = head
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    segment_tissues([scan_of(tissues, 'T1w')], brain, maps)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_segmented_is_refused(head):
    tissues, brain, maps, _ = head
    scan = scan_of(tissues, 'T1w')
    broken = scan.copy()
    broken[brain] = np.nan
    without = maps.copy()
    without[2] = 0
    cases = {
        'copy of another': ([scan, scan], brain, maps, 1),
        'no volume': ([], brain, maps, 1),
        'unequal shapes': ([scan[1:]], brain, maps, 1),
        'mask is empty': ([scan], np.zeros(SHAPE, bool), maps, 1),
        'constant': ([np.ones(SHAPE)], brain, maps, 1),
        'not finite': ([broken], brain, maps, 1),
        'no CSF': ([scan], brain, without, 1),
        'not 2 of them': ([scan], brain, maps[:2], 1),
        'does not divide': ([scan], brain, maps, 5),
    }
    for message, arguments in cases.items():
        with pytest.raises(ValueError, match=message):
            segment_tissues(*arguments)
