"""Registration: contrasts of a session to each other, and a scan to the template.

A scan goes to the working grid by a rigid transform only, so that sizes stay true. The
affine and the coarse deformation carry the template's maps to the scan, never the scan
to the template.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from harmony_app.imaging.alignment import (
    CENTRE,
    SHELLS,
    align_template,
    prepare,
)
from harmony_app.imaging.ants_setup import (
    import_ants,
    read_affine,
    remove_files,
    run_registration,
    to_ants,
)
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE, coarse_grid
from harmony_app.imaging.masks import is_skull_stripped, largest_component
from harmony_app.imaging.resample import resample
from harmony_app.imaging.rim import take_in_rim
from harmony_app.imaging.template import load_template
from harmony_app.imaging.volume import Volume

STEP = 2
"""Voxel edge in mm of the grid on which the deformation is estimated."""

MARGIN = 12
"""Millimetres kept around the brain for the deformation."""

BRAIN_LITRES = (0.9, 2.2)
"""Volumes of a brain with ventricles that raise no doubt."""

GOOD_QUALITY = 0.5
"""Quality below which a registration should be shown to a person."""

LEAST_QUALITY = 0.2
"""Quality below which there is no registration: the maps lie beside the brain."""


@dataclass(frozen=True)
class TemplateRegistration:
    """A scan on the template.

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        RAS mm of the scan to template mm, with the sizes of the template.
    rigid : ndarray, shape (4, 4)
        RAS mm of the scan to mm of the working grid: the rotation nearest to the affine,
        which takes the same point to the centre of the template's brain.
    brain : ndarray, shape of the working grid, bool
        Brain mask of the rigidly aligned scan.
    tissues : ndarray, shape (3, X, Y, Z), uint8
        GM, WM and CSF maps on the rigidly aligned scan; 255 is certain.
    quality : float
        0 to 1; below :data:`GOOD_QUALITY` the registration should be looked at.
    skull_stripped : bool
        Whether the scan shows hardly anything outside the brain.
    measures : dict of str to float
        What the quality was made of.
    """

    affine: np.ndarray
    rigid: np.ndarray
    brain: np.ndarray
    tissues: np.ndarray
    quality: float
    skull_stripped: bool = False
    measures: dict[str, float] = field(default_factory=dict)


def register_template(
    volume: Volume,
    contrast: str | None = None,
    given: np.ndarray | None = None,
    bare: bool | None = None,
) -> TemplateRegistration:
    """Put a scan on the template.

    Parameters
    ----------
    volume : Volume
        Bias-corrected scan in RAS; whole head, defaced head or brain, any slice thickness.
    contrast : str, optional
        Suffix of the scan. Not needed: the regression on the tissue maps finds the
        contrast; kept so that callers may say it.
    given : ndarray, shape (4, 4), optional
        RAS mm of the scan to mm of the working grid, known from elsewhere. It is taken as it is;
        only sizes and the deformation of the maps are sought from there.
    bare : bool, optional
        Whether the scan shows a brain only; by default its background tells.

    Returns
    -------
    TemplateRegistration
        Poor quality is reported, never hidden.
    """
    start = None if given is None else np.linalg.inv(given)
    matrix, score, intensities = align_template(volume, start, bare)
    affine = np.linalg.inv(matrix)
    rigid = closest_rigid(affine) if given is None else np.asarray(given, np.float64)
    brain, tissues, gain = _carry_maps(volume, rigid, matrix, intensities)
    shown = resample(volume, WORKING_SHAPE, WORKING_AFFINE, rigid, order=1)
    brain, tissues = take_in_rim(shown.data, brain, tissues)
    litres = float(brain.sum()) / 1e6
    shown = resample(volume, *coarse_grid(4), rigid, order=1).data
    coarse_brain = resample(
        Volume(brain.astype(np.float32), WORKING_AFFINE), *coarse_grid(4), order=1
    ).data
    inside = coarse_brain > 0.5
    bright = float(np.median(shown[inside])) if inside.any() else 0.0
    overlap = float((shown[inside] > 0.1 * bright).mean()) if bright > 0 else 0.0
    around = ndimage.binary_dilation(inside, iterations=5) & ~ndimage.binary_dilation(inside)
    if bare is None:
        dark = bright > 0 and float((shown[around] > 0.15 * bright).mean()) < 0.05
        bare = dark or is_skull_stripped(volume)
    measures = {'explained': score, 'explained_warped': gain, 'litres': litres, 'overlap': overlap}
    return TemplateRegistration(
        affine=affine,
        rigid=rigid,
        brain=brain,
        tissues=tissues,
        quality=_quality(max(score, gain), litres, overlap),
        skull_stripped=bare,
        measures={name: round(value, 4) for name, value in measures.items()},
    )


def register_rigid(moving: Volume, fixed: Volume, seed: int = 20231) -> np.ndarray:
    """Rigid transform between two scans of one session, whatever their contrasts.

    Mutual information at about 2 mm, from the scanner's own coordinates and from the
    centres of the heads; the better end is kept.

    Parameters
    ----------
    moving, fixed : Volume
        Scans in RAS.
    seed : int, optional
        Seed of the metric's sampler.

    Returns
    -------
    ndarray, shape (4, 4)
        RAS mm of ``moving`` to RAS mm of ``fixed``.
    """
    ants = import_ants(seed)
    still, mobile = (prepare(v, 2.0) for v in (fixed, moving))
    starts = [np.eye(4)]
    shift = np.eye(4)
    shift[:3, 3] = _head_centre(still) - _head_centre(mobile)
    # The same place within a few mm needs no second start.
    if np.linalg.norm(shift[:3, 3]) > 15:
        starts.append(shift)
    fixed_image, moving_image = (to_ants(v.data, v.affine) for v in (still, mobile))
    found = []
    for start in starts:
        result = run_registration(
            fixed_image,
            moving_image,
            np.linalg.inv(start),
            type_of_transform='Rigid',
            aff_metric='mattes',
            aff_sampling=32,
            aff_random_sampling_rate=0.1,
            aff_iterations=(60, 30, 5),
            aff_shrink_factors=(4, 2, 1),
            aff_smoothing_sigmas=(2, 1, 0),
            random_seed=seed,
            singleprecision=False,
        )
        matrix = np.linalg.inv(read_affine(ants, result['fwdtransforms']))
        found += [matrix]
    # The registration may also wander off: its end must beat its start.
    candidates = found + [np.eye(4)]
    scores = [_overlap_information(mobile, still, m) for m in candidates]
    return candidates[int(np.argmax(scores))]


def closest_rigid(affine: np.ndarray) -> np.ndarray:
    """Rigid transform nearest to an affine, which keeps the centre of the brain in place.

    The rotation is the orthogonal factor of the polar decomposition.

    Examples
    --------
    >>> import numpy as np
    >>> closest_rigid(np.diag([1.1, 1.1, 1.1, 1.0]))[:3, :3].round(6).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    left, _, right = np.linalg.svd(affine[:3, :3])
    rotation = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
    source = np.linalg.inv(affine) @ np.append(CENTRE, 1)
    rigid = np.eye(4)
    rigid[:3, :3] = rotation
    rigid[:3, 3] = CENTRE - rotation @ source[:3]
    return rigid


def mutual_information(a: np.ndarray, b: np.ndarray, bins: int = 32) -> float:
    """Normalized mutual information (Studholme 1999), 1 to 2, of paired values."""
    joint, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins=bins)
    joint /= joint.sum()

    def entropy(p):
        p = p[p > 0]
        return -float(np.sum(p * np.log(p)))

    both = entropy(joint)
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / both if both > 0 else 1.0


def _carry_maps(
    volume: Volume, rigid: np.ndarray, matrix: np.ndarray, intensities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Deform the template to the rigidly aligned scan; brain, tissues and explained variance.

    Parameters
    ----------
    rigid : ndarray, shape (4, 4)
        Scan mm to working mm.
    matrix : ndarray, shape (4, 4)
        Template mm to scan mm.
    intensities : ndarray, shape (6,)
        Contrast of the scan: it makes the template's image for the deformation.
    """
    ants = import_ants()
    template = load_template()
    shape, affine = coarse_grid(STEP)
    aligned = resample(prepare(volume, STEP), shape, affine, rigid, order=1)
    to_template = np.linalg.inv(rigid @ matrix)

    maps = np.stack([*template.tissues, *_shells(template.brain)])
    source = Volume(np.tensordot(intensities[1:], maps, 1).astype(np.float32), WORKING_AFFINE)
    source = source.with_data(source.data + np.float32(intensities[0]))
    source = resample(source, shape, affine, order=1)
    brain = Volume(template.brain.astype(np.float32), WORKING_AFFINE)
    place = resample(brain, shape, affine, np.linalg.inv(to_template), order=1).data > 0.5
    box = _box(place, MARGIN // STEP)
    corner = affine.copy()
    corner[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    # The deformation sees the brain and the skull around it, inside the field of view.
    seen = resample(volume.with_data(np.ones(volume.shape, np.float32)), shape, affine, rigid, 0)
    near = ndimage.binary_dilation(place, iterations=4) & (seen.data > 0)
    result = run_registration(
        to_ants(aligned.data[box], corner),
        to_ants(source.data, affine),
        to_template,
        mask=to_ants(near[box], corner),
        type_of_transform='SyNOnly',
        # the template's image has the intensities of the scan: bins tell as much as patches, sooner
        syn_metric='mattes',
        syn_sampling=32,
        reg_iterations=(60, 4),
        grad_step=0.25,
        flow_sigma=3,
        total_sigma=0.5,
        singleprecision=True,
        random_seed=20231,
    )
    fine_box = tuple(slice(s.start * STEP, s.stop * STEP) for s in box)
    fine_corner = WORKING_AFFINE.copy()
    fine_corner[:3, 3] += [s.start for s in fine_box]
    size = tuple(s.stop - s.start for s in fine_box)
    reference = to_ants(np.zeros(size, np.float32), fine_corner)

    def carry(data):
        return ants.apply_transforms(
            reference, to_ants(data, WORKING_AFFINE), result['fwdtransforms'], 'linear'
        ).numpy()

    mask = np.zeros(WORKING_SHAPE, bool)
    inside = carry(template.brain) > 0.5
    mask[fine_box] = ndimage.binary_fill_holes(largest_component(inside))
    tissues = np.zeros((3, *WORKING_SHAPE), np.uint8)
    carried = np.stack([np.clip(carry(t), 0, 1) for t in template.tissues])
    carried /= np.maximum(carried.sum(axis=0), 1e-3)
    tissues[(slice(None), *fine_box)] = np.rint(255 * carried * mask[fine_box])
    remove_files(result['fwdtransforms'] + result['invtransforms'])
    return mask, tissues, _explained(aligned.data, mask, tissues)


def _shells(brain: np.ndarray) -> list[np.ndarray]:
    """Skull and scalp around the template's brain, float32."""
    distance = ndimage.distance_transform_edt(~brain[::2, ::2, ::2]) * 2
    distance = ndimage.zoom(distance.astype(np.float32), 2, order=1, grid_mode=True, mode='nearest')
    inner, shells = 0.5, []
    for outer in SHELLS:
        shells.append(((distance > inner) & (distance <= outer) & ~brain).astype(np.float32))
        inner = outer
    return shells


def _explained(data: np.ndarray, brain: np.ndarray, tissues: np.ndarray) -> float:
    """Share of the variance inside the brain that the carried maps explain (at 2 mm)."""
    inside = brain[::STEP, ::STEP, ::STEP] & (data > 0)
    if np.count_nonzero(inside) < 1000:
        return 0.0
    design = tissues[:, ::STEP, ::STEP, ::STEP][:, inside].T / 255.0
    values = data[inside].astype(np.float64)
    beta = np.linalg.lstsq(design, values, rcond=None)[0]
    return float(1 - np.var(values - design @ beta) / np.var(values))


def _quality(explained: float, litres: float, overlap: float) -> float:
    """One number of what must hold for a head on the template.

    A usual registration explains a third of the variance and more; the volume of the
    brain and the share of the mask that shows something must be possible.
    """
    low, high = BRAIN_LITRES
    size = 1.0 if low <= litres <= high else 0.4
    return float(np.clip(explained / 0.4, 0, 1) * size * np.clip((overlap - 0.5) / 0.4, 0, 1))


def _box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Bounding box with a margin; the whole grid for an empty mask."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return tuple(slice(0, n) for n in mask.shape)
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(found[0], mask.shape, strict=True)
    )


def _head_centre(volume: Volume) -> np.ndarray:
    """Centre of intensity in mm."""
    centre = ndimage.center_of_mass(np.minimum(volume.data, 1.5))
    return volume.affine[:3, :3] @ centre + volume.affine[:3, 3]


def _overlap_information(moving: Volume, fixed: Volume, matrix: np.ndarray) -> float:
    """Normalized mutual information of two scans where both are seen, at 4 mm."""
    step = (slice(None, None, 2),) * 3
    affine = fixed.affine @ np.diag([2, 2, 2, 1])
    still = fixed.data[step]
    seen = (
        resample(
            moving.with_data(np.ones(moving.shape, np.float32)), still.shape, affine, matrix, 0
        ).data
        > 0
    )
    if seen.mean() < 0.1:
        return 0.0
    moved = resample(moving, still.shape, affine, matrix, order=1).data
    return mutual_information(still[seen], moved[seen])
