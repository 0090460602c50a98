"""Slices of a volume on a Matplotlib figure, and the figure in a small, reproducible PNG.

Figures are built as objects, without pyplot: nothing global changes, and many can be made
in one process.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harmony_app.bids.atomic import atomic_path
from harmony_app.imaging.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLANES = {'axial': 2, 'coronal': 1, 'sagittal': 0}
"""Planes and the axis (RAS) that runs through them."""

DPI = 100

FOREGROUND = 0.05
"""Share of the white-matter peak above which a voxel shows something."""

DIFFERENCE = 'RdBu_r'
"""Matplotlib colour map of difference maps, white at 0."""

BEFORE, AFTER, TARGET = '#4c72b0', '#c44e52', '#222222'
"""Colours of lines, told apart by colour-blind eyes too."""


def new_figure(width: float, height: float) -> 'Figure':
    """Make a figure of a size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: 'Figure', path: Path) -> Path:
    """Write a figure as a PNG of one palette: the same figure gives the same bytes.

    Raises
    ------
    OutputError
        Where it cannot be written.
    """
    from PIL import Image

    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(np.int32)
    palette = _palette()
    # Nearest entry, found once for each colour that occurs.
    packed = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    colours, which = np.unique(packed, return_inverse=True)
    colours = np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=-1)
    nearest = ((colours[:, None] - palette) ** 2).sum(axis=-1).argmin(axis=1)
    image = Image.frombytes('P', packed.shape[::-1], nearest[which].astype(np.uint8).tobytes())
    image.putpalette(palette.ravel().tolist())
    stream = io.BytesIO()
    image.save(stream, 'PNG', optimize=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(stream.getvalue())
    return Path(path)


def draw_slice(
    axes: 'Axes',
    volume: Volume,
    plane: str,
    position: Sequence[float],
    box: tuple[slice, slice, slice],
    window: tuple[float, float],
    colours: str = 'gray',
) -> None:
    """Draw one slice as it lies in the head: right is right, and millimetres are square.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    volume : Volume
        Axes to the right, front and top.
    plane : str
        Key of :data:`PLANES`.
    position : sequence of 3 float
        Voxel that the slice passes through.
    box : tuple of 3 slice
        Part of the volume to show.
    window : tuple of 2 float
        Intensities shown darkest and brightest.
    colours : str
        Matplotlib colour map.
    """
    through = PLANES[plane]
    index = list(box)
    index[through] = int(np.clip(np.round(position[through]), 0, volume.shape[through] - 1))
    zooms = [zoom for axis, zoom in enumerate(volume.zooms) if axis != through]
    axes.imshow(
        volume.data[tuple(index)].T,
        origin='lower',
        cmap=colours,
        vmin=window[0],
        vmax=window[1],
        aspect=zooms[1] / zooms[0],
        interpolation='nearest',
    )
    axes.set_xticks([])
    axes.set_yticks([])
    if plane != 'sagittal':
        for place, side in ((0.03, 'L'), (0.97, 'R')):
            axes.text(
                place,
                0.03,
                side,
                transform=axes.transAxes,
                color='white' if colours == 'gray' else 'black',
                ha='left' if side == 'L' else 'right',
                fontsize=8,
            )


def foreground_box(*volumes: Volume, margin: int = 2) -> tuple[slice, slice, slice]:
    """Smallest box of voxels around what any of the volumes of one grid shows."""
    seen = np.zeros(volumes[0].shape, bool)
    for volume in volumes:
        seen |= volume.data > FOREGROUND
    if not seen.any():
        return tuple(slice(0, n) for n in seen.shape)
    box = []
    for length, counts in zip(seen.shape, _counts(seen), strict=True):
        # A tenth of a per cent of a slice is speckle in the air, no head.
        least = min(0.001 * seen.size / length, counts.max() / 2)
        places = np.flatnonzero(counts > least)
        box.append(slice(max(places[0] - margin, 0), min(places[-1] + margin + 1, length)))
    return tuple(box)


def centre(mask: np.ndarray) -> tuple[float, float, float]:
    """Centre of mass of a mask in voxels; the middle of the array where it is empty."""
    if not mask.any():
        return tuple((n - 1) / 2 for n in mask.shape)
    return tuple(float(np.arange(n.size) @ n / n.sum()) for n in _counts(mask))


def _counts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of a mask in each slice across each of its three axes."""
    columns = mask.sum(axis=2, dtype=np.int64)
    return columns.sum(axis=1), columns.sum(axis=0), mask.sum(axis=(0, 1), dtype=np.int64)


def _palette() -> np.ndarray:
    """Colours of a PNG: shape (n, 3), 0 to 255, n not above 256.

    They are the same in every picture: a third of the bytes of full colour, and a grey or a
    difference means the same everywhere.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    grey = np.linspace(0, 1, 120)[:, None].repeat(3, axis=1)
    # An odd number, so that no difference has its own colour.
    difference = colormaps[DIFFERENCE](np.linspace(0, 1, 127))[:, :3]
    lines = [to_rgb(colour) for colour in (BEFORE, AFTER, TARGET)]
    # What lies between a line and the paper.
    lines += [tuple((1 + c) / 2 for c in rgb) for rgb in lines]
    return np.round(255 * np.concatenate([grey, difference, lines])).astype(np.int32)
