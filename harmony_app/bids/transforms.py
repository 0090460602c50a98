"""Affine transforms as ITK text, the format that ANTs and NiPreps read."""

from pathlib import Path

import numpy as np

from harmony_app.bids.atomic import write_text

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS millimetres to LPS millimetres, and back."""


def write_itk_affine(path: Path, moving_to_fixed: np.ndarray) -> Path:
    """Write the transform that resamples a moving image on a fixed grid.

    ITK keeps the way of the points, fixed to moving, in LPS: the inverse of the way of
    the image, conjugated.

    Parameters
    ----------
    path : Path
        Text file.
    moving_to_fixed : ndarray, shape (4, 4)
        Moving RAS millimetres to fixed RAS millimetres.
    """
    points = LPS @ np.linalg.inv(moving_to_fixed) @ LPS
    numbers = ' '.join(f'{value:.17g}' for value in [*points[:3, :3].ravel(), *points[:3, 3]])
    text = (
        '#Insight Transform File V1.0\n#Transform 0\n'
        'Transform: AffineTransform_double_3_3\n'
        f'Parameters: {numbers}\nFixedParameters: 0 0 0\n'
    )
    return write_text(path, text)


def read_itk_affine(path: Path) -> np.ndarray:
    """Inverse of :func:`write_itk_affine`; reads what ANTs writes as text too.

    Returns
    -------
    ndarray, shape (4, 4)
        Moving RAS millimetres to fixed RAS millimetres.

    Raises
    ------
    ValueError
        Where the file does not hold one affine transform.
    """
    fields = dict(line.split(':', 1) for line in Path(path).read_text().splitlines() if ':' in line)
    if 'Parameters' not in fields:
        raise ValueError(f'{path} is not an ITK text transform')
    numbers = np.array(fields['Parameters'].split(), dtype=float)
    centre = np.array(fields.get('FixedParameters', '0 0 0').split(), dtype=float)
    if numbers.size != 12 or centre.size != 3:
        raise ValueError(f'{path} does not hold one affine transform')
    points = np.eye(4)
    points[:3, :3] = numbers[:9].reshape(3, 3)
    points[:3, 3] = numbers[9:] + centre - points[:3, :3] @ centre
    return LPS @ np.linalg.inv(points) @ LPS
