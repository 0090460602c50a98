"""Changes of contrast that turn one scan into pairs of a known truth (Cackowski 2023, 2.2.1)."""

from collections.abc import Callable

import numpy as np

from harmony_app.training.randomize import random_monotone_map

BRIGHTEST = 6.0
"""Intensities are clipped at this many white-matter peaks."""

Alteration = Callable[[np.ndarray], np.ndarray]
"""Maps intensities, white matter at 1, to others that keep 0 and 1 where they are."""


def altered_by_gamma(image: np.ndarray, gamma: float) -> np.ndarray:
    """Raise intensities to a power.

    The paper alters images whose white matter lies at 0.7 of their range, and aligns the
    peaks of white matter before. Here they are aligned at 1 before and after, which is the same
    but for that factor: (0.7 x)^g / 0.7^g = x^g.

    Parameters
    ----------
    image : ndarray
        Not negative, white matter at 1.
    gamma : float
        Above 0.

    Examples
    --------
    >>> altered_by_gamma(np.array([0.0, 0.25, 1.0, 4.0]), 1.5).tolist()
    [0.0, 0.125, 1.0, 6.0]
    """
    return np.minimum(np.maximum(image, 0) ** gamma, BRIGHTEST).astype(image.dtype)


def draw_alteration(
    gammas: float,
    maps: float,
    gamma: tuple[float, float],
    strength: float,
    rng: np.random.Generator,
) -> Alteration:
    """Draw a change of contrast.

    Parameters
    ----------
    gammas, maps : float
        Chance of a gamma, and of a monotone map; for the rest nothing changes.
    gamma : tuple of two float
        Range of the exponent, evenly drawn.
    strength : float
        Strongest map, see :func:`~harmony_app.training.randomize.random_monotone_map`.
    rng : numpy.random.Generator
        Draws everything.
    """
    kind = rng.random()
    if kind < gammas:
        exponent = float(rng.uniform(*gamma))
        return lambda image: altered_by_gamma(image, exponent)
    if kind < gammas + maps:
        knots = random_monotone_map(rng.uniform(0, strength), rng)
        return lambda image: np.interp(image, *knots).clip(0, BRIGHTEST).astype(np.float32)
    return lambda image: image
