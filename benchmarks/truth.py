"""What the phantom knows of a scan: its noise-free image at every site, tissues and lesions."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from harmony_app.bids.discovery import ScanInput
from harmony_app.errors import InputError
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.io import read_scan
from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS, Scan

LIKELY = 0.5
"""Share of a voxel from which on it belongs to a tissue: to one at most."""

SURE = 0.9
"""Share of white matter in a voxel that lesions are compared with."""

FEWEST_LESION_VOXELS = 500
"""Cubic millimetres of lesions that a ratio is taken of: half a millilitre."""


def truth_of(bids: Path, scan: ScanInput, session: str) -> Volume:
    """Noise-free scan of a source by the protocol of another session's site, RAS."""
    stem = f'sub-{scan.subject}_ses-{scan.session}'
    return read_scan(_folder(bids, scan) / f'{stem}_desc-{session}_{scan.contrast}.nii.gz').volume


def map_of(bids: Path, scan: ScanInput, name: str, contrast: str | None = None) -> Volume:
    """A true mask or tissue map (``desc-brain_mask``, ``label-GM_probseg``), RAS, 0 to 1.

    It lies on the grid of the source, or of another contrast of its session.
    """
    image = nib.as_closest_canonical(nib.load(_map_path(bids, scan, name, contrast)))
    return Volume(np.asarray(image.dataobj, dtype=np.float32), image.affine)


class TrueAnatomy:
    """The true brain, tissues and lesions of a scan.

    Where the phantom wrote tissue maps with another contrast of the session only, the position
    of the head in both scans, which it tells, brings them to this one.

    Parameters
    ----------
    bids : Path
        Dataset that ``harmony-phantom`` wrote.
    source : ScanInput
        The scan.
    scan : Scan
        The same, preprocessed.

    Attributes
    ----------
    brain : dict of str to ndarray, bool
        On the grids ``native`` and ``mni``.
    tissues : dict of str to ndarray, bool
        GM, WM (without lesions) and CSF on the working grid; they share no voxel.
    lesion, normal_white_matter : ndarray, bool
        On the working grid; lesion is empty where there are too few to measure.
    labels : ndarray, uint8
        0 background, 1 GM, 2 WM with its lesions, 3 CSF, on the working grid, inside the brain
        mask of preprocessing: what a mask takes for brain is no matter of harmonization.
    """

    def __init__(self, bids: Path, source: ScanInput, scan: Scan):
        brain = map_of(bids, source, 'desc-brain_mask')
        to_working = scan.native_to_working
        inside = _on_working_grid(brain, to_working) > LIKELY
        self.brain = {'native': brain.data > LIKELY, 'mni': inside}
        lesion = _on_working_grid(map_of(bids, source, 'label-L_mask'), to_working) > LIKELY
        lesion &= inside
        carrier = _carrier(bids, source)
        moved = to_working @ position_of(bids, source, source.contrast)
        moved = moved @ np.linalg.inv(position_of(bids, source, carrier))
        maps = [
            _on_working_grid(map_of(bids, source, f'label-{name}_probseg', carrier), moved)
            for name in TISSUES
        ]
        self.tissues = {
            name: (data > LIKELY) & inside & ~lesion
            for name, data in zip(TISSUES, maps, strict=True)
        }
        self.normal_white_matter = (maps[1] > SURE) & inside & ~lesion
        self.labels = np.where(inside & scan.brain, np.argmax(maps, axis=0) + 1, 0).astype(np.uint8)
        self.labels[lesion & scan.brain] = 1 + TISSUES.index('WM')
        few = np.count_nonzero(lesion) < FEWEST_LESION_VOXELS
        self.lesion = np.zeros_like(lesion) if few else lesion


def _on_working_grid(volume: Volume, transform: np.ndarray) -> np.ndarray:
    return resample(volume, WORKING_SHAPE, WORKING_AFFINE, transform, order=1).data


def _carrier(bids: Path, scan: ScanInput) -> str:
    """Contrast whose grid the tissue maps of a session are written on."""
    for contrast in (scan.contrast, *CONTRASTS):
        if _map_path(bids, scan, 'label-GM_probseg', contrast).exists():
            return contrast
    raise InputError(f'{_folder(bids, scan)} holds no tissue maps: simulate the dataset again')


def position_of(bids: Path, scan: ScanInput, contrast: str) -> np.ndarray:
    """Millimetres of the head to those of the scanner, shape (4, 4)."""
    path = _map_path(bids, scan, 'desc-brain_mask', contrast)
    sidecar = path.with_name(path.name.removesuffix('.nii.gz') + '.json')
    return np.array(json.loads(sidecar.read_text(encoding='utf-8'))['HeadToScanner'])


def _map_path(bids: Path, scan: ScanInput, name: str, contrast: str | None) -> Path:
    stem = f'sub-{scan.subject}_ses-{scan.session}_space-{contrast or scan.contrast}'
    return _folder(bids, scan) / f'{stem}_{name}.nii.gz'


def _folder(bids: Path, scan: ScanInput) -> Path:
    return bids / 'derivatives' / 'phantom' / f'sub-{scan.subject}' / f'ses-{scan.session}' / 'anat'
