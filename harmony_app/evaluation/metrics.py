"""How near one scan is to another of the same anatomy, inside a mask.

All functions take arrays of one shape in one unit; none scales or aligns them.
"""

import numpy as np

from harmony_app.evaluation.regions import bounding_box

SSIM_SIGMA = 1.5
"""Standard deviation of the Gaussian window, voxels (Wang 2004)."""

SSIM_RADIUS = 5
"""Half-width of the Gaussian window: 11 taps."""


def ssim(image: np.ndarray, reference: np.ndarray, mask: np.ndarray, data_range: float) -> float:
    """Structural similarity in 3D, averaged over the mask.

    A Gaussian window of 11 taps, K1 = 0.01, K2 = 0.03 and population covariances, as in
    the paper; windows at the border of the mask see what lies beside it.

    Parameters
    ----------
    image, reference : ndarray, shape (X, Y, Z)
        Images to compare, every axis of 11 voxels at least.
    mask : ndarray, shape (X, Y, Z), bool
        Voxels to average over.
    data_range : float
        Range of the intensities, in their unit; above 0.

    Returns
    -------
    float
        1 for equal images, lower for others.

    Raises
    ------
    ValueError
        For unequal shapes, an empty mask, or a range that is not above 0.

    References
    ----------
    Wang et al. 2004, IEEE Trans Image Process 13:600, doi:10.1109/TIP.2003.819861.
    """
    from skimage.metrics import structural_similarity

    image, reference, mask = _checked(image, reference, mask)
    _check_range(data_range)
    # The map is needed within the mask only; the margin feeds its windows.
    box = bounding_box(mask, margin=SSIM_RADIUS)
    _, similarity = structural_similarity(
        image[box],
        reference[box],
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        K1=0.01,
        K2=0.03,
        full=True,
    )
    return float(similarity[mask[box]].mean(dtype=np.float64))


def rmse(image: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float:
    """Root of the mean squared difference inside the mask, in the unit of the images.

    Examples
    --------
    >>> rmse(np.array([1.0, 2.0, 9.0]), np.array([1.0, 4.0, 0.0]), np.array([True, True, False]))
    1.4142135623730951
    """
    image, reference, mask = _checked(image, reference, mask)
    difference = image[mask].astype(np.float64) - reference[mask]
    return float(np.sqrt(np.mean(difference**2)))


def psnr(image: np.ndarray, reference: np.ndarray, mask: np.ndarray, data_range: float) -> float:
    """Peak signal-to-noise ratio inside the mask, dB; infinite for equal images.

    Parameters
    ----------
    image, reference : ndarray, shape (X, Y, Z)
    mask : ndarray, shape (X, Y, Z), bool
    data_range : float
        Range of the intensities, in their unit; above 0.

    Examples
    --------
    >>> round(psnr(np.full(4, 1.1), np.ones(4), np.ones(4, bool), data_range=1.0), 6)
    20.0
    """
    _check_range(data_range)
    error = rmse(image, reference, mask)
    return float(20 * np.log10(data_range / error)) if error else float('inf')


def pcc(image: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float:
    """Pearson correlation inside the mask, -1 to 1; NaN where one image is constant there.

    Examples
    --------
    >>> round(pcc(np.array([1.0, 2.0, 3.0]), np.array([5.0, 7.0, 9.0]), np.ones(3, bool)), 9)
    1.0
    """
    image, reference, mask = _checked(image, reference, mask)
    first, second = (values[mask].astype(np.float64) for values in (image, reference))
    first, second = first - first.mean(), second - second.mean()
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norm) if norm > 0 else float('nan')


def histogram_distance(
    image: np.ndarray, reference: np.ndarray, mask: np.ndarray, reference_mask: np.ndarray
) -> float:
    """Wasserstein distance of the intensities of two regions, in the unit of the images.

    The mean shift that intensities need to become those of the other, whatever their
    place: the images may show different heads.

    Parameters
    ----------
    image, reference : ndarray
        Images, of any shapes.
    mask, reference_mask : ndarray, bool
        Region of each, of the shape of its image.

    Raises
    ------
    ValueError
        For an empty mask, or one that is not of the shape of its image.

    Examples
    --------
    >>> histogram_distance(
    ...     np.array([0.0, 1.0]), np.array([3.0, 2.0]), np.ones(2, bool), np.ones(2, bool)
    ... )
    2.0
    """
    from scipy.stats import wasserstein_distance

    image, _, mask = _checked(image, image, mask)
    reference, _, reference_mask = _checked(reference, reference, reference_mask)
    return float(wasserstein_distance(image[mask], reference[reference_mask]))


def _checked(
    image: np.ndarray, reference: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, reference = np.asarray(image), np.asarray(reference)
    mask = np.asarray(mask, dtype=bool)
    if not image.shape == reference.shape == mask.shape:
        raise ValueError(f'unequal shapes: {image.shape}, {reference.shape}, mask {mask.shape}')
    if not mask.any():
        raise ValueError('the mask is empty')
    return image, reference, mask


def _check_range(data_range: float) -> None:
    if not data_range > 0:
        raise ValueError(f'the data range is above 0, not {data_range}')
