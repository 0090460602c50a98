"""A feature table as points in the plane: scans of one site lie together until harmonized.

ImUnity (figure 4) and DLEST (figure 3) show the site effect so. Pictures only: distances
of t-SNE mean nothing beyond who is near whom.
"""

from dataclasses import dataclass

import numpy as np

FEWEST_SCANS = {'pca': 3, 'tsne': 5}
"""Fewest scans that a picture is made of."""

USUAL_PERPLEXITY = 30.0
"""Perplexity of t-SNE where there are scans enough (van der Maaten and Hinton 2008: 5 to 50)."""

FIRST_COMPONENTS = 50
"""Most principal components that t-SNE starts from."""


@dataclass(frozen=True)
class Embedding:
    """Scans as points in the plane.

    Parameters
    ----------
    method : str
        ``pca`` or ``tsne``.
    points : ndarray, shape (N, 2)
        A point for each scan.
    explained : tuple of float
        Share of the variance along each axis, for PCA; empty for t-SNE.
    perplexity : float or None
        About how many neighbours a scan has, for t-SNE; None for PCA.
    """

    method: str
    points: np.ndarray
    explained: tuple[float, ...] = ()
    perplexity: float | None = None


def embed_pca(features: np.ndarray) -> Embedding:
    """First two principal components of the standardized features.

    Parameters
    ----------
    features : ndarray, shape (N, P)
        A row for each of 3 scans at least.

    Raises
    ------
    ValueError
        For a table that is no (N, P) or not finite, too few scans, or features that are
        all constant.

    Examples
    --------
    >>> picture = embed_pca(np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0]]))  # on one line
    >>> [round(share, 6) for share in picture.explained]
    [1.0, 0.0]
    """
    table = _standardized(features, 'pca')
    points, shares = _principal_components(table, 2)
    return Embedding('pca', points, explained=tuple(shares.tolist()))


def embed_tsne(features: np.ndarray, seed: int = 0, perplexity: float | None = None) -> Embedding:
    """t-SNE of the standardized features, from their first principal components.

    Parameters
    ----------
    features : ndarray, shape (N, P)
        A row for each of 5 scans at least.
    seed : int
        Of the library's draws; the start is the first two principal components.
    perplexity : float or None
        About how many neighbours a scan has, above 0 and below N. None is 30, or a third of
        the other scans where they are fewer than 90.

    Raises
    ------
    ValueError
        As :func:`embed_pca`, and for a perplexity out of its range.

    References
    ----------
    van der Maaten and Hinton 2008, J Mach Learn Res 9:2579.
    """
    from sklearn.manifold import TSNE

    table = _standardized(features, 'tsne')
    count = len(table)
    if perplexity is None:
        perplexity = min(USUAL_PERPLEXITY, (count - 1) / 3)
    if not 0 < perplexity < count:
        raise ValueError(f'the perplexity is above 0 and below {count} scans, not {perplexity}')
    reduced, _ = _principal_components(table, FIRST_COMPONENTS)
    # Its own start by PCA has a random solver; this one has the scale that it is given there.
    start = reduced[:, :2] / reduced[:, 0].std() * 1e-4
    # The library's rate, 50 at least, throws a few scans far apart.
    rate = count / 4 if count < 200 else 'auto'
    model = TSNE(
        perplexity=perplexity,
        learning_rate=rate,
        init=start.astype(np.float32),
        random_state=seed,
        n_jobs=1,
    )
    points = model.fit_transform(reduced.astype(np.float32))
    return Embedding('tsne', points.astype(np.float64), perplexity=float(perplexity))


def _standardized(features: np.ndarray, method: str) -> np.ndarray:
    """Features of mean 0 and standard deviation 1, without the constant ones."""
    table = np.asarray(features, np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError('a table of finite features is needed, a row for each scan')
    if len(table) < FEWEST_SCANS[method]:
        raise ValueError(
            f'{len(table)} scans are too few for a picture by {method}: '
            f'it takes {FEWEST_SCANS[method]}'
        )
    mean, spread = table.mean(axis=0), table.std(axis=0)
    varies = spread > 1e-9 * np.abs(mean)
    if not varies.any():
        raise ValueError('all features are constant: the scans are one point')
    return (table - mean)[:, varies] / spread[varies]


def _principal_components(table: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, K) and shares of the variance; K is 2 at least, with 0 where there is no second."""
    from sklearn.decomposition import PCA

    model = PCA(min(count, *table.shape), svd_solver='full')
    scores, shares = model.fit_transform(table), model.explained_variance_ratio_
    if scores.shape[1] < 2:
        scores, shares = np.pad(scores, ((0, 0), (0, 1))), np.pad(shares, (0, 1))
    return scores, shares
