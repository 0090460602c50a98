"""Draws of CALAMITI: those of HACA3, with what the discriminator is to tell: Site A or not.

In the phantom Site A is one 3 T scanner with standard protocols, and every other scan is made at a
site of its own. Of real sessions it is the site that most of them come from.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harmony_app.training.heads import Head
from harmony_app.training.session_slices import SessionSlices
from harmony_app.training.sessions import Session
from harmony_app.training.slice_batch import Batch
from harmony_app.training.slices import SliceSampler
from harmony_app.training.styles import STANDARD

HOME = {
    STANDARD[name].contrast: STANDARD[name] for name in ('mprage-3t', 'tse-3t', 'pd-3t', 'flair-3t')
}
"""Protocols of the phantom's Site A, by contrast."""


@dataclass(frozen=True)
class SiteBatch(Batch):
    """Draws for one step.

    Parameters
    ----------
    home : Tensor, shape (B,)
        1 where the sources were scanned at Site A, else 0.
    """

    home: torch.Tensor


class HomePhantom:
    """Draws slices from heads, a part of them at Site A.

    Parameters
    ----------
    heads : sequence of Head
    size : int
        Height and width of the crops; a multiple of 16.
    share : float
        Share of Site A.
    artifacts : bool
        Whether sources may have artifacts and missing parts.
    """

    def __init__(self, heads: Sequence[Head], size: int, share: float, artifacts: bool = True):
        self.sampler, self.share = SliceSampler(heads, size, artifacts), share

    def draw(self, rng: np.random.Generator) -> SiteBatch:
        """Draw a batch of one example."""
        home = rng.random() < self.share
        fields = self.sampler.sample(rng, HOME if home else None)
        return SiteBatch.of(fields | {'home': np.float32(home)})


class HomeSessions:
    """Draws slices from real sessions.

    Parameters
    ----------
    slices : SessionSlices
    home : str or None
        Name of Site A; None where no session is of it.
    """

    def __init__(self, slices: SessionSlices, home: str | None):
        self.slices, self.home = slices, home

    def draw(self, rng: np.random.Generator) -> SiteBatch:
        """Draw a batch of one example."""
        fields, site = self.slices.sample(rng)
        home = self.home is not None and site == self.home
        return SiteBatch.of(fields | {'home': np.float32(home)})


def most_common_site(sessions: Sequence[Session]) -> str | None:
    """Site of most sessions, of equals the first by name; None unless there are two sites.

    Examples
    --------
    >>> most_common_site([]) is None
    True
    """
    sites = Counter(
        site for session in sessions for site in {scan.site for scan in session.scans} if site
    )
    if len(sites) < 2:
        return None
    return min(sites, key=lambda site: (-sites[site], site))
