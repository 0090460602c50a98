"""What a training of MISPEL is told."""

from dataclasses import dataclass, replace

from harmony_app.training.slice_settings import LOOP as SLICE_LOOP
from harmony_app.training.slice_settings import SliceSettings

SITES = ('mispel-ge', 'mispel-philips', 'mispel-siemensp', 'mispel-siemenst')
"""Sites of the phantom with the T1w protocols of the paper's Table 1."""

LOOP = replace(SLICE_LOOP, batch=2, rate=2e-3, plateau=0.6)
"""What the loop is told unless asked otherwise; the paper takes batches of 4 and a rate of 0.01."""


@dataclass(frozen=True)
class Settings(SliceSettings):
    """Widths, crops, the phantom's scanners, and the weights of section 2.3.2.

    Parameters
    ----------
    variant : str
        Widths, a name in :data:`harmony_app.nets.mispel.VARIANTS`.
    size : int
        Edge of the crops.
    sites, contrasts : tuple of str
        Scanners of the phantom, and their contrasts.
    reconstruction, coupling : float
        Weights of step 1, embedding learning (lambda 1 and 2).
    kept, harmonization : float
        Weights of step 2, harmonization (lambda 3, of the reconstruction, and lambda 4).
    white_matter : float
        White matter in the unit that the weights were found in. The paper divides a volume by its
        mean, air included; of a template's box a brain fills a sixth to a fifth. A variance goes with
        the square of the unit and an absolute error with the unit, so the weight of the coupling
        means nothing without it.
    embedding : float
        Share of the budget of step 1. In the paper it is 200 minutes of 230, and half of the epochs.
    """

    sites: tuple[str, ...] = SITES
    contrasts: tuple[str, ...] = ('T1w',)
    reconstruction: float = 1.0
    coupling: float = 0.3
    kept: float = 1.0
    harmonization: float = 4.0
    white_matter: float = 6.0
    embedding: float = 0.75
