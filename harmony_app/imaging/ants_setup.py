"""One place where ANTs is imported, so that each run gives the same voxels."""

import os
from types import ModuleType

import numpy as np

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

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
    ants = import_ants(seed)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=tuple(lps[:3, 3].tolist()),
        spacing=tuple(spacing.tolist()),
        direction=lps[:3, :3] / spacing,
    )


def run_registration(fixed, moving, initial: np.ndarray, **options) -> dict:
    """``ants.registration`` that begins at an affine and leaves no file of that behind.

    Parameters
    ----------
    fixed, moving : ANTsImage
    initial : ndarray, shape (4, 4)
        RAS mm of the fixed image to those of the moving one.
    **options
        Of ``ants.registration``.

    Returns
    -------
    dict
        As ANTs gives it; the caller removes its files.
    """
    ants = import_ants(options.get('random_seed', SEED))
    start = write_affine(ants, initial)
    try:
        return ants.registration(fixed=fixed, moving=moving, initial_transform=start, **options)
    finally:
        remove_files([start])


def write_affine(ants, matrix: np.ndarray):
    """File of an ITK affine from a RAS matrix (fixed mm to moving mm)."""
    import tempfile

    lps = LPS @ matrix @ LPS
    transform = ants.create_ants_transform(
        transform_type='AffineTransform',
        dimension=3,
        matrix=lps[:3, :3],
        translation=lps[:3, 3],
        precision='double',
    )
    with tempfile.NamedTemporaryFile(suffix='.mat', delete=False) as file:
        name = file.name
    ants.write_transform(transform, name)
    return name


def read_affine(ants, names: list[str]) -> np.ndarray:
    """RAS matrix (fixed mm to moving mm) of a chain of ITK affines."""
    matrix = np.eye(4)
    for name in names:
        transform = ants.read_transform(name)
        values, centre = np.array(transform.parameters), np.array(transform.fixed_parameters)
        step = np.eye(4)
        step[:3, :3] = values[:9].reshape(3, 3)
        step[:3, 3] = values[9:] + centre - step[:3, :3] @ centre
        matrix = matrix @ step
    remove_files(names)
    return LPS @ matrix @ LPS


def remove_files(names: list[str]) -> None:
    """Delete the files that ANTs left in the temporary folder."""
    from pathlib import Path

    for name in set(names):
        Path(name).unlink(missing_ok=True)
