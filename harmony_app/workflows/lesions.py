"""Lesion masks that the results or a derivative dataset hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harmony_app.bids.derivatives import derivative_path
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.volume import Volume
from harmony_app.workflows.evaluation_inputs import ResultScan

LABELS = ('lesion', 'WMH', 'L')
"""Labels of lesion masks; BIDS itself abbreviates lesion as L."""

MARGIN = 2
"""Voxels of 1 mm around lesions that are no normal-appearing white matter."""


@dataclass(frozen=True)
class LesionMask:
    """A lesion mask of a session.

    Parameters
    ----------
    path : Path
        Mask on the template's grid, or on that of a scan of the session.
    transform : Path or None
        ITK text transform of that scan to the template; None for a mask on the template's grid.
    """

    path: Path
    transform: Path | None = None


def find_lesions(scans: Sequence[ResultScan], roots: Sequence[Path]) -> list[ResultScan]:
    """Give every scan the lesion mask of its session, where there is one.

    Taken are ``label-lesion_mask``, ``label-WMH_mask`` and ``label-L_mask``: on the template's
    grid (``space-MNI152NLin2009aSym_res-1``), else on that of a scan of the session, with the
    entities of the scan and no ``space``, or one that names its contrast (``space-T1w``).

    Parameters
    ----------
    scans : sequence of ResultScan
    roots : sequence of Path
        The results and derivative datasets; an earlier one wins. The transforms of the scans
        are those of the first.

    Returns
    -------
    list of ResultScan
        In the order of the scans.
    """
    found: dict[str, LesionMask] = {}
    for scan in scans:
        if scan.visit not in found:
            for mask in _candidates(scan, roots):
                files = (mask.path, mask.transform) if mask.transform else (mask.path,)
                if all(file.is_file() for file in files):
                    found[scan.visit] = mask
                    break
    return [replace(scan, lesions=found.get(scan.visit)) for scan in scans]


def read_lesions(mask: LesionMask, brain: Volume) -> np.ndarray:
    """Lesions on the template's grid.

    Parameters
    ----------
    mask : LesionMask
    brain : Volume
        Brain mask on that grid.

    Returns
    -------
    ndarray, shape of the grid, bool
        Inside the brain.

    Raises
    ------
    ScanError
        For a file that is absent, corrupt or empty.
    ValueError
        Where a mask on the template's grid has another shape, or no lesion lies in the brain.
    """
    from harmony_app.bids.transforms import read_itk_affine
    from harmony_app.imaging.io import read_scan
    from harmony_app.imaging.resample import resample

    volume = read_scan(mask.path).volume
    if mask.transform is not None:
        matrix = read_itk_affine(mask.transform)
        volume = volume.with_data((volume.data > 0.5).astype(np.float32))
        volume = resample(volume, brain.shape, brain.affine, matrix, order=1)
    elif volume.shape != brain.shape:
        raise ValueError(f'{mask.path.name} has the shape {volume.shape}, not {brain.shape}')
    lesions = (volume.data > 0.5) & (brain.data > 0.5)
    if not lesions.any():
        raise ValueError(f'{mask.path.name} shows no lesion inside the brain')
    return lesions


def normal_white_matter(white: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """White matter that lies at least :data:`MARGIN` voxels beside lesions.

    Parameters
    ----------
    white, lesions : ndarray, shape (X, Y, Z), bool

    Examples
    --------
    >>> white, lesions = np.ones((1, 1, 6), bool), np.zeros((1, 1, 6), bool)
    >>> lesions[0, 0, 0] = True
    >>> normal_white_matter(white, lesions)[0, 0].tolist()
    [False, False, False, True, True, True]
    """
    from scipy.ndimage import binary_dilation

    return white & ~binary_dilation(lesions, iterations=MARGIN)


def _candidates(scan: ResultScan, roots: Sequence[Path]) -> Iterable[LesionMask]:
    own = dict(scan.entities)
    session = {key: label for key, label in own.items() if key in ('sub', 'ses')}
    way = {'from_': scan.contrast, 'to': SPACE, 'mode': 'image'}
    transform = derivative_path(roots[0], own, 'xfm', '.txt', **way)
    for root in roots:
        for label in LABELS:
            for end in ('.nii.gz', '.nii'):
                named = {'label': label, 'space': SPACE, 'res': '1'}
                yield LesionMask(derivative_path(root, session, 'mask', end, **named))
                for space in (None, scan.contrast):
                    path = derivative_path(root, own, 'mask', end, label=label, space=space)
                    yield LesionMask(path, transform)
