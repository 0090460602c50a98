"""What a training of CALAMITI is told."""

from dataclasses import dataclass, replace

from harmony_app.training.slice_settings import LOOP as SLICE_LOOP
from harmony_app.training.slice_settings import SliceSettings

LOOP = replace(SLICE_LOOP, validation_steps=500)
"""What the loop is told unless asked otherwise."""


@dataclass(frozen=True)
class Settings(SliceSettings):
    """Widths, crops and weights of the losses (section 2.3, after equation 6).

    The paper gives no weights; those of similarity, discriminator and bottleneck are small beside
    the reconstruction, as it says. Its perceptual term is left out, for it needs the weights of a
    network that was trained elsewhere (and was of no significant use, section 3.2).

    Parameters
    ----------
    variant : str
        Widths, a name in :data:`harmony_app.nets.calamiti.VARIANTS`.
    size : int
        Edge of the crops.
    reconstruction : float
        Weight of the L1 to the slice of the target.
    edges : float
        Share in it of the L1 of differences of neighbours: in place of the perceptual term, ours.
    kl : float
        Weight of the bottleneck.
    beta : float
        Weight of the difference of the anatomy of two contrasts.
    adversarial : float
        Weight of what the discriminator costs the anatomy encoder (equation 3).
    discriminator : float
        Weight of the discriminator's own loss (equation 2); no other network learns from it.
    tissue, levels : float
        Weights of the cross entropy of the anatomy against the phantom's tissues, and of the
        error of the tissue intensities that a small network reads off theta. Ours, and only of
        examples whose truth is known; they spare hours. 0 for the paper's losses alone.
    tissue_until : float
        Share of the budget over which both fall to a tenth.
    warm : float
        Share of the budget in which the reconstruction teaches the decoder alone: one that
        knows nothing yet would only drag the encoders along.
    hot, cold : float
        Temperature of the Gumbel softmax at the beginning and at the end.
    home : float
        Share of the phantom's examples that are scanned at Site A.
    """

    reconstruction: float = 10.0
    edges: float = 0.5
    kl: float = 0.003
    beta: float = 0.3
    adversarial: float = 0.05
    discriminator: float = 0.5
    tissue: float = 2.0
    levels: float = 2.0
    tissue_until: float = 0.8
    warm: float = 0.15
    hot: float = 1.0
    cold: float = 0.5
    home: float = 0.3
