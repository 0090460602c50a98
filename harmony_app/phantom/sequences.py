"""Signal equations of the pulse sequences: what a tissue gives at a protocol.

All are steady-state magnitudes without spatial encoding; textbook forms as in Bernstein,
King and Zhou, *Handbook of MRI Pulse Sequences* (2004), and for MPRAGE the cyclic steady
state of Deichmann 2000, NeuroImage 12:112.
"""

import math

import torch

from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.tissues import TISSUES, TissueProperties

INVERSION_EFFICIENCY = 0.96
"""Of an adiabatic inversion pulse (Deichmann 2000)."""

FLOW_VOID = 0.15
"""What is left of the signal of flowing blood in spin echoes."""

_VESSEL = TISSUES.index('vessel')


def signal(protocol: Protocol, tissues: TissueProperties) -> torch.Tensor:
    """Magnitude of every tissue at a protocol.

    Parameters
    ----------
    protocol : Protocol
        Sequence and its parameters.
    tissues : TissueProperties
        Tensors of shape (..., K) at the field of the protocol.

    Returns
    -------
    Tensor, shape (..., K)
        In units of the signal of water at full magnetization.
    """
    if protocol.sequence == 'MPRAGE':
        return _mprage(protocol, tissues).abs()
    if protocol.sequence == 'SPGR':
        return _spoiled_gradient_echo(protocol, tissues)
    recovered = 1 - torch.exp(-protocol.repetition_time / tissues.t1)
    if protocol.sequence == 'FLAIR':
        inversion = 1 + INVERSION_EFFICIENCY
        recovered = (
            1
            - inversion * torch.exp(-protocol.inversion_time / tissues.t1)
            + INVERSION_EFFICIENCY * torch.exp(-protocol.repetition_time / tissues.t1)
        ).abs()
    echo = tissues.proton_density * recovered * torch.exp(-protocol.echo_time / tissues.t2)
    still = torch.ones_like(echo)
    still[..., _VESSEL] = FLOW_VOID
    return echo * still


def _spoiled_gradient_echo(protocol: Protocol, tissues: TissueProperties) -> torch.Tensor:
    angle = math.radians(protocol.flip_angle)
    decay = torch.exp(-protocol.repetition_time / tissues.t1)
    steady = math.sin(angle) * (1 - decay) / (1 - math.cos(angle) * decay)
    return tissues.proton_density * steady * torch.exp(-protocol.echo_time / tissues.t2_star)


def mprage_excitations(protocol: Protocol) -> int:
    """Excitations of one gradient-echo train, its centre at the inversion time.

    As many as the time before and after the centre allows, at most 176 (one per
    partition of a whole-head slab).
    """
    half = min(protocol.inversion_time, protocol.repetition_time - protocol.inversion_time)
    return max(2, min(176, int(1.8 * half / protocol.excitation_interval)))


def _mprage(protocol: Protocol, tissues: TissueProperties) -> torch.Tensor:
    """Longitudinal magnetization at the centre of the train, in the cyclic steady state.

    Every part of the cycle is an affine map ``m -> scale * m + shift`` of the longitudinal
    magnetization (in units of equilibrium); the steady state is the fixed point of their
    composition.
    """
    interval, angle = protocol.excitation_interval, math.radians(protocol.flip_angle)
    half = mprage_excitations(protocol) // 2

    def recovery(duration):
        decay = torch.exp(-max(duration, 0.0) / tissues.t1)
        return decay, 1 - decay

    def then(first, second):
        return second[0] * first[0], second[0] * first[1] + second[1]

    inversion = (torch.full_like(tissues.t1, -INVERSION_EFFICIENCY), torch.zeros_like(tissues.t1))
    step = then(
        (torch.full_like(tissues.t1, math.cos(angle)), torch.zeros_like(tissues.t1)),
        recovery(interval),
    )
    # `half` repetitions of one affine map: a geometric series
    scale = step[0] ** half
    train = (scale, step[1] * (1 - scale) / (1 - step[0]))
    before = recovery(protocol.inversion_time - half * interval)
    after = recovery(protocol.repetition_time - protocol.inversion_time - half * interval)
    to_centre = then(then(inversion, before), train)
    cycle = then(then(to_centre, train), after)
    steady = cycle[1] / (1 - cycle[0])
    at_centre = to_centre[0] * steady + to_centre[1]
    return (
        tissues.proton_density
        * at_centre
        * math.sin(angle)
        * torch.exp(-protocol.echo_time / tissues.t2_star)
    )
