"""One picture of each contrast: the same slice under every method, with the truth and the limit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.sessions import BEFORE, slice_volume
from harmony_app.reports.figure import mosaic


def draw_contrast(
    path: Path,
    kept: Sequence[tuple[tuple[str, str], Mapping[str, np.ndarray]]],
    contrast: str,
    methods: Sequence[str],
    most: int,
) -> Path | None:
    """Draw the first pairs of a contrast, all images of a row in the window of its truth.

    Parameters
    ----------
    path : Path
        PNG to write.
    kept : sequence of ((subject, session), arrays)
        Arrays of the sessions by ``picture/CONTRAST/TARGET/NAME``.
    contrast : str
        Which contrast.
    methods : sequence of str
        In the order of the columns; one that failed on a scan is shown black.
    most : int
        Rows at most.

    Returns
    -------
    Path or None
        None where nothing was kept.
    """
    titles = [BEFORE, *methods, 'limit', 'truth']
    rows = []
    for (subject, session), arrays in kept:
        slices: dict[str, dict[str, np.ndarray]] = {}
        for key, data in arrays.items():
            kind, *place = key.split('/')
            if kind == 'picture' and place[0] == contrast:
                slices.setdefault(place[1], {})[place[2]] = data
        for target, found in slices.items():
            empty = np.zeros_like(found[BEFORE])
            images = [slice_volume(found.get(name, empty)) for name in titles]
            rows.append((f'sub-{subject} {session} to {target}', images))
    return mosaic(path, rows[:most], titles, reference='truth') if rows else None
