"""Whether a scan shows a face: what was removed for privacy is said, and is no error."""

import itertools

import numpy as np

from harmony_app.imaging.volume import Volume

FACE = ((-32.0, 32.0), (52.0, 78.0), (-66.0, -40.0))
"""Box of MNI millimetres (RAS) below the frontal lobes: eyes, nose and cheeks of every head."""

STEP = 2.0
"""Millimetres between the points that are looked at."""

SEEN = 0.5
"""Share of the box that must lie within the field of view: less says nothing."""

BLANK = 0.4
"""Share of these points that are blank in a defaced scan: air holds noise, and so does a nose."""


def is_defaced(native: Volume, to_template: np.ndarray, skull_stripped: bool = False) -> bool:
    """Tell whether the face of a scan was blanked.

    Parameters
    ----------
    native : Volume
        Scan on its own grid, as it was acquired or with its bias field removed.
    to_template : ndarray, shape (4, 4)
        Rigid transform of its RAS millimetres to those of the template.
    skull_stripped : bool
        Whether nothing but brain is left: then it is not the face that was removed.

    Returns
    -------
    bool
        False where the field of view leaves the face out.
    """
    if skull_stripped:
        return False
    axes = [np.arange(low, high + STEP / 2, STEP) for low, high in FACE]
    points = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1).reshape(-1, 3)
    to_voxel = np.linalg.inv(to_template @ native.affine)
    index = np.rint(points @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
    inside = np.all((index >= 0) & (index < native.shape), axis=1)
    if inside.mean() < SEEN:
        return False
    # Blank is what is exactly zero with all its neighbours: air that was clipped at 0 is not.
    brightest = np.zeros(np.count_nonzero(inside))
    for offset in itertools.product((-1, 0, 1), repeat=3):
        near = np.clip(index[inside] + offset, 0, np.array(native.shape) - 1)
        brightest = np.maximum(brightest, np.abs(native.data[tuple(near.T)]))
    return bool(np.mean(brightest == 0) >= BLANK)
