"""Volumes to slices in three orientations and back; only what is not empty."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ORIENTATIONS = {'axial': 2, 'coronal': 1, 'sagittal': 0}
"""Axis of an RAS volume that each orientation counts its slices along."""

MULTIPLE = 16
"""Slices are cropped to boxes whose corners lie on a lattice of this many voxels.

Pooling cells of a network that halves four times then stay where they are, so that a crop
of empty margins changes nothing.
"""


@dataclass(frozen=True)
class SliceGroup:
    """Neighbouring slices of one orientation and the box that holds their foreground.

    Parameters
    ----------
    axis : int
        Axis that the slices are counted along.
    indices : ndarray of int, shape (B,)
        Slices.
    rows, columns : tuple of int
        First and last-but-one voxel of the box along the two other axes, multiples of
        :data:`MULTIPLE`; the box may pass the end of the volume.
    """

    axis: int
    indices: np.ndarray
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, height and width of the group."""
        return len(self.indices), self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def take(self, volume: np.ndarray) -> np.ndarray:
        """Slices of a volume (X, Y, Z), shape (B, H, W); zero beyond the end of the volume."""
        part = np.moveaxis(volume, self.axis, 0)[
            self.indices, slice(*self.rows), slice(*self.columns)
        ]
        missing = [(0, n - m) for n, m in zip(self.shape, part.shape, strict=True)]
        return np.pad(part, missing) if any(after for _, after in missing) else part

    def put(self, volume: np.ndarray, slices: np.ndarray) -> None:
        """Write slices (B, H, W) into a volume."""
        view = np.moveaxis(volume, self.axis, 0)
        height, width = view[0, slice(*self.rows), slice(*self.columns)].shape
        view[self.indices, slice(*self.rows), slice(*self.columns)] = slices[:, :height, :width]


Box = tuple[slice, slice, slice]
"""Part of a volume, by its axes."""


def slice_groups(
    mask: np.ndarray, orientation: str, batch: int, box: Box | None = None
) -> Iterator[SliceGroup]:
    """Cut the foreground of a volume into groups of slices.

    Parameters
    ----------
    mask : ndarray, shape (X, Y, Z), bool
        Foreground.
    orientation : str
        One of :data:`ORIENTATIONS`.
    batch : int
        Slices of a group at most.
    box : tuple of slice, optional
        Only slices that cross it, each whole: what a network makes of a slice depends on all of it.

    Yields
    ------
    SliceGroup
        Empty slices are in none.
    """
    axis = ORIENTATIONS[orientation]
    stack = np.moveaxis(mask, axis, 0)
    by_row, by_column = stack.any(axis=2), stack.any(axis=1)
    shown = np.flatnonzero(by_row.any(axis=1))
    if box is not None:
        shown = shown[(shown >= box[axis].start) & (shown < box[axis].stop)]
    for start in range(0, len(shown), batch):
        indices = shown[start : start + batch]
        yield SliceGroup(
            axis, indices, _span(by_row[indices].any(axis=0)), _span(by_column[indices].any(axis=0))
        )


def _span(shown: np.ndarray) -> tuple[int, int]:
    """Lattice points around what is shown along an axis."""
    where = np.flatnonzero(shown)
    first = where[0] // MULTIPLE * MULTIPLE
    return int(first), int(-(-(where[-1] + 1) // MULTIPLE) * MULTIPLE)
