"""Brain masks and transforms that a derivative dataset already holds."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from harmony_app.bids.discovery import ScanInput
from harmony_app.bids.entities import build_name
from harmony_app.imaging.grid import SPACE

logger = logging.getLogger('harmony_app')


def find_precomputed(
    derivatives: Mapping[str, Path], scans: Iterable[ScanInput]
) -> dict[str, dict[str, Path]]:
    """Find masks and transforms that belong to scans, by name.

    Taken are ``desc-brain_mask`` on the scan's own grid (of a T1w; for the other contrasts
    ``desc-brainT2w_mask`` and so on) and affine ``from-T1w_to-MNI152NLin2009aSym`` text
    transforms; others (non-linear, other templates) are left alone.

    Parameters
    ----------
    derivatives : mapping of str to Path
        Datasets by name; an earlier one wins.
    scans : iterable of ScanInput
        Scans of the input.

    Returns
    -------
    dict of str to dict
        By the name of a scan: ``mask_file`` and ``transform_file``.
    """
    found: dict[str, dict[str, Path]] = {}
    for scan in scans:
        for key, path in _candidates(scan, derivatives.values()):
            if path.is_file() and key not in found.get(scan.name, {}):
                logger.info('%s: %s is taken from %s', scan.name, key.split('_')[0], path)
                found.setdefault(scan.name, {})[key] = path
    return found


def _candidates(scan: ScanInput, roots: Iterable[Path]) -> Iterable[tuple[str, Path]]:
    entities = dict(scan.entities)
    way = {'from': scan.contrast, 'to': SPACE, 'mode': 'image'}
    for root in roots:
        folder = Path(root) / f'sub-{scan.subject}'
        if scan.session:
            folder = folder / f'ses-{scan.session}'
        desc = 'brain' if scan.contrast == 'T1w' else f'brain{scan.contrast}'
        for extension in ('.nii.gz', '.nii'):
            name = build_name(entities | {'desc': desc}, 'mask', extension)
            yield 'mask_file', folder / 'anat' / name
        yield 'transform_file', folder / 'anat' / build_name(entities | way, 'xfm', '.txt')
