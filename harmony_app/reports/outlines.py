"""Outlines of registered maps over a scan, as SVG: sharp at any size, with the scan visible below."""

from collections.abc import Mapping

import numpy as np

from harmony_app.reports.tiles import Layout

TOLERANCE = 0.35
"""Pixels that a line may lie beside the border: half the points, and no difference to see."""

SHORTEST = 8
"""Points of the shortest outline that is drawn: islands of a few voxels say nothing."""


def outline_svg(maps: Mapping[str, np.ndarray], layout: Layout) -> str:
    """Draw where each map passes one half.

    Parameters
    ----------
    maps : mapping of str to ndarray, shape (X, Y, Z)
        By class name of the line: masks or probabilities, 0 to 1.
    layout : Layout
        Of the picture that the lines lie on.

    Returns
    -------
    str
        An ``svg`` element with the size of the picture as its coordinates.
    """
    from skimage.measure import approximate_polygon, find_contours

    paths = []
    for name, data in maps.items():
        lines = []
        for tile in layout.tiles:
            # A border of zeros closes what reaches the edge of the slice.
            section = np.pad(layout.cut(data, tile).astype(np.float32), 1)
            for contour in find_contours(section, 0.5):
                if len(contour) < SHORTEST:
                    continue
                points = approximate_polygon(contour, TOLERANCE)
                # Half a pixel: a voxel's value stands in its middle.
                shifted = points[:, ::-1] - 0.5 + (tile.left, tile.top)
                lines.append('M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in shifted))
        paths.append(f'<path class="{name}" d="{"".join(lines)}"/>')
    return (
        f'<svg class="outlines" viewBox="0 0 {layout.width} {layout.height}" aria-hidden="true">'
        f'{"".join(paths)}</svg>'
    )
