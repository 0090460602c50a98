"""Walks through the space of contrasts: one anatomy, decoded at a lattice of thetas.

CALAMITI (Figure 9) shows so that between the sites, and between the contrasts, lie images that
look like something between them. The paper decodes volumes and takes their median; here one
axial slice is decoded.
"""

import numpy as np

from harmony_app.engine.anatomy import shown_part
from harmony_app.engine.compute import Compute
from harmony_app.engine.slicing import slice_groups
from harmony_app.imaging.volume import Volume
from harmony_app.nets.anatomy import AnatomyNets

MARGIN = 0.1
"""Share of the extent of the thetas that the lattice reaches beyond them on either side."""

SMALLEST = 0.2
"""Extent of a lattice along an axis at least."""


def theta_lattice(thetas: np.ndarray, count: int = 3) -> np.ndarray:
    """Lattice over the extent of some thetas, in the order in which a page is read.

    Parameters
    ----------
    thetas : ndarray, shape (N, 2)
        At least one.
    count : int
        Points along an axis, at least 2.

    Returns
    -------
    ndarray, shape (count * count, 2)
        Row by row: the second number falls from row to row, the first rises along a row.

    Raises
    ------
    ValueError
        Where there is no theta, one of another length, or one that is not finite.

    Examples
    --------
    >>> theta_lattice(np.array([[0.0, 0.0], [10.0, 5.0]]), 2).tolist()
    [[-1.0, 5.5], [11.0, 5.5], [-1.0, -0.5], [11.0, -0.5]]
    """
    thetas = np.asarray(thetas, float)
    if thetas.ndim != 2 or thetas.shape[1] != 2 or not len(thetas) or not np.isfinite(thetas).all():
        raise ValueError('a lattice needs finite thetas of two numbers; there are none')
    if count < 2:
        raise ValueError(f'a lattice has 2 points along an axis at least, not {count}')
    low, high = thetas.min(axis=0), thetas.max(axis=0)
    reach = np.maximum((high - low) * (0.5 + MARGIN), SMALLEST / 2)
    middle = (low + high) / 2
    across, up = (np.linspace(m - r, m + r, count) for m, r in zip(middle, reach, strict=True))
    return np.array([(x, y) for y in up[::-1] for x in across])


def decode_thetas(
    nets: AnatomyNets, volume: Volume, thetas: np.ndarray, compute: Compute
) -> np.ndarray:
    """The fullest axial slice of a scan at each theta.

    Parameters
    ----------
    nets : AnatomyNets
        Trained; on the device of ``compute``.
    volume : Volume
        Scan on the working grid, white-matter peak 1.
    thetas : ndarray, shape (K, theta)

    Returns
    -------
    ndarray, shape (K, H, W), float32
        Anterior up, left of the person at the left.

    Raises
    ------
    ValueError
        Where the scan shows nothing.
    """
    mask = shown_part(volume)
    if not mask.any():
        raise ValueError('the scan shows nothing to decode')
    only = np.zeros_like(mask)
    fullest = int(mask.sum(axis=(0, 1)).argmax())
    only[:, :, fullest] = mask[:, :, fullest]
    (group,) = slice_groups(only, 'axial', 1)
    with compute.running():
        shown = compute.tensor(group.take(only))[:, None]
        anatomy = nets.anatomy(compute.tensor(group.take(volume.data))[:, None], shown)
        images = [nets.decode(anatomy, shown, compute.tensor(theta[None])) for theta in thetas]
    return np.stack([np.rot90(image[0, 0].float().cpu().numpy()) for image in images])
