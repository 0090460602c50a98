"""How well tissues, and lesions, stand out by their intensity."""

import numpy as np

from harmony_app.evaluation.regions import check_disjoint, intensities


def gm_wm_auroc(
    image: np.ndarray, gm: np.ndarray, wm: np.ndarray, either_direction: bool = False
) -> float:
    """Area under the ROC curve of intensities that tell white matter from grey.

    Every intensity serves as a threshold once, so the area is the probability that a voxel
    of WM is brighter than one of GM, ties counted as half.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z)
        Scan, in any unit: a strictly increasing map of it changes nothing.
    gm, wm : ndarray, shape (X, Y, Z), bool
        Voxels of each tissue, those of the reference and not of a segmentation of this image.
    either_direction : bool, optional
        Count the separation whichever tissue is brighter: the larger of the area and of 1
        minus it. For contrasts where GM is brighter, as T2w, PDw and FLAIR.

    Returns
    -------
    float
        0 to 1 (0.5 to 1 in either direction): 1 where every voxel of WM is brighter than
        every voxel of GM, 0.5 where intensities do not tell them apart.

    Raises
    ------
    ValueError
        For unequal shapes, an empty mask, masks that overlap, intensities that are not
        finite, or an image that is constant in both tissues.

    References
    ----------
    MISPEL, section 2.5, GM-WM contrast similarity. The area as a rank statistic: Hanley and
    McNeil 1982, Radiology 143:29.

    Examples
    --------
    Of the four pairs, one is a tie (2 and 2) and three are in order:

    >>> image = np.array([1.0, 2.0, 2.0, 3.0])
    >>> gm = np.array([True, True, False, False])
    >>> gm_wm_auroc(image, gm, ~gm)
    0.875
    >>> gm_wm_auroc(-image, gm, ~gm), gm_wm_auroc(-image, gm, ~gm, either_direction=True)
    (0.125, 0.875)
    """
    from scipy.stats import rankdata

    check_disjoint(gm, wm, ('GM', 'WM'))
    grey, white = intensities(image, gm, 'GM'), intensities(image, wm, 'WM')
    values = np.concatenate([grey, white])
    if values.min() == values.max():
        raise ValueError('the image is constant in GM and WM: it has no contrast to measure')
    ranks = rankdata(values)[grey.size :]
    # the rank sum of white matter less the least it can be counts the pairs in order
    in_order = ranks.sum() - white.size * (white.size + 1) / 2
    area = float(in_order / (grey.size * white.size))
    return max(area, 1 - area) if either_direction else area


def lesion_contrast_to_noise(
    image: np.ndarray, lesion: np.ndarray, normal_white_matter: np.ndarray
) -> float:
    """Contrast of lesions to normal-appearing white matter, in units of its noise.

    The difference of the means over the standard deviation (with n - 1) of normal-appearing
    white matter, which holds the noise, the texture and what is left of the bias field.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z)
        Scan, in any unit: scaling and shifting it change nothing.
    lesion, normal_white_matter : ndarray, shape (X, Y, Z), bool
        Voxels of each.

    Returns
    -------
    float
        Above 0 where lesions are brighter (FLAIR, T2w, PDw), below where they are darker (T1w).

    Raises
    ------
    ValueError
        For unequal shapes, an empty mask, masks that overlap, intensities that are not
        finite, or normal-appearing white matter that is constant.

    Examples
    --------
    Normal-appearing white matter of mean 10 and standard deviation 2, a lesion at 16:

    >>> image = np.array([8.0, 10.0, 12.0, 16.0])
    >>> lesion = np.array([False, False, False, True])
    >>> lesion_contrast_to_noise(image, lesion, ~lesion)
    3.0
    """
    inside, normal = _lesion_and_normal(image, lesion, normal_white_matter)
    if normal.min() == normal.max():
        raise ValueError('normal-appearing white matter is constant: it has no noise to measure')
    return float((inside.mean() - normal.mean()) / normal.std(ddof=1))


def lesion_ratio(image: np.ndarray, lesion: np.ndarray, normal_white_matter: np.ndarray) -> float:
    """Median of lesions over the median of normal-appearing white matter.

    Unlike the ratio of contrast to noise it does not reward a harmonization that smooths.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z)
        Scan whose background is at 0; scaling it changes nothing.
    lesion, normal_white_matter : ndarray, shape (X, Y, Z), bool
        Voxels of each.

    Returns
    -------
    float
        1 where lesions cannot be told by their median.

    Raises
    ------
    ValueError
        For unequal shapes, an empty mask, masks that overlap, intensities that are not
        finite, or a median of normal-appearing white matter that is not above 0.

    Examples
    --------
    >>> image = np.array([8.0, 10.0, 12.0, 16.0])
    >>> lesion = np.array([False, False, False, True])
    >>> lesion_ratio(image, lesion, ~lesion)
    1.6
    """
    inside, normal = _lesion_and_normal(image, lesion, normal_white_matter)
    level = np.median(normal)
    if not level > 0:
        raise ValueError(
            f'the median of normal-appearing white matter is {level:g}, not above 0: '
            'give an image whose background is at 0'
        )
    return float(np.median(inside) / level)


def _lesion_and_normal(image, lesion, normal_white_matter) -> tuple[np.ndarray, np.ndarray]:
    names = ('lesion', 'normal-appearing white matter')
    check_disjoint(lesion, normal_white_matter, names)
    return intensities(image, lesion, names[0]), intensities(image, normal_white_matter, names[1])
