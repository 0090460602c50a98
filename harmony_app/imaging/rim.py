"""The rim of the cortex that a brain mask carried over from the template leaves out.

The deformation is estimated at 2 mm and smooth: it follows no single gyrus, so its mask cuts a
millimetre here and there. What lies beside the mask and looks like grey or white matter of this
scan is taken in; fluid and bone do not look like it, scalp is too far away.
"""

import numpy as np
from scipy import ndimage

from harmony_app.imaging.intensity import histogram_mode
from harmony_app.imaging.masks import largest_component
from harmony_app.imaging.profile import TISSUES

REACH = 3.0
"""Millimetres beyond the mask that are looked at."""

BLUR = 0.5
"""Standard deviation in mm of the blur against noise."""

SURE = 0.7
"""Share of its map from which on a voxel tells the level of a tissue."""

BRIGHTER, DARKER = 1.25, 0.65
"""Beyond these multiples of the brighter and of the darker tissue nothing is brain, where no fluid
is on that side."""

GREY = 0.6
"""Share of grey matter in what is taken in; the rest is fluid. It lies at the surface and a voxel
holds both: taken for certain, it would tell the level of grey matter and what brain looks like."""

FEWEST = 1000
"""Fewest voxels that a level is read from."""


def take_in_rim(
    data: np.ndarray, brain: np.ndarray, tissues: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Widen a brain mask by what looks like brain beside it.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z), float32
        Scan in any contrast and unit, on the working grid (1 mm).
    brain : ndarray, same shape, bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8
        GM, WM and CSF maps; 255 is certain.

    Returns
    -------
    brain : ndarray, same shape, bool
        Holds the given mask; wider by :data:`REACH` at most, holes filled.
    tissues : ndarray, uint8
        The maps; what was taken in is :data:`GREY` grey matter, and all fluid where it does not
        look like brain (a hole that was filled). As given where the scan does not show its tissues.
    """
    if not brain.any():
        return brain, tissues
    (box,) = ndimage.find_objects(brain.astype(np.uint8))
    margin = int(np.ceil(REACH)) + 2
    box = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
    image, mask = ndimage.gaussian_filter(np.asarray(data[box], np.float32), BLUR), brain[box]
    maps = tissues[(slice(None), *box)]
    span = brain_span(image, mask, maps)
    if span is None:
        return brain, tissues
    like = (image > span[0]) & (image < span[1])
    near = ndimage.distance_transform_edt(~mask) <= REACH
    # threads and sheets of a voxel are dura and vessels
    wider = mask | ndimage.binary_opening(mask | (like & near))
    wider = ndimage.binary_fill_holes(largest_component(wider)) | mask
    new = wider & ~mask
    brain, tissues = brain.copy(), tissues.copy()
    brain[box] = wider
    maps = tissues[(slice(None), *box)]
    maps[:, new] = 0
    grey = round(255 * GREY)
    maps[TISSUES.index('GM'), new & like] = grey
    maps[TISSUES.index('CSF'), new] = np.where(like[new], 255 - grey, 255)
    return brain, tissues


def brain_span(
    image: np.ndarray, brain: np.ndarray, tissues: np.ndarray
) -> tuple[float, float] | None:
    """Lowest and highest intensity that grey or white matter may have.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z)
        Scan in any contrast and unit.
    brain : ndarray, same shape, bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8
        GM, WM and CSF maps; 255 is certain.

    Returns
    -------
    tuple of float, or None
        Half-way to fluid on the side where fluid is. None where a tissue is hardly seen.
    """
    levels = {}
    for name in TISSUES:
        where = (tissues[TISSUES.index(name)] > 255 * SURE) & brain & (image > 0)
        if np.count_nonzero(where) < FEWEST:
            return None
        values = image[where]
        levels[name] = float(np.median(values)) if name == 'CSF' else histogram_mode(values)
    darker, brighter = sorted((levels['GM'], levels['WM']))
    low, high = DARKER * darker, BRIGHTER * brighter
    if levels['CSF'] < darker:
        return (darker + levels['CSF']) / 2, high
    if levels['CSF'] > brighter:
        return low, (brighter + levels['CSF']) / 2
    return low, high
