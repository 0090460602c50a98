"""Slices of a head side by side in one small picture: grey PNGs and difference maps.

One :class:`Layout` serves all pictures of a scan, so that the same pixel is the same place in each
of them: they can be laid over each other.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmony_app.imaging.volume import Volume
from harmony_app.reports.canvas import DIFFERENCE, PLANES

GAP = 4
"""Pixels between slices."""


@dataclass(frozen=True)
class Tile:
    """One slice, and where it lies in the picture.

    Parameters
    ----------
    plane : str
        Key of :data:`~harmony_app.reports.canvas.PLANES`.
    index : int
        Voxel of the axis that the slice passes through.
    left, top : int
        Pixel of its upper left corner.
    width, height : int
        Pixels.
    """

    plane: str
    index: int
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """Which slices a picture shows, and where.

    Parameters
    ----------
    box : tuple of 3 slice
        Part of the volume that is shown.
    tiles : tuple of Tile
    width, height : int
        Pixels of the picture.
    """

    box: tuple[slice, slice, slice]
    tiles: tuple[Tile, ...]
    width: int
    height: int

    def cut(self, data: np.ndarray, tile: Tile) -> np.ndarray:
        """The slice of a tile as a picture: shape (height, width), the top of the head first."""
        index: list = list(self.box)
        index[PLANES[tile.plane]] = tile.index
        return data[tuple(index)].T[::-1]


def lay_out(brain: np.ndarray, box: tuple[slice, slice, slice], detailed: bool = True) -> Layout:
    """Choose slices through a brain.

    Parameters
    ----------
    brain : ndarray, shape (X, Y, Z), bool
        Brain mask (RAS); an empty one counts as everything.
    box : tuple of 3 slice
        Part of the volume to show.
    detailed : bool
        Six slices in two rows, or one of each plane in one row.

    Examples
    --------
    >>> import numpy as np
    >>> layout = lay_out(np.ones((8, 10, 6), bool), (slice(0, 8), slice(0, 10), slice(0, 6)), False)
    >>> [tile.plane for tile in layout.tiles], (layout.width, layout.height)
    (['axial', 'coronal', 'sagittal'], (34, 10))
    """
    brain = brain if brain.any() else np.ones_like(brain)
    if detailed:
        rows = (
            (('axial', 0.38), ('axial', 0.55), ('axial', 0.72)),
            (('coronal', 0.6), ('sagittal', 0.55), ('coronal', 0.35)),
        )
    else:
        rows = ((('axial', 0.55), ('coronal', 0.5), ('sagittal', 0.55)),)
    sizes = [part.stop - part.start for part in box]
    placed, top, widest = [], 0, 0
    for row in rows:
        left, tallest = 0, 0
        for plane, share in row:
            width, height = (sizes[axis] for axis in range(3) if axis != PLANES[plane])
            index = _place(brain, PLANES[plane], share, box)
            placed.append((plane, index, left, top, width, height, len(placed) // 3))
            left += width + GAP
            tallest = max(tallest, height)
        widest = max(widest, left - GAP)
        top += tallest + GAP
    ends = {}
    for _, _, left, _, width, _, row in placed:
        ends[row] = max(ends.get(row, 0), left + width)
    tiles = tuple(
        Tile(plane, index, left + (widest - ends[row]) // 2, upper, width, height)
        for plane, index, left, upper, width, height, row in placed
    )
    return Layout(tuple(box), tiles, widest, top - GAP)


def grey_png(volume: Volume, layout: Layout, window: tuple[float, float]) -> bytes:
    """Slices in one intensity window, as a PNG of 256 greys.

    Parameters
    ----------
    volume : Volume
        RAS, on the grid of the layout.
    layout : Layout
    window : tuple of 2 float
        Intensities shown black and white.
    """
    from PIL import Image

    low, high = window
    scale = 255 / max(high - low, np.finfo(np.float32).tiny)
    picture = np.zeros((layout.height, layout.width), np.uint8)
    for tile in layout.tiles:
        values = (layout.cut(volume.data, tile) - low) * scale
        _put(picture, tile, np.clip(np.rint(values), 0, 255).astype(np.uint8))
    return _encode(_mark_sides(Image.fromarray(picture), layout, 255))


def difference_png(
    before: Volume, after: Volume, head: np.ndarray, layout: Layout, span: float
) -> bytes:
    """After less before: red where it became brighter, blue where darker, white where neither.

    Parameters
    ----------
    before, after : Volume
        RAS, on the grid of the layout.
    head : ndarray, shape of the volumes, bool
        Where a difference is shown: the air around is noise.
    layout : Layout
    span : float
        Difference of the strongest colours.
    """
    from PIL import Image

    # An odd number of colours, so that no difference has its own.
    middle = 127
    picture = np.full((layout.height, layout.width), middle, np.uint8)
    for tile in layout.tiles:
        first, second = (layout.cut(volume.data, tile) for volume in (before, after))
        values = np.rint(middle * (1 + np.clip((second - first) / span, -1, 1)))
        shown = layout.cut(head, tile)
        _put(picture, tile, np.where(shown, values, middle).astype(np.uint8))
    image = Image.fromarray(picture)
    image.putpalette(difference_colours().ravel().tolist())
    return _encode(_mark_sides(image, layout, 0))


def difference_colours() -> np.ndarray:
    """Colours of a difference map: shape (255, 3), uint8, no difference in the middle."""
    from matplotlib import colormaps

    return np.rint(255 * colormaps[DIFFERENCE](np.linspace(0, 1, 255))[:, :3]).astype(np.uint8)


def _place(brain: np.ndarray, axis: int, share: float, box: Sequence[slice]) -> int:
    """Voxel at a share of the brain's extent along an axis, within the box."""
    others = tuple(other for other in range(3) if other != axis)
    seen = np.flatnonzero(brain.any(axis=others))
    place = round(seen[0] + share * (seen[-1] - seen[0]))
    return int(np.clip(place, box[axis].start, box[axis].stop - 1))


def _put(picture: np.ndarray, tile: Tile, values: np.ndarray) -> None:
    picture[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = values


def _mark_sides(image, layout: Layout, shade: int):
    """Write L and R into the slices that show both sides."""
    from PIL import ImageDraw, ImageFont

    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=12)
    for tile in layout.tiles:
        if tile.plane != 'sagittal' and tile.width > 60:
            bottom = tile.top + tile.height - 2
            draw.text((tile.left + 2, bottom), 'L', shade, font, anchor='lb')
            draw.text((tile.left + tile.width - 3, bottom), 'R', shade, font, anchor='rb')
    return image


def _encode(image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, 'PNG', optimize=True)
    return stream.getvalue()
