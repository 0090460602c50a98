"""What a scanner was asked to do for one contrast, and what it adds of its own."""

from dataclasses import dataclass

SEQUENCES = ('MPRAGE', 'SPGR', 'TSE', 'FLAIR')
"""Pulse sequences with a signal equation in :mod:`harmony_app.phantom.sequences`."""


@dataclass(frozen=True)
class Protocol:
    """A pulse sequence with its parameters.

    Parameters
    ----------
    contrast : str
        T1w, T2w, PDw or FLAIR.
    sequence : str
        One of :data:`SEQUENCES`. A dual-echo PD/T2 acquisition is two TSE protocols of
        one repetition time.
    field : float
        Field strength in tesla; relaxation times are known at 1.5 and 3.
    repetition_time, echo_time, inversion_time : float
        In ms. For MPRAGE ``repetition_time`` is from inversion to inversion and
        ``excitation_interval`` from excitation to excitation; the inversion time is zero
        for sequences without inversion.
    flip_angle : float
        In degrees; of the excitation for MPRAGE and SPGR, of the refocusing for TSE and FLAIR.
    excitation_interval : float
        MPRAGE only: repetition time within the gradient-echo train, ms.
    zooms : tuple of 3 float
        Acquired voxel size in mm, along the axes of the acquisition; for a 2D acquisition
        the third is the slice thickness.
    acquisition : str
        ``3D`` or ``2D``.
    plane : str
        ``axial``, ``coronal`` or ``sagittal``: the in-plane orientation, of 2D slices or of the 3D slab.
    snr : float
        Mean white-matter signal over the standard deviation of the noise in the real and imaginary channel.
    bias : float
        Strength of the receive field: largest deviation from its mean within the head (0.3 is 30 %).
    """

    contrast: str
    sequence: str
    field: float
    repetition_time: float
    echo_time: float
    inversion_time: float = 0.0
    flip_angle: float = 90.0
    excitation_interval: float = 0.0
    zooms: tuple[float, float, float] = (1.0, 1.0, 1.0)
    acquisition: str = '3D'
    plane: str = 'axial'
    snr: float = 30.0
    bias: float = 0.2

    def __post_init__(self):
        if self.sequence not in SEQUENCES:
            raise ValueError(f'unknown sequence {self.sequence!r}; known: {", ".join(SEQUENCES)}')
        for name in ('field', 'repetition_time', 'echo_time', 'flip_angle', 'snr'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name} of a protocol is positive, not {getattr(self, name)}')
