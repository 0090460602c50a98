"""Draws of HACA3 from real sessions: pairs of contrasts of one slice, and no truth of tissues.

What the paper calls intra-site image-to-image translation: sources and target are scans of
one session, theta comes from another slice of the target's volume, or of another person's at
the same site. A session of one contrast is its own source and target.
"""

from collections.abc import Sequence

import numpy as np

from harmony_app.engine.anatomy import measured_part
from harmony_app.methods.base import CONTRASTS
from harmony_app.training.crops import CropDraw, foreground_points
from harmony_app.training.randomize import random_monotone_map
from harmony_app.training.sessions import CachedScan, Session
from harmony_app.training.slice_batch import ANATOMY, LEVELS, Batch
from harmony_app.training.spoiled import corrupt, draw_kind, draw_severities

TRIES = 30
"""Crops that are looked at before one that shows little is taken."""

LEAST = 0.05
"""Share of a crop that is to show something."""


class SessionSlices:
    """Draws slices from real sessions.

    Parameters
    ----------
    sessions : sequence of Session
        From the cache.
    size : int
        Height and width of the crops; a multiple of 16.
    artifacts : bool
        Whether sources may be corrupted and miss a side.
    remapped : float
        Share of the draws in which each contrast goes through a random monotone map, as at a
        site that nobody has; 0 to see the sites as they are.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        size: int = 128,
        artifacts: bool = True,
        remapped: float = 0.3,
    ):
        self.sessions, self.size = list(sessions), size
        self.artifacts, self.remapped = artifacts, remapped
        self.inside = [
            foreground_points(s.name, s.maps()[0], [scan.shown() for scan in s.scans])
            for s in self.sessions
        ]

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw a batch of one example."""
        return Batch.of(self.sample(rng)[0])

    def sample(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], str | None]:
        """Fields of a batch of one example without their first axis, and the site of its sources."""
        return _Draw(self, rng).sample()

    def alike(self, target: CachedScan) -> list[tuple[int, CachedScan]]:
        """Scans of the contrast and site of a scan, with their session; none for an unknown site."""
        return [
            (index, scan)
            for index, session in enumerate(self.sessions)
            for scan in session.scans
            if target.site is not None
            and (scan.site, scan.contrast) == (target.site, target.contrast)
        ]


class SessionDraw(CropDraw):
    """Slices of sessions, all from one generator.

    Parameters
    ----------
    sampler : SessionSlices
    rng : numpy.random.Generator
        Draws everything.
    """

    def __init__(self, sampler: SessionSlices, rng: np.random.Generator):
        super().__init__(sampler.size, rng)
        self.sampler = sampler

    def slices(
        self, index: int, scans: Sequence[CachedScan]
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Crops of some scans (S, size, size), what they show, and the brain, bool."""
        session = self.sampler.sessions[index]
        volumes = [scan.data()[None] for scan in scans] + [scan.shown()[None] for scan in scans]
        volumes.append(session.maps()[:1])
        for _ in range(TRIES):
            stack = self.crop(volumes, self.sampler.inside[index]).numpy()
            images = [np.clip(image, 0, None) for image in stack[: len(scans)]]
            shown = stack[len(scans) : -1] > 127
            if shown.all(axis=0).mean() >= LEAST:
                break
        return images, shown, stack[-1] > 127

    def style(
        self, index: int, target: CachedScan, stripped: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Another slice of the target's volume, or of its contrast at the same site.

        Its intensities, the head or brain in it, and its field of view.
        """
        rng = self.rng
        alike = self.sampler.alike(target) if rng.random() < 0.3 else []
        if alike:
            index, target = alike[int(rng.integers(len(alike)))]
        (image,), (shown,), brain = self.slices(index, [target])
        if stripped:
            return image, shown & brain, shown & brain
        return image, shown, measured_part(image) | shown


class _Draw(SessionDraw):
    """One example of a real session."""

    def sample(self) -> tuple[dict[str, np.ndarray], str | None]:
        """Fields of the batch by name, and the site of the sources."""
        rng = self.rng
        index = int(rng.integers(len(self.sampler.sessions)))
        session = self.sampler.sessions[index]
        sources, target = self._roles(session)
        curves = {
            scan.contrast: random_monotone_map(rng.uniform(0, 0.25), rng) for scan in session.scans
        }
        if rng.random() >= self.sampler.remapped:
            curves = {}
        stripped = rng.random() < 0.25
        scans = [*sources, target]
        images, shown, brain = self.slices(index, scans)
        if stripped:
            shown = shown & brain
        fields = [measured_part(image) | seen for image, seen in zip(images, shown, strict=True)]
        images = [
            self._remap(image, scan, curves) for image, scan in zip(images, scans, strict=True)
        ]
        alone = len({scan.name for scan in sources}) == 1
        severities = draw_severities(rng) if self.sampler.artifacts else (0.0, 0.0)
        given, masks, views = [], [], []
        for image, seen, field, severity in zip(
            images[:2], shown[:2], fields[:2], severities, strict=True
        ):
            # beyond the target's field of view nobody knows what is right
            mask = seen & shown[2]
            view = mask if stripped else field
            if self.sampler.artifacts:
                side = self.field_of_view(np.ones_like(mask))
                mask, view = mask & side, view & side
            if severity:
                kind, seed = draw_kind(rng)
                image = corrupt(image, kind, severity, seed)
            given.append(image * view)
            masks.append(mask)
            views.append(view)
        if alone:
            given[1], masks[1], views[1] = given[0], masks[0], views[0]
            severities = (severities[0],) * 2

        style, style_mask, style_view = self.style(index, target, stripped)
        style = self._remap(style, target, curves)
        kind, seed = draw_kind(rng)
        severity = np.sort(rng.random(2)).astype(np.float32)
        mild, severe = (corrupt(style, kind, float(s), seed) for s in severity)
        contrasts = [CONTRASTS.index(scan.contrast) for scan in scans]
        fields = {
            'sources': np.stack(given).astype(np.float32),
            'source_masks': np.stack(masks).astype(np.float32),
            'views': np.stack([*views, style_view]).astype(np.float32),
            'target': (images[2] * shown[2])[None].astype(np.float32),
            'anatomy': np.zeros((len(ANATOMY), self.size, self.size), np.float32),
            'style': (style * style_view)[None].astype(np.float32),
            'style_mask': style_mask[None].astype(np.float32),
            'clean': (style * style_view)[None].astype(np.float32),
            'mild': (mild * style_view)[None].astype(np.float32),
            'severe': (severe * style_view)[None].astype(np.float32),
            'severity': severity,
            'source_severity': np.array(severities, np.float32),
            'levels': np.zeros((3, len(LEVELS)), np.float32),
            'contrasts': np.array(contrasts),
            'present': np.array([True, not alone]),
            'known': np.float32(0),
            'seeds': rng.integers(2**62),
        }
        return fields, sources[0].site

    def _roles(self, session: Session) -> tuple[list[CachedScan], CachedScan]:
        """Two sources of two contrasts where there are two, and any scan as the target."""
        rng, scans = self.rng, session.scans
        first = scans[int(rng.integers(len(scans)))]
        others = [scan for scan in scans if scan.contrast != first.contrast]
        second = others[int(rng.integers(len(others)))] if others else first
        # scans of one contrast are not each other's truth: runs may differ in resolution
        choices = [first, second] + [
            s for s in scans if s.contrast not in (first.contrast, second.contrast)
        ]
        return [first, second], choices[int(rng.integers(len(choices)))]

    def _remap(self, image: np.ndarray, scan: CachedScan, curves: dict) -> np.ndarray:
        if scan.contrast not in curves:
            return image
        return np.interp(image, *curves[scan.contrast]).astype(np.float32)


def has_pairs(sessions: Sequence[Session]) -> bool:
    """Whether some session has two contrasts: anatomy is learned from pairs."""
    return any(len({scan.contrast for scan in session.scans}) > 1 for session in sessions)
