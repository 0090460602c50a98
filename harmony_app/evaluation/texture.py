"""Texture of a region in 3D: which intensities lie side by side, in runs and in zones.

The matrices and features are those of the Image Biomarker Standardisation Initiative, merged
over the thirteen directions of 3D at a distance of one voxel.

References
----------
IBSI: Zwanenburg et al. 2016, arXiv:1612.07003, sections 2.7 and 3.6 to 3.8;
Zwanenburg et al. 2020, Radiology 295:328, doi:10.1148/radiol.2020191145.
"""

import itertools

import numpy as np

DIRECTIONS = tuple(step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0))
"""One of each pair of opposite neighbours: 13 steps."""


def discretize(
    data: np.ndarray, mask: np.ndarray, bin_width: float, lower: float = 0.0, upper: float = 4.0
) -> np.ndarray:
    """Grey levels of bins of fixed width (IBSI 2.7, fixed bin size).

    The bins start at one intensity for all scans, so that a level means the same in each.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Scan.
    mask : ndarray, shape (X, Y, Z), bool
        Region.
    bin_width : float
        Width of a bin in the unit of the scan, above 0.
    lower, upper : float
        Intensities that the first bin starts and the last bin ends at; what lies beyond
        counts to these bins.

    Returns
    -------
    ndarray, shape (X, Y, Z), int64
        Levels from 1 on inside the region, 0 outside.

    Raises
    ------
    ValueError
        For unequal shapes, a scan that is not 3D or not finite in the region, an empty
        region, or a bin width or range that is not above 0.

    Examples
    --------
    >>> row = np.array([0.05, 0.1, 0.39, 7.0]).reshape(4, 1, 1)
    >>> discretize(row, row < 8, bin_width=0.1, upper=0.5).ravel()
    array([1, 2, 4, 5])
    """
    data, mask = np.asarray(data), np.asarray(mask, dtype=bool)
    if data.ndim != 3 or data.shape != mask.shape:
        raise ValueError(f'a 3D scan and its region are needed, not {data.shape} and {mask.shape}')
    if not bin_width > 0 or not upper > lower:
        raise ValueError('the bin width and the range of the bins are above 0')
    values = data[mask].astype(np.float64)
    if not values.size:
        raise ValueError('the region is empty: there is no texture to measure')
    if not np.isfinite(values).all():
        raise ValueError('the scan is not finite inside the region')
    # Widths as 0.1 are not exact: an intensity on the edge of a bin belongs to the upper one.
    count = int(np.ceil((upper - lower) / bin_width - 1e-6))
    bins = np.floor((values - lower) / bin_width + 1e-6)
    levels = np.zeros(data.shape, np.int64)
    levels[mask] = np.clip(bins, 0, count - 1).astype(np.int64) + 1
    return levels


def cooccurrence_matrix(levels: np.ndarray) -> np.ndarray:
    """Share of neighbouring voxels that have two grey levels (IBSI 3.6, 3D merged).

    Parameters
    ----------
    levels : ndarray of int, shape (X, Y, Z)
        Grey levels from 1 on, 0 outside the region.

    Returns
    -------
    ndarray, shape (L, L)
        Symmetric, with sum 1, for levels 1 to L, the highest one; all 0 where no two
        voxels of the region are neighbours.

    Examples
    --------
    >>> cooccurrence_matrix(np.array([1, 1, 2]).reshape(3, 1, 1))
    array([[0.5 , 0.25],
           [0.25, 0.  ]])
    """
    flat, inside, offsets = _padded(levels)
    count = int(flat.max(initial=0)) + 1
    pairs = np.zeros(count * count)
    own = flat[inside]
    for offset in offsets:
        # Neighbours outside the region fall into column 0, which is cut off.
        pairs += np.bincount(own * count + flat[inside + offset], minlength=count * count)
    matrix = pairs.reshape(count, count)[1:, 1:]
    matrix = matrix + matrix.T
    total = matrix.sum()
    return matrix / total if total else matrix


def run_lengths(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of runs of one grey level, by level and length (IBSI 3.7, 3D merged).

    Parameters
    ----------
    levels : ndarray of int, shape (X, Y, Z)
        Grey levels from 1 on, 0 outside the region.

    Returns
    -------
    matrix : ndarray, shape (L, K)
        Number of runs for levels 1 to L.
    lengths : ndarray, shape (K,)
        The lengths that the columns stand for, voxels.

    Examples
    --------
    Along the row there are a run of two and one of one; in the other 12 directions
    every voxel is a run of its own.

    >>> matrix, lengths = run_lengths(np.array([1, 1, 2]).reshape(3, 1, 1))
    >>> matrix.tolist(), lengths.tolist()
    ([[24, 1], [13, 0]], [1, 2])
    """
    flat, inside, offsets = _padded(levels)
    count, longest = int(flat.max(initial=0)), max(levels.shape, default=0)
    matrix = np.zeros((count + 1, longest + 1), np.int64)
    for offset in offsets:
        begin = inside[flat[inside - offset] != flat[inside]]
        level, position = flat[begin], begin
        # Runs that have reached this length; those that end here are counted and left.
        for length in range(1, longest + 1):
            position = position + offset
            on = flat[position] == level
            matrix[:, length] += np.bincount(level[~on], minlength=count + 1)
            level, position = level[on], position[on]
            if not level.size:
                break
    used = np.flatnonzero(matrix.any(axis=0))
    return matrix[1:, used], used


def zone_sizes(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of connected zones of one grey level, by level and size (IBSI 3.8, 3D).

    Voxels are connected through their faces, edges and corners.

    Parameters
    ----------
    levels : ndarray of int, shape (X, Y, Z)
        Grey levels from 1 on, 0 outside the region.

    Returns
    -------
    matrix : ndarray, shape (L, K)
        Number of zones for levels 1 to L.
    sizes : ndarray, shape (K,)
        The sizes that the columns stand for, voxels.

    Examples
    --------
    >>> matrix, sizes = zone_sizes(np.array([1, 1, 2, 1]).reshape(2, 2, 1))
    >>> matrix.tolist(), sizes.tolist()  # the three of level 1 touch
    ([[0, 1], [1, 0]], [1, 3])
    """
    from skimage.measure import label

    zones = label(levels, background=0, connectivity=3).ravel()
    size_of = np.bincount(zones)
    level_of = np.zeros(size_of.size, np.int64)
    level_of[zones] = levels.ravel()
    sizes, column = np.unique(size_of[1:], return_inverse=True)
    matrix = np.zeros((int(levels.max(initial=0)), sizes.size), np.int64)
    np.add.at(matrix, (level_of[1:] - 1, column), 1)
    return matrix, sizes


def cooccurrence_features(matrix: np.ndarray) -> dict[str, float]:
    """Features of a co-occurrence matrix (IBSI 3.6).

    Parameters
    ----------
    matrix : ndarray, shape (L, L)
        As :func:`cooccurrence_matrix` gives it.

    Returns
    -------
    dict of str to float
        ``maximum``, ``average``, ``variance``, ``entropy`` (of base 2), ``energy`` (the
        angular second moment), ``contrast``, ``dissimilarity`` (IBSI: also difference average),
        ``difference_variance``, ``difference_entropy``, ``inverse_difference``,
        ``homogeneity`` (IBSI: inverse difference moment), ``correlation``,
        ``cluster_shade`` and ``cluster_prominence``. The correlation of a constant region,
        and every feature of an empty matrix, is 0.

    Examples
    --------
    >>> features = cooccurrence_features(np.array([[0.5, 0.25], [0.25, 0.0]]))
    >>> features['contrast'], features['homogeneity'], features['entropy']
    (0.5, 0.75, 1.5)
    """
    i = np.arange(1, len(matrix) + 1)[:, None]
    j = i.T
    distance = np.abs(i - j)
    apart = np.bincount(distance.ravel(), weights=matrix.ravel(), minlength=1)
    steps = np.arange(apart.size)
    average = float((i * matrix).sum())
    variance = float(((i - average) ** 2 * matrix).sum())
    dissimilarity = float(steps @ apart)
    covariance = float(((i - average) * (j - average) * matrix).sum())
    cluster = i + j - 2 * average
    return {
        'maximum': float(matrix.max(initial=0)),
        'average': average,
        'variance': variance,
        'entropy': entropy(matrix),
        'energy': float((matrix**2).sum()),
        'contrast': float(steps**2 @ apart),
        'dissimilarity': dissimilarity,
        'difference_variance': float((steps - dissimilarity) ** 2 @ apart),
        'difference_entropy': entropy(apart),
        'inverse_difference': float((apart / (1 + steps)).sum()),
        'homogeneity': float((apart / (1 + steps**2)).sum()),
        'correlation': covariance / variance if variance > 1e-12 else 0.0,
        'cluster_shade': float((cluster**3 * matrix).sum()),
        'cluster_prominence': float((cluster**4 * matrix).sum()),
    }


def size_features(matrix: np.ndarray, sizes: np.ndarray, voxels: int) -> dict[str, float]:
    """Features of run lengths (IBSI 3.7) or zone sizes (IBSI 3.8), which are defined alike.

    Parameters
    ----------
    matrix : ndarray, shape (L, K)
        Number of runs or zones for levels 1 to L and sizes.
    sizes : ndarray, shape (K,)
        Sizes that the columns stand for.
    voxels : int
        Voxels that could be a run or zone of their own: those of the region, for runs
        times the number of directions.

    Returns
    -------
    dict of str to float
        Emphases of small and large sizes, of low and high levels and of their four
        combinations, non-uniformities (also normalized), ``percentage``, variances and
        ``entropy``; all 0 for an empty matrix.

    Examples
    --------
    >>> features = size_features(np.array([[0, 1], [1, 0]]), np.array([1, 3]), voxels=4)
    >>> features['large_emphasis'], features['percentage'], features['entropy']
    (5.0, 0.5, 1.0)
    """
    total = matrix.sum()
    share = matrix / total if total else matrix.astype(float)
    level = np.arange(1, len(matrix) + 1.0)[:, None]
    size = np.asarray(sizes, float)[None]
    by_level, by_size = share.sum(axis=1), share.sum(axis=0)
    level_mean, size_mean = (level * share).sum(), (size * share).sum()
    features = {
        'small_emphasis': (share / size**2).sum(),
        'large_emphasis': (share * size**2).sum(),
        'low_level_emphasis': (share / level**2).sum(),
        'high_level_emphasis': (share * level**2).sum(),
        'small_low_emphasis': (share / (size * level) ** 2).sum(),
        'small_high_emphasis': (share * (level / size) ** 2).sum(),
        'large_low_emphasis': (share * (size / level) ** 2).sum(),
        'large_high_emphasis': (share * (size * level) ** 2).sum(),
        'level_nonuniformity': total * (by_level**2).sum(),
        'level_nonuniformity_normalized': (by_level**2).sum(),
        'size_nonuniformity': total * (by_size**2).sum(),
        'size_nonuniformity_normalized': (by_size**2).sum(),
        'percentage': total / voxels,
        'level_variance': ((level - level_mean) ** 2 * share).sum(),
        'size_variance': ((size - size_mean) ** 2 * share).sum(),
        'entropy': entropy(share),
    }
    return {name: float(value) for name, value in features.items()}


def entropy(shares: np.ndarray) -> float:
    """Entropy of shares that sum to 1, bit.

    Examples
    --------
    >>> entropy(np.array([0.5, 0.25, 0.25, 0.0]))
    1.5
    """
    shares = shares[shares > 0]
    return float(-(shares @ np.log2(shares))) + 0.0


def _padded(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Levels in one row with a border of 0, places of the region, and steps to the neighbours."""
    padded = np.pad(levels, 1)
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    flat = padded.ravel()
    return flat, np.flatnonzero(flat), [int(strides @ step) for step in DIRECTIONS]
