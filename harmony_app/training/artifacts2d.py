"""Graded corruptions of slices, to teach eta what an artifact is and how bad.

Kinds and severities follow the recipe of artifact scoring (MIDL 2025): each corruption has
a strength that maps in closed form to a severity between 0 and 1.
"""

from collections.abc import Callable

import numpy as np

KINDS = ('noise', 'ghosting', 'bias', 'downsampling', 'motion', 'spike')
"""Corruptions that :func:`corrupt` knows."""


def corrupt(image: np.ndarray, kind: str, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Corrupt a slice.

    Parameters
    ----------
    image : ndarray, shape (H, W), float32
        White matter at 1; not changed.
    kind : str
        One of :data:`KINDS`.
    severity : float
        0 (barely visible) to 1 (useless).
    rng : numpy.random.Generator
        Draws what the severity leaves open.

    Returns
    -------
    ndarray, shape (H, W), float32
        Not negative.
    """
    if not 0 <= severity <= 1:
        raise ValueError(f'a severity lies between 0 and 1, not at {severity}')
    if kind not in _CORRUPTIONS:
        raise ValueError(f'unknown artifact {kind!r}; known: {", ".join(KINDS)}')
    return np.clip(_CORRUPTIONS[kind](image, severity, rng), 0, 8).astype(np.float32)


def _noise(image, severity, rng):
    sigma = 0.02 + 0.18 * severity
    real, imaginary = rng.standard_normal((2, *image.shape), np.float32) * np.float32(sigma)
    return np.hypot(image + real, imaginary)


def _ghosting(image, severity, rng):
    """Every n-th line of k-space is weakened: shifted copies of the head."""
    axis, period = int(rng.integers(2)), int(rng.integers(2, 7))
    weight = np.ones(image.shape[axis])
    weight[int(rng.integers(period)) :: period] = 1 - (0.15 + 0.75 * severity)
    weight[0] = 1  # the mean stays
    return np.abs(np.fft.ifft2(np.fft.fft2(image) * weight.reshape(_along(axis))))


def _bias(image, severity, rng):
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing='ij')
    weights = rng.standard_normal(5)
    field = (
        weights[0] * rows
        + weights[1] * columns
        + weights[2] * rows * columns
        + weights[3] * (rows**2 - 0.3)
        + weights[4] * (columns**2 - 0.3)
    )
    return image * np.exp((0.15 + 0.85 * severity) * field / np.abs(field).max())


def _downsampling(image, severity, rng):
    """Thick voxels along one axis, as wide as 2 to 7 pixels."""
    axis, width = int(rng.integers(2)), 2 + 5 * severity
    frequencies = np.fft.fftfreq(image.shape[axis])
    weight = np.exp(-0.5 * (frequencies * width * 2.2) ** 2)
    return np.fft.ifft2(np.fft.fft2(image) * weight.reshape(_along(axis))).real


def _motion(image, severity, rng):
    """Some blocks of lines were measured while the head was elsewhere."""
    spectrum = np.fft.fft2(image)
    axis = int(rng.integers(2))
    lines, positions = np.fft.fftfreq(image.shape[axis]), np.fft.fftfreq(image.shape[1 - axis])
    order, moved = np.argsort(lines), np.zeros(len(lines), bool)
    for _ in range(int(rng.integers(1, 5))):
        start, length = int(rng.integers(len(lines))), max(2, int(len(lines) * 0.12))
        moved[order[start : start + length]] = True
    shift = (0.7 + 5 * severity) * rng.choice([-1, 1])
    along = np.exp(-2j * np.pi * shift * lines)
    across = np.exp(-1j * np.pi * shift * positions)
    factor = np.where(moved[:, None], along[:, None] * across[None], 1)
    return np.abs(np.fft.ifft2(spectrum * (factor if axis == 0 else factor.T)))


def _spike(image, severity, rng):
    """Herringbone: single points of k-space are far too bright."""
    spectrum = np.fft.fft2(image)
    strength = (0.05 + 0.35 * severity) * 0.5 * image.size
    for _ in range(int(rng.integers(1, 3))):
        row, column = (int(rng.integers(4, n // 2)) for n in image.shape)
        spectrum[row, column] += strength * np.exp(2j * np.pi * rng.random())
    return np.abs(np.fft.ifft2(spectrum))


def _along(axis):
    return (-1, 1) if axis == 0 else (1, -1)


_CORRUPTIONS: dict[str, Callable] = {
    'noise': _noise,
    'ghosting': _ghosting,
    'bias': _bias,
    'downsampling': _downsampling,
    'motion': _motion,
    'spike': _spike,
}
