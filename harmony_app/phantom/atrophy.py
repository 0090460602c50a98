"""Atrophy: cerebrospinal fluid takes the place of brain tissue beside it."""

import torch

from harmony_app.phantom.acquisition import point_spread
from harmony_app.phantom.anatomy import Anatomy
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES

_CSF = TISSUES.index('csf')
_BRAIN = [TISSUES.index(name) for name in BRAIN_TISSUES]

REACH = 2.0
"""Standard deviation in mm of the neighbourhood in which fluid replaces tissue."""


def apply_atrophy(anatomy: Anatomy, loss: float, ventricular: float = 1.0) -> Anatomy:
    """Let sulci widen and ventricles expand.

    Tissue is replaced in the order of how much fluid lies near it, so that the borders
    recede as a front does; sums of fractions are kept.

    Parameters
    ----------
    anatomy : Anatomy
        The head.
    loss : float
        Share of the brain volume that is lost, 0 to 0.15; met within a twentieth of itself.
    ventricular : float
        How much more the ventricles expand than the sulci widen, 0 for alike.

    Raises
    ------
    ValueError
        Where the loss is out of range or there is no fluid to begin with.
    """
    if loss == 0:
        return anatomy
    if not 0 < loss <= 0.15:
        raise ValueError(f'atrophy {loss} is not within 0 and 0.15 of the brain volume')
    fractions = anatomy.fractions
    zooms = torch.as_tensor(anatomy.affine[:3, :3]).norm(dim=0).tolist()
    brain, csf = fractions[_BRAIN].sum(0), fractions[_CSF]
    near = point_spread(csf[None], [2.3548 * REACH / z for z in zooms])[0]
    if ventricular:
        # fluid deep inside: no skull or scalp within 2 cm
        step = 3
        outside = (1 - brain - csf)[None, ::step, ::step, ::step].contiguous()
        inside = 1 - point_spread(outside, [2.3548 * 8.0 / (step * z) for z in zooms])[0]
        deep = ((inside - 0.85) / 0.1).clamp(0, 1)
        deep = torch.nn.functional.interpolate(
            deep[None, None], size=csf.shape, mode='trilinear', align_corners=False
        )[0, 0]
        near = near * (1 + ventricular * deep)

    def replaced(level, near, csf, brain):
        # a front of limited steepness keeps partial volume; fluid that is there stays
        front = ((near - level) / 0.2).clamp(0, 1)
        front = front * front * (3 - 2 * front)
        return torch.minimum((front * (csf + brain) - csf).clamp(min=0), brain)

    sparse = (slice(None, None, 2),) * 3
    few = near[sparse], csf[sparse], brain[sparse]
    wanted = loss * float(few[2].sum())
    low, high = 0.0, 2.0
    for _ in range(16):
        level = (low + high) / 2
        low, high = (level, high) if float(replaced(level, *few).sum()) > wanted else (low, level)
    gone = replaced(level, near, csf, brain)
    if float(gone.sum()) < 0.8 * loss * float(brain.sum()):
        raise ValueError('the head shows too little cerebrospinal fluid for this atrophy')
    result = fractions.clone()
    result[_BRAIN] *= (1 - gone / brain.clamp(min=1e-6)).clamp(0, 1)
    result[_CSF] += gone
    return anatomy.with_fractions(result)
