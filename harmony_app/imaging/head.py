"""Affine alignment of a scan to a whole head made around the template, by ANTs.

The template is skull-stripped, scans mostly are not. Skull and scalp as shells around the
template's brain give mutual information what it needs to hold a whole head.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from harmony_app.imaging.ants_setup import (
    import_ants,
    read_affine,
    remove_files,
    run_registration,
    to_ants,
)
from harmony_app.imaging.grid import WORKING_AFFINE, coarse_grid
from harmony_app.imaging.masks import head_mask, is_skull_stripped
from harmony_app.imaging.resample import resample
from harmony_app.imaging.template import load_template
from harmony_app.imaging.volume import Volume

STEP = 4
"""Voxel edge in mm of the alignment."""

HEAD_CENTRE = np.array([0.0, -17.0, 8.0])
"""Centre of the upper head on the template, mm."""

UPPER_HEAD = 170.0
"""Millimetres from the top that belong to the head and not to the neck."""

SHELLS = ((2.5, 0.22), (4.5, 0.05), (7.0, 0.9), (9.0, 0.05), (15.0, 1.6))
"""Outer distance from the brain in mm and T1w intensity of fluid, bone, marrow, bone and scalp."""


@lru_cache(maxsize=2)
def head_template(stripped: bool) -> np.ndarray:
    """T1w-like head on the grid of :data:`STEP` mm, white matter at 1.

    Parameters
    ----------
    stripped : bool
        The brain alone.
    """
    template = load_template()
    gm, wm, csf = np.clip(template.tissues, 0, 1)
    image = 0.68 * gm + wm + 0.22 * csf
    if not stripped:
        # measured from the closed brain: a skull has no sulci
        outside = ndimage.distance_transform_edt(~template.brain[::2, ::2, ::2]) * 2
        hull = ndimage.distance_transform_edt(outside <= 12) * 2 > 12
        distance = ndimage.distance_transform_edt(~hull).astype(np.float32) * 2
        distance = ndimage.zoom(distance, 2, order=1, grid_mode=True, mode='nearest')
        inner = 0.0
        for outer, level in SHELLS:
            image[(distance > inner) & (distance <= outer) & ~template.brain] = level
            inner = outer
        image[(distance <= 0) & ~template.brain] = SHELLS[0][1]
    shape, affine = coarse_grid(STEP)
    return resample(Volume(image.astype(np.float32), WORKING_AFFINE), shape, affine, order=1).data


def align_head(volume: Volume, bare: bool | None = None) -> list[np.ndarray]:
    """Affine alignments of a scan to the template, from several starts.

    Parameters
    ----------
    volume : Volume
        Bias-corrected scan in RAS.
    bare : bool, optional
        Whether it shows a brain only; by default its background tells.

    Returns
    -------
    list of ndarray, shape (4, 4)
        Template mm to scan mm; the caller judges which is best.
    """
    ants = import_ants()
    moving, centre, top = _upper_head(volume)
    bare = is_skull_stripped(volume) if bare is None else bare
    fixed = to_ants(head_template(bare), coarse_grid(STEP)[1])
    image = to_ants(moving.data, moving.affine)
    starts = [centre, np.array([centre[0], centre[1], top - 82.0])]
    found = []
    for start in starts:
        initial = np.eye(4)
        initial[:3, 3] = start - HEAD_CENTRE
        result = run_registration(
            fixed,
            image,
            initial,
            type_of_transform='Affine',
            aff_metric='mattes',
            aff_sampling=32,
            aff_random_sampling_rate=0.1,
            aff_iterations=(100, 50, 10, 0),
            aff_shrink_factors=(4, 2, 1, 1),
            aff_smoothing_sigmas=(2, 1, 0, 0),
            random_seed=20231,
        )
        found.append(read_affine(ants, result['fwdtransforms']))
        remove_files(result['fwdtransforms'] + result['invtransforms'])
    return found


def _upper_head(volume: Volume) -> tuple[Volume, np.ndarray, float]:
    """The scan at :data:`STEP` mm without the neck, its centre and the height of its top, mm."""
    mask = head_mask(volume)
    inside = volume.data[mask]
    clipped = np.minimum(volume.data, np.percentile(inside[:: max(1, inside.size // 100_000)], 99))
    index = np.argwhere(mask)
    index = index[:: max(1, len(index) // 100_000)]
    points = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    top = float(np.percentile(points[:, 2], 99.8))
    upper = points[points[:, 2] > top - UPPER_HEAD]
    low, high = upper.min(0) - 16, upper.max(0) + 16
    low[2] = max(low[2], top - UPPER_HEAD - 15)
    shape = tuple(int(n) for n in np.ceil((high - low) / STEP))
    affine = np.diag([STEP, STEP, STEP, 1.0])
    affine[:3, 3] = low
    coarse = resample(volume.with_data(clipped.astype(np.float32)), shape, affine, order=1)
    return coarse, upper.mean(0), top
