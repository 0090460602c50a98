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
