"""What the trainings of DLEST are told."""

from dataclasses import dataclass

from harmony_app.training.base import LoopSettings
from harmony_app.training.slice_settings import SliceSettings

LOOP = LoopSettings(
    minutes=60.0,
    batch=2,
    rate=2e-3,
    warm_steps=100,
    plateau=0.3,
    average=0.995,
    validation_steps=250,
    checkpoint_minutes=5.0,
)
"""What the loop of the autoencoder is told unless asked otherwise."""

ENERGY_LOOP = LoopSettings(
    minutes=4.0,
    batch=4,
    rate=3e-3,
    decay=0.0,
    warm_steps=20,
    plateau=0.3,
    average=0.98,
    validation_steps=50,
    checkpoint_minutes=5.0,
)
"""What the loop of the energy of a site is told unless asked otherwise."""

SITE_STEPS = 100
"""Steps in which an energy is fitted to a site."""


@dataclass(frozen=True)
class Settings(SliceSettings):
    """Widths, crops and weights of the losses of the autoencoder (equations 1 to 5).

    The paper gives no weights. Widths are those of :data:`harmony_app.nets.dlest.VARIANTS`.

    Parameters
    ----------
    looks : int
        Scans of each crop, every one by a scanner of its own.
    t1w : float
        Share of T1w among the phantom's scans, the contrast of the paper; the rest is of all.
    pixel : float
        Weight of the L1 of a slice and its reconstruction (equation 2).
    edges : float
        Share in it of the L1 of differences of neighbours, ours.
    latent : float
        Weight of the error of codes made from noise, decoded and encoded again (equation 1).
    adversarial : float
        Weight of both sides of the game (equations 3 and 4).
    penalty : float
        gamma of the gradient penalty of real slices (after equation 4).
    prior, jitter : float
        Weight of the mean square of a code, and standard deviation of the noise that is added to
        codes before they are decoded. Ours: together they are the bottleneck of a variational
        autoencoder of fixed variance, without which neighbours of a code mean nothing and a chain
        leaves what the decoder knows.
    """

    size: int = 96
    looks: int = 3
    t1w: float = 0.7
    pixel: float = 20.0
    edges: float = 0.5
    latent: float = 1.0
    adversarial: float = 0.1
    penalty: float = 10.0
    prior: float = 0.003
    jitter: float = 0.05


@dataclass(frozen=True)
class EnergySettings:
    """Crops and weights of the losses of an energy (equations 6 to 10).

    The paper's weights are 1, alpha = 1 and beta = 100, of terms that carry no gradient in its
    public code, so nothing can be read from them. Where the terms do act, a content term of
    weight 1 holds a style where it is, and a cycle of weight 100 forbids that the styles of many
    sites become one, so both are smaller here.

    Parameters
    ----------
    size : int
        Edge of the crops.
    energy : float
        Weight of the contrast of energies (equation 6).
    content : float
        alpha, of the difference of a code and what it is led to (equation 8).
    cycle : float
        beta, of what a chain uphill brings back (equation 9).
    regular : float
        Of the squares of energies, which keeps them finite (Du and Mordatch 2019).
    truth : float
        Of the L1 of what a slice is led to and what it is at the site, where that is known: for
        slices of the site that went through a random monotone map of intensities, and on the
        phantom. Ours: no scan of anyone at two sites is needed for it, and it tells a chain
        how far to go. 0 for the paper's losses alone.
    edges : float
        As in :class:`Settings`.
    remap : float
        Strongest random map (:func:`harmony_app.training.randomize.random_monotone_map`).
    unpaired : float
        Share of the sources that are of other sites, where there are any; the rest are slices of
        the site through a random map.
    slices : int
        Slices of the site that are learned from (about 100 in section 3.2.3).
    whole : bool
        Whether all weights are learned of an energy that began as that of no site, not only what
        it is told of its site. Slices of a site do not say how far those of others have to go:
        all weights forget it. On the phantom, where that is known, they gain.
    """

    size: int = 96
    energy: float = 0.1
    content: float = 0.1
    cycle: float = 0.1
    regular: float = 0.01
    truth: float = 10.0
    edges: float = 0.5
    remap: float = 0.35
    unpaired: float = 0.5
    slices: int = 100
    whole: bool = False


SHARED_LOOP = LoopSettings(
    minutes=30.0,
    batch=8,
    rate=3e-3,
    decay=0.0,
    warm_steps=50,
    plateau=0.4,
    average=0.99,
    validation_steps=250,
    checkpoint_minutes=5.0,
)
"""What the loop of the energy of no site is told unless asked otherwise."""


@dataclass(frozen=True)
class SharedSettings:
    """Draws and weights of the losses of the energy that those of new sites begin as.

    Parameters
    ----------
    size : int
        Edge of the crops.
    t1w : float
        Share of T1w among the draws, the contrast of the paper; the rest is of the others evenly.
    shown : int
        Slices of others at the target's scanner, of which an energy is told.
    again, kept : int
        Draws of those before that are learned from again at every step, and how many are kept.
    truth : float
        Weight of the squared error of codes.
    energy, regular : float
        As in :class:`EnergySettings`.
    """

    size: int = 96
    t1w: float = 0.5
    shown: int = 2
    again: int = 16
    kept: int = 768
    truth: float = 1.0
    energy: float = 0.01
    regular: float = 0.001
