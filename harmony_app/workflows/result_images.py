"""Images of a harmonized scan among the results, on the template's grid."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harmony_app.imaging.io import read_scan
from harmony_app.imaging.profile import CERTAIN, MINIMUM_VOXELS, TISSUES
from harmony_app.imaging.volume import Volume
from harmony_app.workflows.evaluation_inputs import ResultScan

LIKELY = 0.5
"""Probability of a tissue that does where few voxels are certain."""


@dataclass(frozen=True)
class ResultImages:
    """A scan before and after, and its mask and maps (0 to 1).

    Parameters
    ----------
    stages : dict of str to Volume
        ``before`` and ``after``.
    brain : ndarray, shape (X, Y, Z), bool
    tissues : ndarray, shape (3, X, Y, Z)
        GM, WM and CSF.
    """

    stages: dict[str, Volume]
    brain: np.ndarray
    tissues: np.ndarray


def read_images(root: Path, scan: ResultScan) -> ResultImages:
    """Images of a scan on one grid, in the units that they are written in.

    Raises
    ------
    ScanError
        For a file that is absent or corrupt.
    ValueError
        For several grids.
    """
    stages = {
        'before': read_scan(scan.image(root, 'preproc')).volume,
        'after': read_scan(scan.image(root, 'harmonized')).volume,
    }
    brain = read_scan(scan.brain(root)).volume.data > 0.5
    tissues = np.stack([read_scan(path).volume.data for path in scan.tissues(root)])
    shapes = {volume.shape for volume in stages.values()} | {brain.shape, tissues.shape[1:]}
    if len(shapes) > 1:
        raise ValueError(f'its images, mask and maps have several shapes: {sorted(shapes)}')
    return ResultImages(stages, brain, tissues)


def tissue_regions(images: ResultImages) -> dict[str, np.ndarray]:
    """Brain and sure tissue, where the scan shows something; tissues share no voxel.

    Raises
    ------
    ValueError
        Where a tissue is not seen.
    """
    seen = images.brain & (images.stages['before'].data > 0)
    regions = {'brain': seen}
    for name, tissue in zip(TISSUES, images.tissues, strict=True):
        sure = seen & (tissue >= CERTAIN)
        if np.count_nonzero(sure) < MINIMUM_VOXELS:
            sure = seen & (tissue > LIKELY)
        if not sure.any():
            raise ValueError(f'its map shows no {name} inside the brain')
        regions[name] = sure
    return regions
