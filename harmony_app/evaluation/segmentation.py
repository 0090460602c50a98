"""Grey matter, white matter and CSF of a scan, by Atropos with the registered template maps.

What harmonization is for is that a measurement of the anatomy no longer depends on the scanner. The
commonest one is the volume of the tissues. Nothing is learned here and no order of intensities is
taken for granted: the maps say which class is which, so T1w, T2w, PDw and FLAIR go through one code.

The maps are affine: under them an atrophied head shows CSF where they say grey matter. Atropos, whose
classes begin with what lies under its priors, then may lose CSF altogether. So the maps are brought
to the scan first, by the levels of its tissues that are measured under them: the Dice of CSF in an
atrophied T1w phantom rises from 0.04 to 0.89 by this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from harmony_app.imaging.profile import TISSUES, measure_profile

PRIOR_WEIGHT = 0.25
"""Weight of the maps against the intensities, 0 to 1, for the adapted maps and in Atropos.

Less lets CSF take the thin cortex of a young head, more holds an atrophied head to the template.
"""

SMOOTHNESS = 0.1
"""Weight of the Markov random field over the 26 neighbours of a voxel."""

ITERATIONS = 5
"""Steps of expectation and maximization, always all of them."""

PRIOR_FLOOR = 0.01
"""Added to the probability of every tissue everywhere: the maps do not fit any head exactly."""

SPREAD = 0.3
"""Standard deviation of every tissue as a share of that of the three levels."""

UNIT = np.float32(100)
"""White-matter peak in Atropos, which refuses covariances of a determinant below 1e-6."""

ADAPTED_FLOOR = 0.001
"""Added to the adapted maps, so that Atropos can change its mind."""


@dataclass(frozen=True)
class Segmentation:
    """The tissues of a scan.

    Parameters
    ----------
    labels : ndarray, shape (X, Y, Z), uint8
        0 background, 1 GM, 2 WM, 3 CSF.
    volumes : dict of str to float
        Volume of the voxels of each tissue of :data:`~harmony_app.imaging.profile.TISSUES`, ml.
    """

    labels: np.ndarray
    volumes: dict[str, float]


def segment_tissues(
    volumes: Sequence[np.ndarray], brain: np.ndarray, tissues: np.ndarray, step: int = 1
) -> Segmentation:
    """Label GM, WM and CSF inside the brain mask.

    A mixture of one normal distribution for each tissue, with a Markov random field for smoothness
    and the registered maps as priors (Avants 2011), once these are brought to the measured levels of
    the scan. Equal input gives equal labels, voxel by voxel.

    Parameters
    ----------
    volumes : sequence of ndarray, each of shape (X, Y, Z), float32
        One scan, or scans of several contrasts of one session, on one grid of 1 mm with even axes,
        white-matter peak at 1.
    brain : ndarray, shape (X, Y, Z), bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8 or float
        Registered GM, WM and CSF maps; uint8 maps are certain at 255, float maps at 1.
    step : int, optional
        Edge in voxels of the cubes that are averaged first; divides every axis. With 2 it takes an
        eighth of the time; labels are given on the full grid all the same.

    Returns
    -------
    Segmentation

    Raises
    ------
    ValueError
        For no volume, unequal shapes, an empty mask, maps that show a tissue nowhere in it, a scan
        that is constant, not finite or tells no tissues apart in it, a volume that is a copy of
        another, or a step that does not divide the grid.

    References
    ----------
    Avants et al. 2011, Neuroinformatics 9: 381-400, doi:10.1007/s12021-011-9109-y.
    """
    volumes = [np.asarray(volume, np.float32) for volume in volumes]
    brain = np.asarray(brain, bool)
    _check(volumes, brain, tissues, step)
    certain = 255.0 if np.issubdtype(tissues.dtype, np.integer) else 1.0
    box = _box(brain, step)
    inside = brain[box]
    share = _block_sum(inside.astype(np.float32), step)
    mask = share > 0

    def average(data):
        """Mean over the voxels of the brain of every cube."""
        return _block_sum(data[box] * inside, step) / np.maximum(share, 1)

    images = [average(volume) for volume in volumes]
    priors = np.stack([average(tissue) / certain for tissue in tissues]) + PRIOR_FLOOR
    levels = np.array([measure_profile(v, brain, tissues).levels for v in volumes])
    priors = _adapt(np.stack(images)[:, mask], priors[:, mask], levels)
    adapted = np.zeros((len(TISSUES), *mask.shape), np.float32)
    adapted[:, mask] = priors
    posteriors = _atropos(images, mask, adapted, step)
    if step > 1:
        posteriors = [_refine(posterior, step) for posterior in posteriors]
    labels = np.zeros(brain.shape, np.uint8)
    labels[box] = np.where(inside, np.argmax(posteriors, axis=0) + 1, 0)
    counts = np.bincount(labels.ravel(), minlength=len(TISSUES) + 1)[1:]
    ml = {name: float(count) / 1000 for name, count in zip(TISSUES, counts, strict=True)}
    return Segmentation(labels, ml)


def _adapt(values: np.ndarray, priors: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Maps (3, N) brought to the intensities (C, N) of as many voxels; they sum to 1.

    ``levels`` (C, 3) are the means of the tissues.
    """
    variances = SPREAD**2 * levels.var(axis=1)
    if not variances.all():
        raise ValueError('GM, WM and CSF have one level in a volume: it tells none apart')
    logs = PRIOR_WEIGHT * np.log(priors / priors.sum(axis=0))
    for tissue, means in enumerate(levels.T):
        logs[tissue] -= ((values - means[:, None]) ** 2 / variances[:, None]).sum(axis=0) / 2
    adapted = np.exp(logs - logs.max(axis=0))
    adapted = adapted / adapted.sum(axis=0) + ADAPTED_FLOOR
    return (adapted / adapted.sum(axis=0)).astype(np.float32)


def _atropos(
    images: Sequence[np.ndarray], mask: np.ndarray, priors: np.ndarray, step: int
) -> list[np.ndarray]:
    """Posterior probability of every tissue, in the order of the priors."""
    from harmony_app.imaging.ants_setup import import_ants, to_ants

    ants = import_ants()
    # ants.atropos leaves its maps in the temporary folder and does not tell their names.
    from ants.internal import get_lib_fn, process_arguments

    affine = np.diag([step, step, step, 1.0])
    scans = [to_ants(UNIT * image, affine) for image in images]
    region = to_ants(mask, affine).clone('unsigned int')
    with TemporaryDirectory() as folder:
        prior, posterior = (str(Path(folder, f'{name}%02d.nii')) for name in ('in', 'out'))
        for number, values in enumerate(priors, start=1):
            ants.image_write(to_ants(values, affine), prior % number)
        arguments: list = ['-d', 3, '-x', region]
        for scan in scans:
            arguments += ['-a', scan]
        arguments += ['-i', f'PriorProbabilityImages[{len(priors)},{prior},{PRIOR_WEIGHT}]']
        arguments += ['-m', f'[{SMOOTHNESS},1x1x1]', '-c', f'[{ITERATIONS},0]', '-r', 0]
        arguments += ['-o', f'[{Path(folder, "labels.nii")},{posterior}]']
        status = get_lib_fn('Atropos')(process_arguments(arguments))
        if status != 0:
            raise ValueError(
                'Atropos cannot segment these volumes; leave out a volume that is a copy of another'
            )
        numbers = range(1, len(priors) + 1)
        return [ants.image_read(posterior % number).numpy() for number in numbers]


def _check(
    volumes: Sequence[np.ndarray], brain: np.ndarray, tissues: np.ndarray, step: int
) -> None:
    if not volumes:
        raise ValueError('no volume to segment; give at least one')
    shapes = [volume.shape for volume in volumes] + [tissues.shape[1:]]
    if brain.ndim != 3 or any(shape != brain.shape for shape in shapes):
        raise ValueError(f'unequal shapes: volumes and maps {shapes}, brain mask {brain.shape}')
    if len(tissues) != len(TISSUES):
        raise ValueError(f'the maps are those of {", ".join(TISSUES)}, not {len(tissues)} of them')
    if step < 1 or any(n % step for n in brain.shape):
        raise ValueError(f'the step {step} does not divide the grid {brain.shape}')
    if not brain.any():
        raise ValueError('the brain mask is empty')
    for volume in volumes:
        inside = volume[brain]
        if not np.isfinite(inside).all():
            raise ValueError('a volume is not finite inside the brain mask')
        if inside.min() == inside.max():
            raise ValueError('a volume is constant inside the brain mask')
    for name, tissue in zip(TISSUES, tissues, strict=True):
        if not tissue[brain].any():
            raise ValueError(f'the maps show no {name} inside the brain mask')


def _box(mask: np.ndarray, step: int) -> tuple[slice, ...]:
    """Bounding box with a voxel (cube) around it, its borders multiples of ``step``."""
    from scipy import ndimage

    (found,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(
        slice(max(s.start // step - 1, 0) * step, min(-(-s.stop // step) + 1, n // step) * step)
        for s, n in zip(found, mask.shape, strict=True)
    )


def _block_sum(data: np.ndarray, step: int) -> np.ndarray:
    """Sum over cubes of ``step`` voxels, float32."""
    x, y, z = (n // step for n in data.shape)
    return data.reshape(x, step, y, step, z, step).sum(axis=(1, 3, 5), dtype=np.float32)


def _refine(data: np.ndarray, step: int) -> np.ndarray:
    """Linear interpolation at the voxels of the cubes."""
    from scipy import ndimage

    return ndimage.zoom(data, step, order=1, mode='nearest', grid_mode=True)
