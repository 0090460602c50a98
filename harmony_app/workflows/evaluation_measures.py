"""What is measured of one harmonized scan, and of two scans of one person.

Every image is scaled so that its white-matter peak is 1, before and after alike. What cannot be
measured is left out with a sentence that says why; nothing is NaN.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from harmony_app.errors import ScanError
from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.volume import Volume
from harmony_app.workflows.evaluation_inputs import ResultScan, ScanPair
from harmony_app.workflows.result_images import ResultImages, read_images, tissue_regions

STAGES = ('before', 'after')
"""Before and after harmonization: ``desc-preproc`` and ``desc-harmonized``."""

PAIR_METRICS = ('ssim', 'psnr', 'rmse', 'pcc', 'gm_dice', 'wm_dice')
"""Metrics of two scans of one person."""

RANGE_PERCENTILE = 99.5
"""Percentile of the first scan's brain that the range of SSIM and PSNR ends at."""

STEP = 2
"""Edge in mm of the voxels that tissues are segmented in."""

_SHARES = (np.arange(1000) + 0.5) / 1000
_Result = TypeVar('_Result')


@dataclass(frozen=True)
class ScanMeasures:
    """What was measured of one scan.

    Parameters
    ----------
    values : dict of str to float
        Columns of the table of scans.
    intensities : dict of str to ndarray, shape (4, 1000), float32
        By stage: intensities of the brain, GM, WM and CSF at evenly spaced quantiles, in units
        of the white-matter peak. Empty where the scan could not be measured.
    volumes : dict of str to dict of str to float
        By stage: volumes by tissue, ml.
    features : dict of str to dict of str to float
        By stage: radiomic features by name.
    notes : tuple of str
        What was left out, and why.
    """

    values: dict[str, float] = field(default_factory=dict)
    intensities: dict[str, np.ndarray] = field(default_factory=dict)
    volumes: dict[str, dict[str, float]] = field(default_factory=dict)
    features: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairMeasures:
    """Metrics of two scans of one person, and what was left out of them."""

    values: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A scan, its row of the table of scans, and what only the study needs of it."""

    scan: ResultScan
    row: Mapping
    volumes: Mapping[str, Mapping[str, float]]
    features: Mapping[str, Mapping[str, float]]


def contrasts_of(scans: Sequence[Measured]) -> list[str]:
    """Contrasts of some scans, in the order that they appear in."""
    return list(dict.fromkeys(measured.scan.contrast for measured in scans))


def measure_scan(root: Path, scan: ResultScan) -> ScanMeasures:
    """Measure a scan before and after harmonization.

    Parameters
    ----------
    root : Path
        Output folder of the participant level.
    scan : ResultScan

    Returns
    -------
    ScanMeasures
        Only notes where its files cannot be read.
    """
    notes: list[str] = []
    images = _attempt(notes, scan.name, lambda: _read(root, scan))
    if images is None:
        return ScanMeasures(notes=tuple(notes))
    from harmony_app.evaluation.contrast import gm_wm_auroc
    from harmony_app.evaluation.fidelity import fidelity
    from harmony_app.evaluation.radiomics import scan_features
    from harmony_app.evaluation.segmentation import segment_tissues

    values: dict[str, float] = {}
    intensities, volumes, features = {}, {}, {}
    brain, tissues = images.brain, images.tissues
    regions = _attempt(notes, scan.name, lambda: tissue_regions(images))
    for stage, volume in images.stages.items():
        data, told = volume.data, f'{scan.name} {stage}'
        if regions is not None:
            parts = [data[region] for region in regions.values()]
            intensities[stage] = np.stack([np.quantile(p, _SHARES) for p in parts]).astype('f4')
            area = _attempt(
                notes,
                f'{told}, GM-WM AUROC',
                lambda data=data: gm_wm_auroc(
                    data, regions['GM'], regions['WM'], scan.contrast != 'T1w'
                ),
            )
            _keep(values, f'gm_wm_auroc_{stage}', area)
        found = _attempt(
            notes,
            f'{told}, tissue volumes',
            lambda data=data: segment_tissues([data], brain, tissues, STEP).volumes,
        )
        if found is not None:
            volumes[stage] = found
            for tissue, volume_ml in found.items():
                _keep(values, f'{tissue.lower()}_ml_{stage}', volume_ml)
        measured = _attempt(
            notes,
            f'{told}, radiomic features',
            lambda data=data: scan_features(data, brain, tissues),
        )
        if measured is not None:
            features[stage] = measured
    if scan.lesions is not None and regions is not None:
        ratios = _attempt(
            notes, f'{scan.name}, lesions', lambda: _lesion_ratios(scan, images, regions['WM'])
        )
        values |= ratios or {}
    before, after = (images.stages[stage].data for stage in STAGES)
    kept = _attempt(notes, f'{scan.name}, fidelity', lambda: fidelity(before, after, brain))
    if kept is not None:
        _keep(values, 'edge_agreement', kept.edge_agreement)
        _keep(values, 'edges_appeared', kept.appeared)
        _keep(values, 'edges_vanished', kept.vanished)
    return ScanMeasures(values, intensities, volumes, features, tuple(notes))


def measure_pair(root: Path, pair: ScanPair, seed: int) -> PairMeasures:
    """Compare two scans of one person, before and after harmonization.

    The second is brought onto the first by a rigid transform found on the preprocessed
    scans; harmonized images take the same one.

    Parameters
    ----------
    root : Path
        Output folder of the participant level.
    pair : ScanPair
    seed : int
        Of the registration.

    Returns
    -------
    PairMeasures
        ``<metric>_before`` and ``<metric>_after`` for :data:`PAIR_METRICS`, inside the brain
        that both share. The range of SSIM and PSNR is that of the first scan of the stage; Dice is
        that of segmentations of both on the grid of the first, which share its maps.
    """
    from harmony_app.evaluation.metrics import pcc, psnr, rmse, ssim
    from harmony_app.imaging.registration import register_rigid
    from harmony_app.imaging.resample import resample

    notes: list[str] = []
    told = f'{pair.first.name} and {pair.second.name}'
    both = [_attempt(notes, told, lambda s=s: _read(root, s)) for s in (pair.first, pair.second)]
    if both[0] is None or both[1] is None:
        return PairMeasures(notes=tuple(notes))
    first, second = both
    matrix = _attempt(
        notes,
        f'{told}, registration',
        lambda: register_rigid(second.stages['before'], first.stages['before'], seed),
    )
    if matrix is None:
        return PairMeasures(notes=tuple(notes))
    grid = first.brain.shape, first.stages['before'].affine
    mask = Volume(second.brain.astype(np.float32), second.stages['before'].affine)
    shared = first.brain & (resample(mask, *grid, matrix, order=1).data > 0.5)
    values: dict[str, float] = {}
    for stage in STAGES:

        def measure(stage=stage):
            fixed = first.stages[stage].data
            moved = resample(second.stages[stage], *grid, matrix).data
            if not shared.any():
                raise ValueError('the brain masks share no voxel')
            span = float(np.percentile(fixed[shared], RANGE_PERCENTILE))
            return {
                'ssim': ssim(moved, fixed, shared, span),
                'psnr': psnr(moved, fixed, shared, span),
                'rmse': rmse(moved, fixed, shared),
                'pcc': pcc(moved, fixed, shared),
            }

        def overlap(stage=stage):
            moved = resample(second.stages[stage], *grid, matrix).data
            return _overlap([first.stages[stage].data, moved], shared, first.tissues)

        for measured in (measure, overlap):
            found = _attempt(notes, f'{told} {stage}', measured) or {}
            for name, value in found.items():
                _keep(values, f'{name}_{stage}', value)
    return PairMeasures(values, tuple(notes))


def _overlap(
    images: Sequence[np.ndarray], brain: np.ndarray, tissues: np.ndarray
) -> dict[str, float]:
    """Dice of grey and white matter in segmentations of two images of one grid."""
    from harmony_app.evaluation.overlap import dice
    from harmony_app.evaluation.segmentation import segment_tissues

    labels = [segment_tissues([image], brain, tissues, STEP).labels for image in images]
    return {
        f'{tissue.lower()}_dice': dice(*(label == index for label in labels))
        for index, tissue in enumerate(TISSUES, 1)
        if tissue != 'CSF'
    }


def site_distances(
    scans: Sequence[ResultScan], intensities: Sequence[Mapping[str, np.ndarray]], stage: str
) -> list[dict]:
    """Distance of every scan's tissues to those of the other sites, by their intensities.

    The reference of a scan is the same person at the other sites, where there is one,
    else the mean of the other sites (of the quantiles of their scans; every site weighs the same).

    Parameters
    ----------
    scans : sequence of ResultScan
    intensities : sequence of mapping
        As :class:`ScanMeasures` holds them, in the order of the scans.
    stage : str
        One of :data:`STAGES`.

    Returns
    -------
    list of dict
        For every scan ``reference`` (``partner`` or ``sites``) and a Wasserstein distance
        for each tissue, in units of the white-matter peak; empty where no other site has a scan.
    """
    from harmony_app.evaluation.distributions import tissue_wasserstein

    # One row of the quantiles is one tissue.
    rows, masks = [], {}
    for index, name in enumerate(TISSUES):
        masks[name] = np.zeros((len(TISSUES), len(_SHARES)), bool)
        masks[name][index] = True
    for scan, own in zip(scans, intensities, strict=True):
        others: dict[str, list[tuple[str, np.ndarray]]] = {}
        for other, values in zip(scans, intensities, strict=True):
            if other.contrast == scan.contrast and stage in values and other.site is not None:
                others.setdefault(other.site, []).append((other.subject, values[stage][1:]))
        others.pop(scan.site, None)
        if scan.site is None or stage not in own or not others:
            rows.append({})
            continue
        partners = [v for found in others.values() for s, v in found if s == scan.subject]
        means = [np.mean([v for _, v in found], axis=0) for found in others.values()]
        reference = np.mean(partners or means, axis=0)
        distances = tissue_wasserstein(own[stage][1:], reference, masks, masks)
        rows.append({'reference': 'partner' if partners else 'sites'} | distances)
    return rows


def _read(root: Path, scan: ResultScan) -> ResultImages:
    """Images of a scan on one grid, white-matter peak at 1.

    Raises
    ------
    ScanError
        For a file that is absent or corrupt.
    ValueError
        For several grids, or white matter that is not seen.
    """
    from harmony_app.imaging.intensity import white_matter_peak

    images = read_images(root, scan)
    stages = {
        stage: volume.with_data(
            volume.data / np.float32(white_matter_peak(volume.data, images.brain, images.tissues))
        )
        for stage, volume in images.stages.items()
    }
    return replace(images, stages=stages)


def _lesion_ratios(scan: ResultScan, images: ResultImages, white: np.ndarray) -> dict[str, float]:
    """Lesions over normal-appearing white matter at every stage."""
    from harmony_app.evaluation.contrast import lesion_ratio
    from harmony_app.workflows.lesions import normal_white_matter, read_lesions

    before = images.stages['before']
    lesions = read_lesions(scan.lesions, before.with_data(images.brain.astype(np.float32)))
    normal = normal_white_matter(white, lesions)
    return {
        f'lesion_wm_ratio_{stage}': lesion_ratio(volume.data, lesions, normal)
        for stage, volume in images.stages.items()
    }


def _attempt(notes: list[str], what: str, measure: Callable[[], _Result]) -> _Result | None:
    """The measure, or None and a note where the data do not allow it."""
    try:
        return measure()
    except (ScanError, ValueError, RuntimeError) as error:
        reason = ' '.join(str(error).split())
        notes.append(f'{what}: left out, {reason}')
        return None


def _keep(values: dict[str, float], name: str, value: float | None) -> None:
    """Keep a number; equal images have no PSNR, constant ones no correlation."""
    if value is not None and np.isfinite(value):
        values[name] = float(value)
