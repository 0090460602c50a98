"""Graded artifacts of slices, to teach eta what an artifact is and how bad."""

import numpy as np
import torch

from harmony_app.phantom.artifacts import ARTIFACTS

KINDS = tuple(ARTIFACTS)
"""Artifacts that :func:`corrupt` knows."""

BRIGHTEST = 8.0
"""Intensities of a corrupted slice are clipped to this, white matter at 1."""


def corrupt(image: np.ndarray, kind: str, severity: float, seed: int) -> np.ndarray:
    """Corrupt a slice by one of :data:`harmony_app.phantom.artifacts.ARTIFACTS`.

    Parameters
    ----------
    image : ndarray, shape (H, W), float32
        White matter at 1, the air around the head as it was measured; not changed.
    kind : str
        One of :data:`KINDS`.
    severity : float
        0 (none) to 1 (unusable).
    seed : int
        Of the pattern, and of the axis of phase encoding: one seed gives one pattern at
        every severity.

    Returns
    -------
    ndarray, shape (H, W), float32
        Not negative.

    Raises
    ------
    ValueError
        For an unknown kind or a severity outside 0 to 1.
    """
    if kind not in ARTIFACTS:
        raise ValueError(f'unknown artifact {kind!r}; known: {", ".join(KINDS)}')
    turned = bool(seed % 2)
    given = torch.from_numpy(np.ascontiguousarray(image.T if turned else image, np.float32))
    generator = torch.Generator().manual_seed(seed)
    result = ARTIFACTS[kind](given[None], severity, generator)[0].clamp(0, BRIGHTEST).numpy()
    return np.ascontiguousarray(result.T) if turned else result


def draw_kind(rng: np.random.Generator) -> tuple[str, int]:
    """Kind of an artifact, and the seed of its pattern."""
    return KINDS[int(rng.integers(len(KINDS)))], int(rng.integers(2**31))


def draw_severities(rng: np.random.Generator) -> tuple[float, float]:
    """How bad both sources of an example are; 0 for one without an artifact.

    One of them alone is bad in two examples of five, both a little in three of twenty.
    """
    chance = rng.random()
    if chance < 0.4:
        bad = float(rng.uniform(0.5, 1))
        return (bad, 0.0) if rng.random() < 0.5 else (0.0, bad)
    if chance < 0.55:
        first, second = rng.uniform(0, 0.5, 2)
        return float(first), float(second)
    return 0.0, 0.0
