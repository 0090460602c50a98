"""Draws of ImUnity: two slices of a scan, the first in the contrast of the second, and its site.

A scan is its own teacher (section 2.2.1): anatomy is seen in a slice S1, contrast in another slice
S2 that was altered, and the truth is S1 altered alike. Where the truth is known, on the phantom,
S2 and the truth may also be at another protocol than S1, which is our addition.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from harmony_app.methods.base import CONTRASTS
from harmony_app.phantom.sites import Site, load_sites
from harmony_app.training.alterations import Alteration, draw_alteration
from harmony_app.training.biology import Biology
from harmony_app.training.heads import Head
from harmony_app.training.imunity_settings import Settings
from harmony_app.training.session_slices import SessionDraw, SessionSlices
from harmony_app.training.sessions import CachedScan, Session
from harmony_app.training.slice_batch import ANATOMY, LEVELS, Drawn
from harmony_app.training.slices import (
    Look,
    SliceDraw,
    SliceSampler,
    anatomy_of,
    blur,
    draw_look,
    silhouette_of,
)

UNSEEN = ('siteA', 'siteC', 'siteF', 'ge-signa')
"""Sites of the benchmark: never trained on."""

NOBODY = -1
"""Number of the site of a scan that is of none."""


@dataclass(frozen=True)
class Pair(Drawn):
    """Draws for one step, float32 and (B, 1, H, W) unless said.

    Parameters
    ----------
    source, mask : Tensor
        The anatomy slice S1 as scanned, and the head or brain in it.
    style, style_mask : Tensor
        The contrast slice S2, altered, and the head or brain in it.
    target : Tensor
        S1 in the contrast of S2; noise-free where the truth is known.
    contrast : Tensor, shape (B,), int64
        Index in ``CONTRASTS`` of all three.
    site : Tensor, shape (B,), int64
        Number of the site of S1; :data:`NOBODY` where it counts for none.
    biology : Tensor, shape (B, F)
        Biological features of the person; not a number where one is not known.
    anatomy : Tensor, shape (B, 5, H, W)
        Fraction of each level of :data:`~harmony_app.training.slice_batch.ANATOMY` in S1.
    levels : Tensor, shape (B, 8)
        Intensity of :data:`~harmony_app.training.slice_batch.LEVELS` in S2, bright ones compressed.
    known : Tensor, shape (B,)
        1 where ``anatomy`` and ``levels`` are the truth, 0 where nobody knows it.
    seeds : Tensor, shape (B,), int64
        Of the noise that the training adds.
    """

    source: torch.Tensor
    mask: torch.Tensor
    style: torch.Tensor
    style_mask: torch.Tensor
    target: torch.Tensor
    contrast: torch.Tensor
    site: torch.Tensor
    biology: torch.Tensor
    anatomy: torch.Tensor
    levels: torch.Tensor
    known: torch.Tensor
    seeds: torch.Tensor


def training_sites() -> dict[str, Site]:
    """Sites of the package that may be trained on, by name."""
    return {name: site for name, site in load_sites().items() if name not in UNSEEN}


class PhantomPairs(SliceSampler):
    """Draws pairs of slices from heads.

    Parameters
    ----------
    heads : sequence of Head
    settings : Settings
    sites : mapping of str to Site
        Named sites; their numbers are their places.
    judged : bool
        Held-out draws: nothing is altered or cut off, and every target is at another protocol.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        settings: Settings,
        sites: Mapping[str, Site],
        judged: bool = False,
    ):
        super().__init__(heads, settings.size, artifacts=not judged)
        self.settings, self.sites, self.judged = settings, list(sites.values()), judged

    def draw(self, rng: np.random.Generator) -> Pair:
        """Draw a batch of the slices of one scan, as many as the settings say."""
        return Pair.join([Pair.of(fields) for fields in _PhantomPair(self, rng).samples()])


class _PhantomPair(SliceDraw):
    """Slices of one scan of the phantom."""

    def __init__(self, sampler: PhantomPairs, rng: np.random.Generator):
        super().__init__(sampler, rng)
        self.sampler = sampler

    def samples(self) -> Iterator[dict[str, np.ndarray]]:
        """Fields of each pair by name, without their first axis."""
        rng, settings, judged = self.rng, self.sampler.settings, self.sampler.judged
        head, stripped = int(rng.integers(len(self.heads))), rng.random() < 0.25
        contrast = _draw_contrast(settings.t1w, rng)
        site, protocol = NOBODY, None
        if self.sampler.sites and rng.random() < settings.sited:
            number = int(rng.integers(len(self.sampler.sites)))
            protocol = self.sampler.sites[number].protocols.get(CONTRASTS[contrast])
            site = NOBODY if protocol is None else number
        person = int(rng.integers(2**62))
        wanted = look = draw_look(CONTRASTS[contrast], rng, person, protocol)
        if judged or rng.random() < settings.protocols:
            wanted = draw_look(CONTRASTS[contrast], rng, person)
        alter = _unaltered if judged else _alteration(settings, rng)
        for _ in range(settings.slices):
            fields = self._pair(head, stripped, look, wanted, alter)
            yield fields | {'contrast': np.int64(contrast), 'site': np.int64(site)}

    def _pair(
        self, head: int, stripped: bool, look: Look, wanted: Look, alter: Alteration
    ) -> dict[str, np.ndarray]:
        """Two slices: of a head as it looks, and of the same or another as it is to look."""
        rng, settings = self.rng, self.sampler.settings
        fractions, shown = self._part(head, stripped)
        rim = int(rng.integers(4))
        mask = ndimage.binary_dilation(shown, iterations=rim) if rim else shown
        if self.artifacts:
            mask = self.field_of_view(mask)
        other = int(rng.integers(len(self.heads))) if rng.random() < settings.others else head
        style_fractions, style_mask = self._part(other, stripped)
        source = self.scan(look, look.render(fractions))
        style = alter(self.scan(wanted, wanted.render(style_fractions)))
        target = alter(blur(wanted.render(fractions), 0.3))
        return {
            'source': (source * mask)[None].astype(np.float32),
            'mask': mask[None].astype(np.float32),
            'style': (style * style_mask)[None].astype(np.float32),
            'style_mask': style_mask[None].astype(np.float32),
            'target': (target * mask)[None].astype(np.float32),
            'biology': np.full(settings.features, np.nan, np.float32),
            'anatomy': anatomy_of(fractions),
            'levels': wanted.levels(alter),
            'known': np.float32(1),
            'seeds': rng.integers(2**62),
        }

    def _part(self, head: int, stripped: bool) -> tuple[torch.Tensor, np.ndarray]:
        """Fractions of a crop, and what it shows of the head or, where stripped, of the brain."""
        fractions, brain = self.tissues(head)
        fractions = self.alter(fractions)
        if not stripped:
            return fractions, silhouette_of(fractions)
        return fractions * torch.from_numpy(brain.astype(np.float32)), brain


class SessionPairs:
    """Draws pairs of slices from the scans of real sessions.

    Held-out scans are altered too, for nothing else tells what they look like in another contrast.

    Parameters
    ----------
    slices : SessionSlices
    settings : Settings
        Of what is altered.
    numbers : mapping of str to int
        Number of each site.
    biology : Biology, optional
        What is known of the people.
    """

    def __init__(
        self,
        slices: SessionSlices,
        settings: Settings,
        numbers: Mapping[str, int],
        biology: Biology | None = None,
    ):
        self.slices, self.settings, self.numbers = slices, settings, dict(numbers)
        self.biology = biology or Biology((), {})

    def draw(self, rng: np.random.Generator) -> Pair:
        """Draw a batch of the slices of one scan, as many as the settings say."""
        return Pair.join([Pair.of(fields) for fields in _SessionPair(self, rng).samples()])


class _SessionPair(SessionDraw):
    """Slices of one scan of a real session."""

    def __init__(self, pairs: SessionPairs, rng: np.random.Generator):
        super().__init__(pairs.slices, rng)
        self.pairs = pairs

    def samples(self) -> Iterator[dict[str, np.ndarray]]:
        """Fields of each pair by name, without their first axis."""
        rng = self.rng
        index = int(rng.integers(len(self.sampler.sessions)))
        scan = self._scan_of(self.sampler.sessions[index])
        stripped = rng.random() < 0.25
        for _ in range(self.pairs.settings.slices):
            yield self._pair(index, scan, stripped)

    def _pair(self, index: int, scan: CachedScan, stripped: bool) -> dict[str, np.ndarray]:
        """Two slices of a scan, one altered."""
        rng, sampler, pairs = self.rng, self.sampler, self.pairs
        session = sampler.sessions[index]
        (image,), (mask,), brain = self.slices(index, [scan])
        if stripped:
            mask = mask & brain
        if sampler.artifacts:
            mask = self.field_of_view(mask)
        style, style_mask, _ = self.style(index, scan, stripped)
        alter = _alteration(pairs.settings, rng)
        return {
            'source': (image * mask)[None].astype(np.float32),
            'mask': mask[None].astype(np.float32),
            'style': (alter(style) * style_mask)[None].astype(np.float32),
            'style_mask': style_mask[None].astype(np.float32),
            'target': (alter(image) * mask)[None].astype(np.float32),
            'contrast': np.int64(CONTRASTS.index(scan.contrast)),
            'site': np.int64(pairs.numbers.get(scan.site, NOBODY)),
            'biology': np.float32(pairs.biology.of(session.subject)),
            'anatomy': np.zeros((len(ANATOMY), self.size, self.size), np.float32),
            'levels': np.zeros(len(LEVELS), np.float32),
            'known': np.float32(0),
            'seeds': rng.integers(2**62),
        }

    def _scan_of(self, session: Session) -> CachedScan:
        """A scan of the session; T1w by its share where there is one."""
        wanted = CONTRASTS[_draw_contrast(self.pairs.settings.t1w, self.rng)]
        scans = [scan for scan in session.scans if scan.contrast == wanted] or session.scans
        return scans[int(self.rng.integers(len(scans)))]


def _draw_contrast(t1w: float, rng: np.random.Generator) -> int:
    """Index of a contrast."""
    if rng.random() < t1w:
        return CONTRASTS.index('T1w')
    others = [i for i, contrast in enumerate(CONTRASTS) if contrast != 'T1w']
    return others[int(rng.integers(len(others)))]


def _alteration(settings: Settings, rng: np.random.Generator) -> Alteration:
    return draw_alteration(
        settings.gammas, settings.maps, settings.gamma, settings.map_strength, rng
    )


def _unaltered(image: np.ndarray) -> np.ndarray:
    return image
