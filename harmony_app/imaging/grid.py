"""The working grid: MNI152NLin2009aSym at 1 mm, 192 x 224 x 192 voxels."""

import numpy as np

SPACE = 'MNI152NLin2009aSym'
"""TemplateFlow-style name of the space that the ICBM 2009a symmetric template of nilearn defines."""

SPACES = ('native', SPACE)
"""Grids that results can lie on: that of the scan itself, and the working grid."""

WORKING_SHAPE = (192, 224, 192)
"""Voxels of the working grid; x covers -96..95, y -128..95, z -84..107 mm."""

WORKING_AFFINE = np.array(
    [[1.0, 0, 0, -96], [0, 1, 0, -128], [0, 0, 1, -84], [0, 0, 0, 1]],
)
"""Voxel indices of the working grid to MNI millimetres (RAS+)."""


def coarse_grid(step: int) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of the working grid averaged over cubes of ``step`` voxels.

    Parameters
    ----------
    step : int
        Edge of the cubes in voxels; divides every axis of the working grid.

    Returns
    -------
    shape : tuple of int
        Voxels along each axis.
    affine : ndarray, shape (4, 4)
        Voxel centres to MNI millimetres.

    Examples
    --------
    >>> coarse_grid(2)[0]
    (96, 112, 96)
    >>> coarse_grid(2)[1][:3, 3].tolist()
    [-95.5, -127.5, -83.5]
    """
    if any(n % step for n in WORKING_SHAPE):
        raise ValueError(f'{step} does not divide {WORKING_SHAPE}')
    affine = WORKING_AFFINE @ np.diag([step, step, step, 1.0])
    affine[:3, 3] = WORKING_AFFINE[:3, 3] + (step - 1) / 2
    return tuple(n // step for n in WORKING_SHAPE), affine


def halved(data: np.ndarray) -> np.ndarray:
    """Mean over cubes of 2 x 2 x 2 voxels, float32: the working grid at 2 mm.

    Examples
    --------
    >>> halved(np.arange(8).reshape(2, 2, 2)).tolist()
    [[[3.5]]]
    """
    x, y, z = (n // 2 for n in data.shape)
    blocks = data[: 2 * x, : 2 * y, : 2 * z].astype(np.float32).reshape(x, 2, y, 2, z, 2)
    return blocks.mean(axis=(1, 3, 5))
