"""Scores of a scan against the noise-free scan of the same head by the target's protocol."""

from pathlib import Path

import nibabel as nib
import numpy as np

from harmony_app.bids.discovery import ScanInput
from harmony_app.evaluation.metrics import pcc, psnr, rmse, ssim
from harmony_app.evaluation.regions import bounding_box
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.intensity import white_matter_peak
from harmony_app.imaging.io import read_scan
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan

GRIDS = ('native', 'mni')
MARGIN = 8
FALLING = ('rmse', 'wasserstein')
"""Metrics that are better where they are smaller."""


def truth_of(bids: Path, scan: ScanInput, session: str) -> Volume:
    """Noise-free scan of a source by the protocol of another session's site, RAS."""
    stem = f'sub-{scan.subject}_ses-{scan.session}'
    return read_scan(_folder(bids, scan) / f'{stem}_desc-{session}_{scan.contrast}.nii.gz').volume


def map_of(bids: Path, scan: ScanInput, name: str) -> np.ndarray:
    """A true mask or tissue map (``desc-brain_mask``, ``label-GM_probseg``) on the source's grid, RAS."""
    stem = f'sub-{scan.subject}_ses-{scan.session}_space-{scan.contrast}_{name}.nii.gz'
    image = nib.as_closest_canonical(nib.load(_folder(bids, scan) / stem))
    return np.asarray(image.dataobj, dtype=np.float32)


class Reference:
    """A truth on the native and the working grid, white-matter peak at 1, and the true brain.

    Parameters
    ----------
    bids : Path
        Dataset that ``harmony-phantom`` wrote.
    source : ScanInput
        Scan that is to look as if made at the target.
    scan : Scan
        The same, preprocessed.
    session : str
        Session of the target's site.
    """

    def __init__(self, bids: Path, source: ScanInput, scan: Scan, session: str):
        native = truth_of(bids, source, session)
        working = resample(native, WORKING_SHAPE, WORKING_AFFINE, scan.native_to_working)
        peak = np.float32(white_matter_peak(working.data, scan.brain, scan.tissues))
        brain = map_of(bids, source, 'desc-brain_mask') > 0
        mask = resample(
            Volume(brain.astype(np.float32), native.affine),
            WORKING_SHAPE,
            WORKING_AFFINE,
            scan.native_to_working,
            order=1,
        )
        self.images = {'native': native.data / peak, 'mni': working.data / peak}
        self.masks = {'native': brain, 'mni': mask.data > 0.5}
        inside = self.images['mni'][self.masks['mni']]
        self.data_range = float(np.percentile(inside, 99.5))

    def score(self, volume: np.ndarray, grid: str) -> dict[str, float]:
        """SSIM, PSNR (dB), RMSE (white-matter peak 1) and Pearson correlation inside the brain."""
        mask = self.masks[grid]
        # what is far from the brain changes nothing inside it
        box = bounding_box(mask, MARGIN)
        image, truth, mask = volume[box], self.images[grid][box], mask[box]
        return {
            'ssim': ssim(image, truth, mask, self.data_range),
            'psnr': psnr(image, truth, mask, self.data_range),
            'rmse': rmse(image, truth, mask),
            'pcc': pcc(image, truth, mask),
        }


def _folder(bids: Path, scan: ScanInput) -> Path:
    return bids / 'derivatives' / 'phantom' / f'sub-{scan.subject}' / f'ses-{scan.session}' / 'anat'
