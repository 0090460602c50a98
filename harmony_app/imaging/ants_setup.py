"""One place where ANTs is imported, so that each run gives the same voxels."""

import os
from types import ModuleType

SEED = 20231
"""Default seed of ITK's samplers."""


def import_ants(seed: int = SEED) -> ModuleType:
    """Import ANTs with one ITK thread and a fixed seed.

    ITK adds floating-point numbers in the order in which its threads end, so more than
    one thread would give other voxels in each run; harmony-app runs scans in parallel
    instead. ITK reads the variables when the first filter runs.

    Parameters
    ----------
    seed : int, optional
        Seed of the metric's samplers.
    """
    os.environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = '1'
    os.environ['ANTS_RANDOM_SEED'] = str(seed)
    os.environ.setdefault('NO_ET', '1')
    import ants

    return ants


def to_ants(data, affine, seed: int = SEED):
    """ANTs image of an array on any grid (RAS mm in, ITK's LPS mm inside)."""
    import numpy as np

    ants = import_ants(seed)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=tuple(lps[:3, 3].tolist()),
        spacing=tuple(spacing.tolist()),
        direction=lps[:3, :3] / spacing,
    )
