"""How synthetic slices of a site compare with its own (Wu 2024, Table 2)."""

from collections.abc import Iterable, Sequence
from itertools import combinations, product

import numpy as np
from scipy import ndimage

from harmony_app.evaluation.metrics import pcc, psnr, rmse, ssim

MEASURES = ('ssim', 'psnr', 'rmse', 'pcc')
"""Columns of the table, each with its mean and its standard deviation."""

DARK = 0.1
"""Below this, white matter at 1, a pixel is background."""


def compare_synthesis(
    originals: Sequence[tuple[str, np.ndarray]], synthetic: Sequence[np.ndarray]
) -> list[dict[str, object]]:
    """Every original with those of other people, and with every synthetic slice.

    Like slices of like style and of other people: where both rows are the same, a synthetic slice
    is as near to the originals as they are to each other.

    Parameters
    ----------
    originals : sequence of (str, ndarray)
        Person and slice (H, W) of a brain without its skull, white matter at 1.
    synthetic : sequence of ndarray, shape (H, W)

    Returns
    -------
    list of dict
        Rows ``original`` (where there are two people) and ``synthetic`` of ``data``, ``pairs``
        and of each of :data:`MEASURES` its ``_mean`` and ``_sd``. Root mean squared errors are in
        the unit of the data range, the brightest original (its 99.5th percentile).

    Raises
    ------
    ValueError
        Where there is no original.
    """
    if not originals:
        raise ValueError('synthetic slices are compared with an original at least')
    span = max(float(np.percentile(image, 99.5)) for _, image in originals)
    own = (
        (image, other)
        for (person, image), (somebody, other) in combinations(originals, 2)
        if person != somebody
    )
    made = ((image, other) for (_, image), other in product(originals, synthetic))
    rows = [_row('original', own, span), _row('synthetic', made, span)]
    return [row for row in rows if row['pairs']]


def _row(name: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]], span: float) -> dict:
    values: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for one, other in pairs:
        # background that both share would count as likeness
        mask = _shown(one) | _shown(other)
        values['ssim'].append(ssim(other, one, mask, span))
        values['psnr'].append(psnr(other, one, mask, span))
        values['rmse'].append(rmse(other, one, mask) / span)
        values['pcc'].append(pcc(other, one, mask))
    row: dict[str, object] = {'data': name, 'pairs': len(values['ssim'])}
    for measure, found in values.items():
        if found:
            row[f'{measure}_mean'] = float(np.mean(found))
            row[f'{measure}_sd'] = float(np.std(found))
    return row


def _shown(image: np.ndarray) -> np.ndarray:
    return ndimage.binary_fill_holes(image > DARK)
