"""The template: ICBM 2009a symmetric, as nilearn carries it, on the working grid.

Fonov et al. 2011, NeuroImage 54: 313-327. The T1 image is skull-stripped and begins at
z = -72 mm; what lies outside is zero.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from harmony_app.errors import InputError
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.masks import largest_component

FILE = 'mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz'


@dataclass(frozen=True)
class Template:
    """The template on the working grid.

    Parameters
    ----------
    t1 : ndarray, shape of the working grid, float32
        T1-weighted brain, 0 to 1.
    tissues : ndarray, shape (3, X, Y, Z), float32
        GM, WM and CSF probabilities; they sum to 1 in the brain.
    brain : ndarray, shape of the working grid, bool
        Brain mask without holes.
    """

    t1: np.ndarray
    tissues: np.ndarray
    brain: np.ndarray


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read the template out of the installed nilearn; no network, no import of nilearn.

    Raises
    ------
    InputError
        Where the installed nilearn does not carry it.
    """
    spec = find_spec('nilearn')
    folder = Path(spec.origin).parent / 'datasets' / 'data' if spec and spec.origin else Path()
    t1, gm, wm = (_read(folder / FILE.format(name)) for name in ('t1', 'gm', 'wm'))
    brain = largest_component(ndimage.binary_opening(t1 > 0, iterations=2))
    closed = ndimage.binary_closing(np.pad(brain, 4), iterations=3)[4:-4, 4:-4, 4:-4]
    brain = ndimage.binary_fill_holes(brain | closed)
    gm, wm = gm * brain, wm * brain
    total = np.maximum(gm + wm, 1)
    gm, wm = gm / total, wm / total
    csf = np.where(brain, 1 - gm - wm, 0)
    tissues = np.stack([gm, wm, csf]).astype(np.float32)
    t1 = (t1 * brain).astype(np.float32)
    for array in (t1, tissues, brain):
        array.flags.writeable = False
    return Template(t1, tissues, brain)


def _read(path: Path) -> np.ndarray:
    """One map, 0 to 1, cut and padded to the working grid (a shift by whole voxels)."""
    if not path.is_file():
        raise InputError(f'{path}: the installed nilearn has no template; install nilearn>=0.11')
    image = nib.load(path)
    source = np.asarray(image.dataobj, dtype=np.float32) / 255
    shift = np.rint(WORKING_AFFINE[:3, 3] - image.affine[:3, 3]).astype(int)
    out = np.zeros(WORKING_SHAPE, np.float32)
    here = tuple(
        slice(max(0, -s), min(n, m - s))
        for s, n, m in zip(shift, WORKING_SHAPE, source.shape, strict=True)
    )
    there = tuple(slice(h.start + s, h.stop + s) for h, s in zip(here, shift, strict=True))
    out[here] = source[there]
    return out
