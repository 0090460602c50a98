"""Preprocessing of a session: ours, and ANTs with its default settings, time and accuracy.

Others correct the bias field by N4, put the T1w scan on a whole-head template rigidly, the other
contrasts on the T1w scan rigidly, and carry the template's brain mask over by SyN (``antspyx``,
defaults everywhere). Their template is the ICBM head that the phantom makes, T1w at 1 mm: a
whole head, as theirs is, where ours gets along with the brain alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from benchmarks.truth import map_of, position_of, truth_of
from harmony_app.bids.discovery import ScanInput, discover
from harmony_app.bids.filters import Selection
from harmony_app.evaluation.cost import Cost, measure_cost
from harmony_app.evaluation.overlap import dice
from harmony_app.imaging.ants_setup import import_ants, read_affine, remove_files, to_ants
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.io import read_scan
from harmony_app.imaging.resample import resample
from harmony_app.imaging.template import load_template
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan
from harmony_app.phantom.acquisition import bias_field
from harmony_app.workflows.harmonizing import load_scans
from harmony_app.workflows.steps import align_session, finish_scan, prepare_scan

FIELD_BLUR = 8.0
"""Millimetres by which the true field is smoothed: the noise of the scan is in it."""

PLANTED = 0.4
"""Largest deviation from the mean of a planted field within the brain."""

REACH = 5.0
"""Millimetres from grey and white matter within which fluid counts as brain: masks differ in how much
of it they take, and the truth holds all of it, down to the neck."""

SULCUS = 6.0
"""Millimetres of the closing that fills sulci: grey and white matter closed is the brain of most masks."""


@dataclass(frozen=True)
class Result:
    """What preprocessing says of a session.

    Parameters
    ----------
    fields : dict of str to ndarray
        Bias field of each contrast on its own grid, in any unit.
    to_reference : dict of str to ndarray, shape (4, 4)
        Millimetres of each contrast to those of the T1w scan.
    brain : ndarray, bool
        Brain on the grid of the T1w scan.
    """

    fields: dict[str, np.ndarray]
    to_reference: dict[str, np.ndarray]
    brain: np.ndarray


def session_of(bids: Path) -> dict[str, ScanInput]:
    """The first session of a dataset, by contrast."""
    scans = next(iter(discover(bids, Selection()).sessions.values()))
    return {scan.contrast: scan for scan in scans}


def spent_in(cost: Cost) -> dict[str, float]:
    """Columns of a cost."""
    return {
        'wall_s': cost.wall_seconds,
        'cpu_s': cost.cpu_seconds,
        'memory_gb': cost.peak_memory / 1e9,
    }


def load_records(folder: Path, contrasts: Sequence[str]) -> list[Scan]:
    """Scans as :func:`run_ours` left them."""
    prepared, finished = (
        [folder / f'{contrast}_{step}.npz' for contrast in contrasts]
        for step in ('prepared', 'finished')
    )
    return load_scans(prepared, finished, [folder / 'aligned.npz'] * len(prepared))


def preprocessing_rows(bids: Path, out: Path) -> list[dict]:
    """Cost and accuracy of both ways.

    Parameters
    ----------
    bids : Path
        Phantom dataset; its first session has a T1w scan.
    out : Path
        Gets the records of our way, and ``template.npz``.
    """
    scans = session_of(bids)
    records, found = out / 'records', out / 'ants.npz'
    head = whole_head()
    rows = []
    ways = {
        'harmony-app': (run_ours, (records, scans)),
        'ANTs, default settings': (run_ants, (found, scans, head)),
    }
    for who, (call, arguments) in ways.items():
        cost = measure_cost(call, *arguments)
        result = read_ours(records, scans) if call is run_ours else read_ants(found, scans)
        spent = spent_in(cost)
        for measure, value in accuracy(bids, scans, result).items():
            rows.append({'who': who} | spent | {'measure': measure, 'value': value})
    return rows


def field_rows(bids: Path, out: Path) -> list[dict]:
    """How well a field that is as strong as at 7 T or near a surface coil is found.

    The scans of the phantom's usual sites have fields of 2 %, of which a correlation says little. Each scan
    is multiplied by another of :data:`PLANTED` at most, and corrected by both ways.

    Parameters
    ----------
    bids : Path
        Phantom dataset.
    out : Path
        Gets the scans with the planted field and the records of our way.
    """
    generator = torch.Generator().manual_seed(5)
    scans, planted = {}, out / 'planted'
    planted.mkdir(parents=True, exist_ok=True)
    for contrast, scan in session_of(bids).items():
        image = nib.as_closest_canonical(nib.load(scan.path))
        inside = torch.from_numpy(map_of(bids, scan, 'desc-brain_mask').data > 0.5)
        field = bias_field(image.shape, image.affine, 'array', PLANTED, generator, inside)[0]
        path = planted / scan.path.name
        data = np.asarray(image.dataobj, np.float32) * field.numpy()
        nib.save(nib.Nifti1Image(data, image.affine), path)
        scans[contrast] = replace(scan, path=path)
    rows = []
    ways = {
        'harmony-app': (run_ours, out / 'records-planted'),
        'N4, default settings': (run_n4, out / 'n4.npz'),
    }
    for who, (call, place) in ways.items():
        cost = measure_cost(call, place, scans)
        fields = read_ours(place, scans).fields if call is run_ours else dict(np.load(place))
        spent = spent_in(cost)
        for contrast, scan in scans.items():
            value = _field_correlation(bids, scan, fields[contrast])
            rows.append(
                {'who': who} | spent | {'measure': f'planted_field_r_{contrast}', 'value': value}
            )
    return rows


def run_n4(out: Path, scans: Mapping[str, ScanInput]) -> None:
    """N4 alone, as ANTs calls it by default."""
    ants = import_ants()
    found = {}
    for contrast, scan in scans.items():
        volume = read_scan(scan.path).volume
        corrected = ants.n4_bias_field_correction(to_ants(volume.data, volume.affine))
        found[contrast] = _ratio(volume.data, corrected.numpy())
    np.savez(out, **found)


def run_ours(out: Path, scans: Mapping[str, ScanInput]) -> None:
    """The steps of the participant level one after the other, without super-resolution."""
    out.mkdir(parents=True, exist_ok=True)
    prepared = [out / f'{contrast}_prepared.npz' for contrast in scans]
    for path, scan in zip(prepared, scans.values(), strict=True):
        prepare_scan(path, scan.path, scan.name, scan.contrast, scan.volume, super_resolution='off')
    align_session(out / 'aligned.npz', prepared)
    for path in prepared:
        finish_scan(
            path.with_name(path.name.replace('prepared', 'finished')), path, out / 'aligned.npz'
        )


def read_ours(out: Path, scans: Mapping[str, ScanInput]) -> Result:
    """What our way found."""
    by_contrast = {scan.contrast: scan for scan in load_records(out, list(scans))}
    first = by_contrast['T1w']
    back = np.linalg.inv(first.native_to_working)
    brain = Volume(first.brain.astype(np.float32), WORKING_AFFINE)
    shape, affine = first.native.shape, first.native.affine
    return Result(
        {
            contrast: _ratio(read_scan(scans[contrast].path).volume.data, scan.native.data)
            for contrast, scan in by_contrast.items()
        },
        {contrast: back @ scan.native_to_working for contrast, scan in by_contrast.items()},
        resample(brain, shape, affine, back, order=1).data > 0.5,
    )


def run_ants(out: Path, scans: Mapping[str, ScanInput], head: np.ndarray) -> None:
    """The same by calls of ANTs with their defaults; what is found goes to an ``.npz``."""
    ants = import_ants()
    template = to_ants(head, WORKING_AFFINE)
    mask = to_ants(load_template().brain, WORKING_AFFINE)
    found, images = {}, {}
    for contrast, scan in scans.items():
        volume = read_scan(scan.path).volume
        raw = to_ants(volume.data, volume.affine)
        images[contrast] = ants.n4_bias_field_correction(raw)
        found[f'field_{contrast}'] = _ratio(volume.data, images[contrast].numpy())
    first = images['T1w']
    rigid = ants.registration(fixed=template, moving=first, type_of_transform='Rigid')
    for contrast, image in images.items():
        chain = rigid['fwdtransforms']
        if contrast != 'T1w':
            pair = ants.registration(fixed=first, moving=image, type_of_transform='Rigid')
            chain = [*chain, *pair['fwdtransforms']]
        moved = ants.apply_transforms(template, image, chain, interpolator='bSpline')
        found[f'moved_{contrast}'] = moved.numpy()
        if contrast != 'T1w':
            found[f'matrix_{contrast}'] = read_affine(ants, pair['fwdtransforms'])
    warped = ants.registration(fixed=template, moving=first, type_of_transform='SyN')
    brain = ants.apply_transforms(first, mask, warped['invtransforms'], whichtoinvert=[True, False])
    found['brain'] = brain.numpy() > 0.5
    remove_files([*rigid['fwdtransforms'], *warped['fwdtransforms'], *warped['invtransforms']])
    np.savez(out, **found)


def read_ants(path: Path, scans: Mapping[str, ScanInput]) -> Result:
    """What ANTs found."""
    with np.load(path) as found:
        return Result(
            {contrast: found[f'field_{contrast}'] for contrast in scans},
            {
                # ANTs takes points of the fixed scan to the moving one
                contrast: np.linalg.inv(found[f'matrix_{contrast}'])
                for contrast in scans
                if contrast != 'T1w'
            },
            found['brain'],
        )


def whole_head() -> np.ndarray:
    """The ICBM head of the phantom as a T1w scan without noise, on the working grid."""
    from harmony_app.phantom.anatomy import icbm_anatomy
    from harmony_app.phantom.sites import load_sites
    from harmony_app.training.slices import draw_look

    protocol = load_sites()['siteA'].protocols['T1w']
    look = draw_look('T1w', np.random.default_rng(0), 0, protocol)
    return look.render(icbm_anatomy().fractions).astype(np.float32)


def accuracy(bids: Path, scans: Mapping[str, ScanInput], result: Result) -> dict[str, float]:
    """Target registration error, agreement of the brain mask, correlation of the bias field.

    Returns
    -------
    dict
        ``tre_mm_<contrast>``, mean over the brain; ``brain_dice`` with the true grey and white matter,
        sulci and ventricles filled; ``fluid_dice`` with all brain and fluid within :data:`REACH` of
        them; ``tissue_held``, their share in the mask; ``field_r_<contrast>`` in the brain.
    """
    scores = {}
    first = scans['T1w']
    brain = map_of(bids, first, 'desc-brain_mask')
    points = np.argwhere(brain.data > 0.5)[::500] @ brain.affine[:3, :3].T + brain.affine[:3, 3]
    for contrast, scan in scans.items():
        if contrast == 'T1w':
            continue
        true = position_of(bids, first, 'T1w') @ np.linalg.inv(position_of(bids, scan, contrast))
        back = np.linalg.inv(true)
        source = points @ back[:3, :3].T + back[:3, 3]
        matrix = result.to_reference[contrast]
        moved = source @ matrix[:3, :3].T + matrix[:3, 3]
        scores[f'tre_mm_{contrast}'] = float(np.linalg.norm(moved - points, axis=1).mean())
    scores |= _mask_scores(bids, first, result.brain)
    for contrast, scan in scans.items():
        scores[f'field_r_{contrast}'] = _field_correlation(bids, scan, result.fields[contrast])
    return scores


def _mask_scores(bids: Path, scan: ScanInput, mask: np.ndarray) -> dict[str, float]:
    """How well a brain mask on the grid of a scan agrees with the truth."""
    brain = map_of(bids, scan, 'desc-brain_mask')
    tissue = sum(map_of(bids, scan, f'label-{name}_probseg').data for name in ('GM', 'WM')) > 0.5
    distance = ndimage.distance_transform_edt
    from_tissue = distance(~tissue, brain.zooms)
    # closing by a ball: what is farther than it from all that is out of its reach
    closed = distance(from_tissue <= SULCUS, brain.zooms) > SULCUS
    whole = ndimage.binary_fill_holes(closed | tissue)
    near = from_tissue <= REACH
    return {
        'brain_dice': dice(mask, whole),
        'fluid_dice': dice(mask & near, (brain.data > 0.5) & near),
        'tissue_held': float(mask[tissue].mean()),
    }


def _field_correlation(bids: Path, scan: ScanInput, field: np.ndarray) -> float:
    """Correlation of the logarithms of a field and of the true one, in the brain."""
    raw, truth = read_scan(scan.path).volume, truth_of(bids, scan, scan.session)
    inside = map_of(bids, scan, 'desc-brain_mask').data > 0.5
    inside &= (truth.data > 0.2 * np.median(truth.data[inside])) & (raw.data > 0) & (field > 0)
    sigma = FIELD_BLUR / np.array(raw.zooms)
    logs = np.zeros(raw.shape)
    logs[inside] = np.log(raw.data[inside] / truth.data[inside])
    weight = ndimage.gaussian_filter(inside.astype(float), sigma)
    true = ndimage.gaussian_filter(logs, sigma) / np.maximum(weight, 1e-6)
    return float(np.corrcoef(true[inside], np.log(field[inside]))[0, 1])


def _ratio(raw: np.ndarray, corrected: np.ndarray) -> np.ndarray:
    """The field that was divided out; 0 where nothing is seen."""
    return np.where(corrected > 0, raw / np.maximum(corrected, 1e-6), 0).astype(np.float32)
