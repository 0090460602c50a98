"""A small head of ellipsoids, as a label map and as an anatomy."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from harmony_app.phantom.anatomy import Anatomy, label_map_anatomy

ZOOM = 3.0


def _ellipsoid(grid, centre, radii):
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1


def head_labels() -> tuple[np.ndarray, np.ndarray]:
    shape = (64, 76, 68)
    affine = np.diag([ZOOM, ZOOM, ZOOM, 1.0])
    affine[:3, 3] = -ZOOM * (np.array(shape) - 1) / 2
    axes = [affine[i, i] * np.arange(n) + affine[i, 3] for i, n in enumerate(shape)]
    grid = np.meshgrid(*axes, indexing='ij')
    labels = np.zeros(shape, np.int16)
    for label, radii in (
        (511, (88, 106, 96)),
        (507, (85, 103, 93)),
        (515, (79, 97, 87)),
        (516, (76, 94, 84)),
        (24, (72, 90, 80)),
        (3, (68, 86, 76)),
        (2, (56, 74, 64)),
    ):
        labels[_ellipsoid(grid, (0, 0, 0), radii)] = label
    for side in (-1, 1):
        labels[_ellipsoid(grid, (15 * side, 0, 8), (9, 32, 12))] = 4
        labels[_ellipsoid(grid, (16 * side, -4, -12), (10, 15, 9))] = 10
        labels[_ellipsoid(grid, (33 * side, 90, -34), (12, 12, 12))] = 506
    return labels, affine


@pytest.fixture(scope='session')
def label_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('heads')
    nib.save(nib.Nifti1Image(*head_labels()), folder / 'ellipsoids.nii.gz')
    return folder


@pytest.fixture(scope='session')
def head(label_folder) -> Anatomy:
    return label_map_anatomy(label_folder / 'ellipsoids.nii.gz')


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)
