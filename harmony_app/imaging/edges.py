"""Whether two images show the same edges, whatever their contrasts."""

import numpy as np
from scipy import ndimage


def edge_agreement(a: np.ndarray, b: np.ndarray, mask: np.ndarray, sigma: float = 1.0) -> float:
    """Correlation of the gradient magnitudes of two images inside a mask.

    Magnitudes are compared, so that a border counts as the same where the contrast across
    it is reversed. Each image's largest 1 % is clipped: a single vessel decides nothing.

    Parameters
    ----------
    a, b : ndarray, shape (X, Y, Z)
        Images on one grid.
    mask : ndarray, shape (X, Y, Z), bool
        Where they are compared.
    sigma : float, optional
        Scale of the edges in voxels.

    Returns
    -------
    float
        -1 to 1; 1 for the same edges, 0 where one of the images has no edge at all.

    Raises
    ------
    ValueError
        Where the mask is empty.
    """
    if not mask.any():
        raise ValueError('the mask is empty')
    margin = int(np.ceil(4 * sigma)) + 1
    box = tuple(
        slice(max(0, s.start - margin), s.stop + margin)
        for s in ndimage.find_objects(mask.astype(np.uint8))[0]
    )
    images = (np.asarray(image[box], dtype=np.float32) for image in (a, b))
    return correlate_edges(
        *(ndimage.gaussian_gradient_magnitude(image, sigma)[mask[box]] for image in images)
    )


def correlate_edges(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of gradient magnitudes, each image's largest 1 % clipped.

    Parameters
    ----------
    a, b : ndarray, shape (voxels,)
        Gradient magnitudes of two images in the same voxels.

    Returns
    -------
    float
        As :func:`edge_agreement`.
    """
    values = []
    for edges in (a, b):
        edges = np.minimum(edges, np.percentile(edges, 99)).astype(np.float64)
        values.append(edges - edges.mean())
    norm = np.linalg.norm(values[0]) * np.linalg.norm(values[1])
    return float(np.clip(values[0] @ values[1] / norm, -1, 1)) if norm > 0 else 0.0
