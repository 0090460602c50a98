"""What the transfer network is told: where tissues are, and the two styles."""

import numpy as np
import torch
from torch.nn import functional

from harmony_app.imaging.profile import TissueProfile
from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.bilateral import FEATURE_STEP, compress

_BRAIN = np.searchsorted(np.arange(100), [0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99])
_HEAD = np.array([5, 20, 35, 50, 65, 80, 90, 97])

CONDITION = 3 * (6 + len(_BRAIN)) + 2 * (len(_HEAD) + 1) + len(CONTRASTS) - 1
"""Length of the condition vector."""


def condition_vector(source: TissueProfile, target: TissueProfile, contrast: str) -> torch.Tensor:
    """Both measured styles and their difference as one vector.

    Parameters
    ----------
    source, target : TissueProfile
        Measured styles.
    contrast : str
        One of :data:`~harmony_app.methods.base.CONTRASTS`.

    Returns
    -------
    Tensor, shape (CONDITION,), float32
    """
    here, there = _style_vector(source), _style_vector(target)
    # PDw is the contrast with no flag of its own: three flags tell four contrasts
    flags = np.array([contrast == name for name in CONTRASTS if name != 'PDw'], np.float32)
    difference = (there - here)[: 6 + len(_BRAIN)]
    return torch.from_numpy(np.concatenate([here, there, 3 * difference, flags]))


def _style_vector(profile: TissueProfile) -> np.ndarray:
    levels = np.asarray(profile.levels, np.float32)
    spreads = np.asarray(profile.spreads, np.float32)
    brain = np.asarray(profile.brain, np.float32)[_BRAIN]
    values = np.concatenate([levels, brain])
    head = np.zeros(len(_HEAD) + 1, np.float32)
    if profile.head:
        quantiles = np.asarray(profile.head, np.float32)[_HEAD]
        head = np.concatenate([[1.0], quantiles / (1 + quantiles)])
    brain_part = np.concatenate([values / (1 + values), np.minimum(spreads, 2)])
    return np.concatenate([4 * brain_part - 2, head]).astype(np.float32)


def volume_features(
    data: torch.Tensor, brain: torch.Tensor, tissues: torch.Tensor, step: int
) -> torch.Tensor:
    """Averages of the scan and of the registered maps over cubes.

    Parameters
    ----------
    data : Tensor, shape (X, Y, Z), float32
        Scan, white-matter peak 1.
    brain : Tensor, shape (X, Y, Z)
        Brain mask.
    tissues : Tensor, shape (3, X, Y, Z), float32
        Registered maps, 0 to 1.
    step : int
        Voxels of this grid in the edge of one cube: 4 at 1 mm, 2 at 2 mm.

    Returns
    -------
    Tensor, shape (6, X / step, Y / step, Z / step)
        Mean of the compressed scan, its spread, brain, GM, WM, CSF.
    """
    squeezed = compress(data)
    stacked = torch.stack([squeezed, squeezed**2, brain.float(), *tissues])
    averaged = functional.avg_pool3d(stacked[None], step)[0]
    spread = (averaged[1] - averaged[0] ** 2).clamp(min=0).sqrt()
    return torch.cat([averaged[:1], 4 * spread[None], averaged[2:]])


def features_of_working(
    data: np.ndarray, brain: np.ndarray, tissues: np.ndarray, device: str
) -> torch.Tensor:
    """:func:`volume_features` of arrays on the working grid at 1 mm, shape (6, 48, 56, 48).

    The scan is averaged to 2 mm before its spread is taken, as in training.
    """
    scan = functional.avg_pool3d(torch.from_numpy(np.ascontiguousarray(data))[None, None], 2)[0, 0]
    maps = np.stack([brain.astype(np.float32), *(tissues.astype(np.float32) / 255)])
    maps = functional.avg_pool3d(torch.from_numpy(maps)[None], 2)[0]
    return volume_features(
        scan.to(device), maps[0].to(device), maps[1:].to(device), FEATURE_STEP // 2
    )
