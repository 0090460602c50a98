"""The one thing that travels between imaging functions: an array and where it lies."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Volume:
    """A scalar image in space.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z), float32
        Intensities, arbitrary units; axes run to the right, front and top (RAS) unless
        a function says otherwise.
    affine : ndarray, shape (4, 4), float64
        Voxel indices to millimetres (RAS+).

    Examples
    --------
    >>> import numpy as np
    >>> Volume(np.zeros((2, 3, 4), np.float32), np.diag([1, 1, 2, 1])).zooms
    (1.0, 1.0, 2.0)
    """

    data: np.ndarray
    affine: np.ndarray

    def __post_init__(self):
        if self.data.ndim != 3:
            raise ValueError(f'a Volume has three axes, not {self.data.ndim}')
        if np.shape(self.affine) != (4, 4):
            raise ValueError(f'an affine has shape (4, 4), not {np.shape(self.affine)}')

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        return self.data.shape

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm."""
        return tuple(float(z) for z in np.linalg.norm(self.affine[:3, :3], axis=0))

    def with_data(self, data: np.ndarray) -> 'Volume':
        """Put other intensities on the same grid."""
        return Volume(np.asarray(data), self.affine)
