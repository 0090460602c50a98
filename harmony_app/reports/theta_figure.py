"""Picture of a walk through the space of contrasts: where the thetas lie, and what they decode to."""

import string
from collections.abc import Mapping

import numpy as np

from harmony_app.reports.canvas import TARGET, new_figure
from harmony_app.reports.group_figures import draw_points, png_bytes, short_name


def theta_figure(
    points: Mapping[str, np.ndarray],
    source: np.ndarray,
    lattice: np.ndarray,
    images: np.ndarray,
) -> bytes:
    """Thetas by group at the left, images of a lattice of thetas at the right.

    Parameters
    ----------
    points : mapping of str to ndarray, shape (N, 2)
        Thetas of scans by site or by contrast.
    source : ndarray, shape (2,)
        Theta of the scan whose anatomy is decoded; a ring.
    lattice : ndarray, shape (n * n, 2)
        Thetas of the images, lettered row by row; crosses.
    images : ndarray, shape (n * n, H, W)
        White matter at about 1.

    Returns
    -------
    bytes
        PNG.

    Raises
    ------
    ValueError
        Where there are not as many images as points of a square lattice.
    """
    count = round(len(lattice) ** 0.5)
    if count * count != len(lattice) or len(images) != len(lattice):
        raise ValueError('a square lattice has an image for each of its points')
    # wide at the left for the plane, then a square of images
    figure = new_figure(8.2, 4.2)
    plane = figure.add_axes((0.08, 0.24, 0.38, 0.70))
    names = sorted(points)
    for name in names:
        draw_points(plane, names, name, points[name][:, 0], points[name][:, 1])
    plane.scatter(*source, s=110, facecolors='none', edgecolors='#222222', linewidths=1.4, zorder=4)
    plane.scatter(lattice[:, 0], lattice[:, 1], marker='x', s=22, color=TARGET, linewidths=1.2)
    for letter, (x, y) in zip(string.ascii_lowercase, lattice, strict=False):
        plane.annotate(letter, (x, y), (4, 3), textcoords='offset points', fontsize=8)
    plane.set_xlabel('theta 1', fontsize=9)
    plane.set_ylabel('theta 2', fontsize=9)
    plane.tick_params(labelsize=8)
    plane.margins(0.1)
    plane.spines[['top', 'right']].set_visible(False)
    handles, _ = plane.get_legend_handles_labels()
    figure.legend(
        handles or plane.collections[: len(names)],
        [short_name(name, 30) for name in names],
        loc='lower center',
        bbox_to_anchor=(0.27, 0.0),
        ncols=min(3, max(1, len(names))),
        fontsize=7,
        frameon=False,
    )
    bright = max(float(np.percentile(images, 99.5)), 1e-6)
    edge = 0.94 / count
    for index, image in enumerate(images):
        row, column = divmod(index, count)
        place = figure.add_axes(
            (0.52 + 0.46 * column / count, 0.97 - (row + 1) * edge, 0.455 / count, edge * 0.98)
        )
        place.imshow(image, cmap='gray', vmin=0, vmax=bright)
        place.text(
            0.04, 0.95, string.ascii_lowercase[index % 26], color='white', fontsize=9,
            transform=place.transAxes, va='top',
        )  # fmt: skip
        place.set_axis_off()
    return png_bytes(figure, few=False)
