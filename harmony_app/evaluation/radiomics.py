"""Radiomic features of a scan inside its tissues, which a classifier tells the site from.

ImUnity (section 2.4.2) asks an SVM for the site of a scan by such features, before and after
harmonization. Scans have their white-matter peak at 1, so bins mean the same in all of them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from harmony_app.evaluation.regions import bounding_box
from harmony_app.evaluation.texture import (
    DIRECTIONS,
    cooccurrence_features,
    cooccurrence_matrix,
    discretize,
    entropy,
    run_lengths,
    size_features,
    zone_sizes,
)
from harmony_app.imaging.profile import TISSUES

REGIONS = ('brain', *TISSUES)
"""Regions that features are measured in, in the order of their table."""

BIN_WIDTH = 0.025
"""Width of a grey level, in units of the white-matter peak: 40 levels from 0 to white matter."""

HIGHEST = 4.0
"""End of the last bin, in units of the white-matter peak; what is brighter counts to it."""

LIKELY = 0.5
"""Probability above which a voxel counts for a tissue: a voxel has one tissue at most."""


def scan_features(
    data: np.ndarray,
    brain: np.ndarray,
    tissues: np.ndarray,
    *,
    step: int = 2,
    bin_width: float = BIN_WIDTH,
) -> dict[str, float]:
    """Radiomic features of a scan on the working grid, in the brain, GM, WM and CSF.

    By default the scan is averaged to 2 mm: the anatomy stays, noise of single voxels weighs less.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Scan with its white-matter peak at 1, zero outside its field of view.
    brain : ndarray, shape (X, Y, Z), bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8 or float
        Registered GM, WM and CSF maps; uint8 maps are certain at 255, float maps at 1.
    step : int
        Voxels along an axis that are averaged to one; 1 keeps the grid.
    bin_width : float
        Width of a grey level, in units of the white-matter peak.

    Returns
    -------
    dict of str to float
        By region, family and feature, as ``WM_glcm_contrast``; see :func:`region_features`.
        Names and order are the same for every scan.

    Raises
    ------
    ValueError
        For unequal shapes, a step below 1, or a tissue that is not seen in the scan.
    """
    regions = tissue_regions(data, brain, tissues, step)
    return regional_features(_coarse(data, step), regions, bin_width)


def tissue_regions(
    data: np.ndarray, brain: np.ndarray, tissues: np.ndarray, step: int = 2
) -> dict[str, np.ndarray]:
    """Brain, GM, WM and CSF of a scan as masks, where the scan shows something.

    Parameters
    ----------
    data, brain, tissues, step
        As in :func:`scan_features`.

    Returns
    -------
    dict of str to ndarray of bool
        By :data:`REGIONS`, on the grid of averaged voxels. A voxel of the brain lies
        wholly in the mask, one of a tissue is of this tissue more likely than not.

    Raises
    ------
    ValueError
        For unequal shapes, or a step below 1.
    """
    data, brain, tissues = np.asarray(data), np.asarray(brain), np.asarray(tissues)
    if data.ndim != 3 or brain.shape != data.shape or tissues.shape != (3, *data.shape):
        raise ValueError(
            f'unequal shapes: scan {data.shape}, brain {brain.shape}, tissues {tissues.shape}'
        )
    certain = 255.0 if np.issubdtype(tissues.dtype, np.integer) else 1.0
    inside = (_coarse(brain, step) > 0.99) & (_coarse(data, step) > 0.01)
    regions = {'brain': inside}
    for name, tissue in zip(TISSUES, tissues, strict=True):
        regions[name] = inside & (_coarse(tissue, step) > LIKELY * certain)
    return regions


def regional_features(
    data: np.ndarray, regions: Mapping[str, np.ndarray], bin_width: float = BIN_WIDTH
) -> dict[str, float]:
    """Features of every region, with the name of the region before theirs.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Scan with its white-matter peak at 1.
    regions : mapping of str to ndarray of bool
        Masks by name.
    bin_width : float
        Width of a grey level, in units of the white-matter peak.

    Raises
    ------
    ValueError
        As :func:`region_features`; the message names the region.
    """
    features = {}
    for region, mask in regions.items():
        try:
            measured = region_features(data, mask, bin_width)
        except ValueError as error:
            raise ValueError(f'region {region}: {error}') from error
        features |= {f'{region}_{name}': value for name, value in measured.items()}
    return features


def region_features(
    data: np.ndarray, mask: np.ndarray, bin_width: float = BIN_WIDTH
) -> dict[str, float]:
    """First-order and texture features of one region, by the definitions of IBSI.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Scan with its white-matter peak at 1.
    mask : ndarray, shape (X, Y, Z), bool
        Region.
    bin_width : float
        Width of a grey level, in units of the white-matter peak.

    Returns
    -------
    dict of str to float
        ``firstorder_*`` (:func:`first_order_features`), ``glcm_*`` (co-occurrence),
        ``glrlm_*`` (run lengths) and ``glszm_*`` (zone sizes). All are finite; what is
        not defined for a constant region is 0.

    Raises
    ------
    ValueError
        For unequal shapes, an empty region, values that are not finite, or a bin width
        that is not above 0.

    References
    ----------
    IBSI: Zwanenburg et al. 2020, Radiology 295:328, doi:10.1148/radiol.2020191145, and the
    reference manual, arXiv:1612.07003.

    Examples
    --------
    >>> features = region_features(np.ones((2, 2, 2)), np.ones((2, 2, 2), bool))
    >>> features['firstorder_mean'], features['firstorder_skewness'], features['glcm_contrast']
    (1.0, 0.0, 0.0)
    """
    levels = discretize(data, mask, bin_width, upper=HIGHEST)
    box = bounding_box(levels > 0)
    levels = levels[box]
    values = np.asarray(data)[box][levels > 0]
    families = {
        'firstorder': first_order_features(values, levels[levels > 0]),
        'glcm': cooccurrence_features(cooccurrence_matrix(levels)),
        'glrlm': size_features(*run_lengths(levels), voxels=values.size * len(DIRECTIONS)),
        'glszm': size_features(*zone_sizes(levels), voxels=values.size),
    }
    return {
        f'{family}_{name}': value
        for family, features in families.items()
        for name, value in features.items()
    }


def first_order_features(values: np.ndarray, levels: np.ndarray) -> dict[str, float]:
    """Statistics of the intensities of a region (IBSI 3.3) and of their histogram (IBSI 3.4).

    Parameters
    ----------
    values : ndarray, shape (N,)
        Intensities, at least one.
    levels : ndarray of int, shape (N,)
        Their grey levels, from 0 on.

    Returns
    -------
    dict of str to float
        Eighteen statistics; ``entropy`` (bit) and ``uniformity`` of the grey levels.
        Skewness, excess ``kurtosis`` and coefficients whose divisor is 0 are 0.

    Examples
    --------
    >>> features = first_order_features(np.array([1.0, 1.0, 2.0, 4.0]), np.array([1, 1, 2, 4]))
    >>> features['mean'], features['variance'], features['energy'], features['entropy']
    (2.0, 1.5, 22.0, 1.5)
    """
    values = np.asarray(values, np.float64)
    low, lower, median, upper, high = np.percentile(values, (10, 25, 50, 75, 90)).tolist()
    mean = float(values.mean())
    centred = values - mean
    variance = float((centred**2).mean())
    # Rounding leaves a trace of variance in a region that is constant.
    spread = variance > 1e-12 * (mean**2 + 1e-12)
    # Of two values neither lies between the percentiles.
    middle = values[(values >= low) & (values <= high)] if values.size > 2 else values[:1]
    shares = np.bincount(levels) / values.size
    energy = float(values @ values)
    return {
        'mean': mean,
        'variance': variance,
        'skewness': float((centred**3).mean()) / variance**1.5 if spread else 0.0,
        'kurtosis': float((centred**4).mean()) / variance**2 - 3 if spread else 0.0,
        'median': median,
        'minimum': float(values.min()),
        'percentile_10': low,
        'percentile_90': high,
        'maximum': float(values.max()),
        'interquartile_range': upper - lower,
        'range': float(np.ptp(values)),
        'mean_absolute_deviation': float(np.abs(centred).mean()),
        'robust_mean_absolute_deviation': float(np.abs(middle - middle.mean()).mean()),
        'median_absolute_deviation': float(np.abs(values - median).mean()),
        'coefficient_of_variation': variance**0.5 / mean if mean else 0.0,
        'quartile_coefficient_of_dispersion': (
            (upper - lower) / (upper + lower) if upper + lower else 0.0
        ),
        'energy': energy,
        'root_mean_square': (energy / values.size) ** 0.5,
        'entropy': entropy(shares),
        'uniformity': float((shares**2).sum()),
    }


def feature_table(rows: Sequence[Mapping[str, float]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Features of many scans as one table.

    Parameters
    ----------
    rows : sequence of mapping of str to float
        Features of each scan, of the same names.

    Returns
    -------
    names : tuple of P str
        Names of the columns, in the order of the first scan.
    table : ndarray, shape (N, P), float64
        A row for each scan.

    Raises
    ------
    ValueError
        Without scans, or where they have other features.

    Examples
    --------
    >>> names, table = feature_table([{'a': 1.0, 'b': 2.0}, {'b': 4.0, 'a': 3.0}])
    >>> names, table.tolist()
    (('a', 'b'), [[1.0, 2.0], [3.0, 4.0]])
    """
    if not rows:
        raise ValueError('there are no scans to make a table of')
    names = tuple(rows[0])
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError('the scans have different features: measure all in the same regions')
    return names, np.array([[row[name] for name in names] for row in rows], np.float64)


def _coarse(data: np.ndarray, step: int) -> np.ndarray:
    """Mean over cubes, float32; what does not fill a cube at the end is left out."""
    # here: the module brings the optimizers of the registration with it
    from harmony_app.imaging.alignment import block_mean

    if step < 1:
        raise ValueError(f'the step is 1 voxel at least, not {step}')
    trimmed = np.asarray(data)[tuple(slice(0, n - n % step) for n in data.shape)]
    return block_mean(trimmed.astype(np.float32), step)
