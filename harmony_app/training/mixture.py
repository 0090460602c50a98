"""Examples from several sources."""

from collections.abc import Sequence

import numpy as np


class Mixture:
    """Draws from one of several sources.

    Parameters
    ----------
    sources : sequence
        Each has ``draw(rng)``.
    shares : sequence of float
        Share of each; they sum to 1.

    Raises
    ------
    ValueError
        Where the shares are not shares.
    """

    def __init__(self, sources: Sequence, shares: Sequence[float]):
        if len(sources) != len(shares) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f'shares of sources are not negative and sum to 1, not {shares}')
        self.sources = list(sources)
        self.edges = np.cumsum(shares)[:-1]

    def draw(self, rng: np.random.Generator):
        """Draw an example of one of them."""
        return self.sources[int(np.searchsorted(self.edges, rng.random(), side='right'))].draw(rng)


def mixed(real, phantom, shares: tuple[float, float]):
    """One source of real scans and the phantom by their shares.

    Parameters
    ----------
    real, phantom : object or None
        Sources; None where there are none of the kind.
    shares : tuple of (float, float)
        Of both.

    Returns
    -------
    object or None
        The only one there is, a :class:`Mixture` of both, or None.
    """
    there = [(s, share) for s, share in zip((real, phantom), shares, strict=True) if s is not None]
    there = [(source, share) for source, share in there if share > 0]
    if len(there) < 2:
        return there[0][0] if there else None
    return Mixture([source for source, _ in there], [share for _, share in there])
