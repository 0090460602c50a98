"""Wide randomization: protocols no scanner of the test set has, and intensities physics does not give.

A network that trained on a clean phantom alone does not see the style of a real scan
(DESIGN 4a). Everything here draws from a passed generator.
"""

import numpy as np

from harmony_app.phantom.protocol import Protocol


def random_protocol(contrast: str, rng: np.random.Generator) -> Protocol:
    """Draw a plausible protocol of a contrast at 1.5 T or 3 T.

    Ranges are those found in clinical and research use, so that any one site is a small
    part of them: MPRAGE (TR 1500 to 3000 ms, TI 600 to 1300 ms, 6 to 14 degrees), SPGR
    (TR 6 to 35 ms, 8 to 40 degrees), TSE T2 (TE 70 to 130 ms), PD (TE 8 to 35 ms), FLAIR
    (TR 4800 to 12000 ms; the inversion time nulls CSF within 8 %).

    Parameters
    ----------
    contrast : str
        T1w, T2w, PDw or FLAIR.
    rng : numpy.random.Generator
        Draws everything.
    """
    field = float(rng.choice([1.5, 3.0]))
    uniform = rng.uniform
    common = {'field': field, 'snr': float(uniform(12, 60)), 'bias': float(uniform(0.0, 0.4))}
    if contrast == 'T1w':
        if rng.random() < 0.6:
            repetition = uniform(1500, 3000)
            return Protocol(
                'T1w',
                'MPRAGE',
                repetition_time=repetition,
                echo_time=uniform(1.6, 5),
                inversion_time=uniform(600, min(1300, 0.6 * repetition)),
                flip_angle=uniform(6, 14),
                excitation_interval=uniform(5, 11),
                **common,
            )
        return Protocol(
            'T1w',
            'SPGR',
            repetition_time=uniform(6, 35),
            echo_time=uniform(1.8, 8),
            flip_angle=uniform(8, 40),
            **common,
        )
    if contrast == 'T2w':
        return Protocol(
            'T2w', 'TSE', repetition_time=uniform(2500, 9000), echo_time=uniform(70, 130), **common
        )
    if contrast == 'PDw':
        return Protocol(
            'PDw', 'TSE', repetition_time=uniform(1800, 7000), echo_time=uniform(8, 35), **common
        )
    if contrast == 'FLAIR':
        repetition = uniform(4800, 12000)
        csf = 4070 if field == 1.5 else 4200
        null = csf * (np.log(2) - np.log1p(np.exp(-repetition / csf)))
        return Protocol(
            'FLAIR',
            'FLAIR',
            repetition_time=repetition,
            echo_time=uniform(70, 150),
            inversion_time=null * uniform(0.92, 1.08),
            **common,
        )
    raise ValueError(f'unknown contrast {contrast!r}')


def random_monotone_map(
    strength: float, rng: np.random.Generator, knots: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a smooth monotone intensity map that keeps 0 and white matter (1) where they are.

    Parameters
    ----------
    strength : float
        Standard deviation of the logarithm of the local slope; 0.3 is a strong change.
    rng : numpy.random.Generator
        Draws the slopes.
    knots : int
        Slopes drawn over the range; they are smoothed over neighbours.

    Returns
    -------
    x, y : ndarray, shape (n,)
        Knots for ``numpy.interp``; both rise from 0. Beyond 6 the map ends: such
        intensities are clipped.
    """
    x = np.concatenate([np.linspace(0, 2, 33), np.linspace(2.25, 6, 16)])
    control = rng.normal(0, strength, knots)
    slopes = np.exp(np.interp(np.sqrt(x[1:]), np.linspace(0, np.sqrt(6), knots), control))
    y = np.concatenate([[0.0], np.cumsum(slopes * np.diff(x))])
    return x, y / np.interp(1.0, x, y)


def random_class_factors(classes: int, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Factors on class means that no physics explains (vendor filters, coil normalization).

    Parameters
    ----------
    classes : int
        Number of classes.
    spread : float
        Standard deviation of the logarithm.
    """
    return np.exp(rng.normal(0, spread, classes)).astype(np.float32)


def smooth_field(shape: tuple[int, ...], control: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth random field of mean 0 and standard deviation 1, float32.

    Parameters
    ----------
    shape : tuple of int
        Its shape, 2 or 3 axes.
    control : int
        Independent points along each axis; few make it smooth.
    """
    import torch
    from scipy import ndimage
    from torch.nn import functional

    field = rng.standard_normal([control] * len(shape)).astype(np.float32)
    if control < 10:
        # few control points show the kinks of linear interpolation: round them off first
        field = ndimage.zoom(field, 4, order=3, mode='nearest')
    mode = {2: 'bilinear', 3: 'trilinear'}[len(shape)]
    field = functional.interpolate(
        torch.from_numpy(field)[None, None], size=shape, mode=mode, align_corners=True
    )[0, 0].numpy()
    return (field - field.mean()) / max(float(field.std()), 1e-6)
