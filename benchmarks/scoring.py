"""Scores of a scan against the noise-free scan of the same head by the target's protocol."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.truth import TrueAnatomy, truth_of
from harmony_app.bids.discovery import ScanInput
from harmony_app.errors import HarmonyError
from harmony_app.evaluation.contrast import gm_wm_auroc, lesion_ratio
from harmony_app.evaluation.distributions import tissue_divergence, tissue_wasserstein
from harmony_app.evaluation.fidelity import Structure
from harmony_app.evaluation.metrics import pcc, psnr, rmse, ssim
from harmony_app.evaluation.regions import bounding_box
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.intensity import white_matter_peak
from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.resample import resample
from harmony_app.methods.base import Scan

GRIDS = ('native', 'mni')
MARGIN = 18
"""Voxels beside the brain that a score may depend on: what is farther away changes nothing."""

SPAN = 1.5
"""End of the histograms, in units of the truth's range."""

FALLING = (
    'rmse',
    'lesion_error',
    'edges_appeared',
    'edges_vanished',
    *(
        f'{name}_{tissue}'
        for name in ('wasserstein', 'kl', 'volume_error', 'volume_cv', 'between_sites')
        for tissue in TISSUES
    ),
)
"""Metrics that are better where they are smaller."""

Scores = dict[tuple[str, str], float]
"""Scores by grid and metric."""


class Reference:
    """A truth on the native and the working grid, white-matter peak at 1.

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
    anatomy : TrueAnatomy
        Of the source.
    """

    def __init__(
        self, bids: Path, source: ScanInput, scan: Scan, session: str, anatomy: TrueAnatomy
    ):
        native = truth_of(bids, source, session)
        working = resample(native, WORKING_SHAPE, WORKING_AFFINE, scan.native_to_working)
        peak = np.float32(white_matter_peak(working.data, scan.brain, scan.tissues))
        self.name, self.contrast, self.anatomy = scan.name, scan.contrast, anatomy
        self.images = {'native': native.data / peak, 'mni': working.data / peak}
        self.boxes = {grid: bounding_box(anatomy.brain[grid], MARGIN) for grid in GRIDS}
        inside = self.images['mni'][anatomy.brain['mni']]
        self.data_range = float(np.percentile(inside, 99.5))

    def score(self, native: np.ndarray, working: np.ndarray, notes: list[str]) -> Scores:
        """How near an image is to the truth inside the true brain.

        Parameters
        ----------
        native, working : ndarray
            The image on both grids, white-matter peak at 1.
        notes : list of str
            Gets a sentence for what cannot be measured.

        Returns
        -------
        dict
            On both grids SSIM, PSNR (dB), RMSE (white-matter peak 1) and Pearson correlation; on
            the working grid GM-WM AUROC, Wasserstein and Kullback-Leibler distance to the truth of
            each true tissue, and the error of the ratio of lesions to white matter, percent.
        """
        scores: Scores = {}
        for grid, volume in zip(GRIDS, (native, working), strict=True):
            box = self.boxes[grid]
            mask = self.anatomy.brain[grid][box]
            image, truth = volume[box], self.images[grid][box]
            measures: dict[str, Callable[[], float | dict]] = {
                'ssim': lambda i=image, t=truth, m=mask: ssim(i, t, m, self.data_range),
                'psnr': lambda i=image, t=truth, m=mask: psnr(i, t, m, self.data_range),
                'rmse': lambda i=image, t=truth, m=mask: rmse(i, t, m),
                'pcc': lambda i=image, t=truth, m=mask: pcc(i, t, m),
            }
            if grid == 'mni':
                measures |= self._by_tissue(image, truth, box)
            for name, measure in measures.items():
                found = attempt(notes, f'{self.name}, {name}', measure)
                values = found if isinstance(found, dict) else {'': found}
                for tissue, value in values.items():
                    if value is not None and np.isfinite(value):
                        scores[grid, f'{name}_{tissue}'.rstrip('_')] = float(value)
        return scores

    def limit(self, scan: Scan, own: 'Reference') -> dict[str, np.ndarray]:
        """This truth with the noise of the source: what a perfect change of contrast gives.

        Parameters
        ----------
        scan : Scan
            The source.
        own : Reference
            Its truth at its own site.
        """
        images = {'native': scan.native.data, 'mni': scan.working.data}
        return {
            grid: np.maximum(self.images[grid] + (image - own.images[grid]), 0)
            for grid, image in images.items()
        }

    def _by_tissue(self, image, truth, box) -> dict[str, Callable[[], float | dict]]:
        anatomy = self.anatomy
        tissues = {name: mask[box] for name, mask in anatomy.tissues.items()}
        lesion, white = anatomy.lesion[box], anatomy.normal_white_matter[box]
        interval = (0.0, SPAN * self.data_range)

        def lesion_error():
            true = lesion_ratio(truth, lesion, white)
            return 100 * abs(lesion_ratio(image, lesion, white) / true - 1)

        measures: dict[str, Callable[[], float | dict]] = {
            'gm_wm_auroc': lambda: gm_wm_auroc(
                image, tissues['GM'], tissues['WM'], self.contrast != 'T1w'
            ),
            'wasserstein': lambda: tissue_wasserstein(image, truth, tissues, tissues),
            'kl': lambda: tissue_divergence(image, truth, tissues, tissues, interval),
        }
        if lesion.any():
            measures['lesion_error'] = lesion_error
        return measures


class Kept:
    """The edges of a scan on the working grid, and what images of it keep of them."""

    def __init__(self, scan: Scan, anatomy: TrueAnatomy):
        brain = anatomy.brain['mni']
        self.name, self.box = scan.name, bounding_box(brain, MARGIN)
        self.structure = Structure(scan.working.data[self.box], brain[self.box])

    def score(self, working: np.ndarray, notes: list[str]) -> Scores:
        """Agreement of the edges with those of the scan, and shares that appeared and vanished."""
        found = attempt(
            notes, f'{self.name}, fidelity', lambda: self.structure.kept_in(working[self.box])
        )
        if found is None:
            return {}
        return {
            ('mni', 'edge_agreement'): found.edge_agreement,
            ('mni', 'edges_appeared'): found.appeared,
            ('mni', 'edges_vanished'): found.vanished,
        }


def attempt(notes: list[str], what: str, measure: Callable[[], object]):
    """The measure, or None and a note where the data or the method do not allow it."""
    try:
        return measure()
    except (HarmonyError, ValueError) as error:
        notes.append(f'{what}: left out, {" ".join(str(error).split())}')
        return None
