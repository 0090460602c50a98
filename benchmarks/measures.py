"""What is measured of one scan, harmonized to the reference site or not, on the working grid."""

from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.scoring import attempt
from benchmarks.truth import TrueAnatomy
from harmony_app.evaluation.overlap import LABELS, tissue_overlap
from harmony_app.evaluation.radiomics import scan_features
from harmony_app.evaluation.segmentation import segment_tissues
from harmony_app.evaluation.segmentation_network import Segmenter
from harmony_app.imaging.profile import TISSUES
from harmony_app.methods.base import Method, Scan

STEP = 2
"""Edge in mm of the voxels that tissues are segmented in."""

SHARES = (np.arange(1000) + 0.5) / 1000
"""Quantiles that stand for the intensities of a tissue."""


@dataclass
class Measures:
    """Measures of one image.

    Parameters
    ----------
    values : dict of str to float
        ``ml_GM`` (volume), ``dice_GM``, ``jaccard_GM``, ``volume_error_GM`` (percent of the
        true volume, without sign), ``network_dice_GM`` (of the network that knows the
        reference site), and so for every tissue.
    features : dict of str to float
        Radiomic features, and ``theta_1`` ... of HACA3's encoder.
    quantiles : ndarray, shape (3, 1000), float32, or None
        Intensities of the true GM, WM and CSF at evenly spaced quantiles.
    """

    values: dict[str, float] = field(default_factory=dict)
    features: dict[str, float] = field(default_factory=dict)
    quantiles: np.ndarray | None = None


def measure(
    image: np.ndarray,
    scan: Scan,
    anatomy: TrueAnatomy,
    told: str,
    notes: list[str],
    encoder: Method | None = None,
    segment: bool = False,
    network: Segmenter | None = None,
) -> Measures:
    """Measure one image of a scan on the working grid.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z), float32
        White-matter peak at 1.
    scan : Scan
        Whose brain mask and maps are used.
    anatomy : TrueAnatomy
        What is true of it.
    told : str
        Name of the image for notes.
    notes : list of str
        Gets a sentence for what cannot be measured.
    encoder : Method, optional
        HACA3, whose theta is taken.
    segment : bool
        Whether tissues are segmented.
    network : Segmenter, optional
        A network that knows the reference site.
    """
    found = Measures()
    if segment:
        result = attempt(
            notes,
            f'{told}, tissue volumes',
            lambda: segment_tissues([image], scan.brain, scan.tissues, STEP),
        )
        if result is not None:
            found.values |= {f'ml_{name}': ml for name, ml in result.volumes.items()}
            found.values |= _agreement(result.labels, anatomy.labels)
    if network is not None:
        overlap = attempt(
            notes,
            f'{told}, segmentation network',
            lambda: tissue_overlap(network.predict(image, scan.brain), anatomy.labels),
        )
        found.values |= {f'network_dice_{name}': o.dice for name, o in (overlap or {}).items()}
    features = attempt(
        notes,
        f'{told}, radiomic features',
        lambda: scan_features(image, scan.brain, scan.tissues),
    )
    found.features |= features or {}
    if encoder is not None:
        shown = replace(scan, working=scan.working.with_data(image))
        style = attempt(notes, f'{told}, theta', lambda: encoder.encode_target([shown], told))
        encoder.forget()
        theta = style.theta if style is not None else ()
        found.features |= {f'theta_{i}': value for i, value in enumerate(theta, 1)}
    masks = [anatomy.tissues[name] for name in TISSUES]
    if all(mask.any() for mask in masks):
        rows = [np.quantile(image[mask], SHARES) for mask in masks]
        found.quantiles = np.stack(rows).astype(np.float32)
    return found


def true_volumes(anatomy: TrueAnatomy) -> dict[str, float]:
    """Volumes of the true labels, ml."""
    counts = np.bincount(anatomy.labels.ravel(), minlength=4)
    return {f'true_ml_{name}': float(counts[label]) / 1000 for name, label in LABELS.items()}


def _agreement(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    values = {}
    for name, overlap in tissue_overlap(labels, truth).items():
        values[f'dice_{name}'] = overlap.dice
        values[f'jaccard_{name}'] = overlap.jaccard
        values[f'volume_error_{name}'] = overlap.absolute_volume_difference
    return values
