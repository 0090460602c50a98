"""Draws of MISPEL: one axial slice of a person as every scanner shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from harmony_app.errors import OptionError
from harmony_app.methods.base import CONTRASTS
from harmony_app.phantom.acquisition import spread_widths
from harmony_app.phantom.geometry import AXES
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.sites import Site
from harmony_app.phantom.tissues import TISSUES, tissue_properties, vary_properties
from harmony_app.training.crops import CropDraw, foreground_points
from harmony_app.training.heads import Head
from harmony_app.training.matched import MatchedSet
from harmony_app.training.session_slices import LEAST, TRIES
from harmony_app.training.slice_batch import Drawn
from harmony_app.training.slices import SliceDraw, SliceSampler, rician, silhouette_of

AXIAL = 2
"""Axis that the slices of the paper lie across."""

STRIPPED = 0.25
"""Share of the draws that show the brain alone."""

_WM = TISSUES.index('wm')


@dataclass(frozen=True)
class MatchedBatch(Drawn):
    """Matched slices.

    Parameters
    ----------
    images, seen : Tensor, shape (B, M, H, W)
        Slices by scanner, white-matter peak at 1, and what each shows of the head or brain; both 0
        where the person was not scanned there.
    contrast : Tensor, shape (B,), int64
        Index in ``CONTRASTS``.
    """

    images: torch.Tensor
    seen: torch.Tensor
    contrast: torch.Tensor


@dataclass(frozen=True)
class Scanner:
    """A protocol of a site as preprocessing leaves its scans on the working grid.

    Parameters
    ----------
    protocol : Protocol
    blur : tuple of 3 float
        Standard deviation of the point spread along the axes of the working grid, mm; that across
        a slice is not simulated.
    noise : float
        Standard deviation of the noise in each channel, white matter at 1.
    bias : float
        What is left of the receive field.
    """

    protocol: Protocol
    blur: tuple[float, float, float]
    noise: float
    bias: float

    @classmethod
    def of(cls, site: Site, contrast: str) -> 'Scanner':
        """Scanner of a site.

        A voxel averages over a box, and the filter blurs what is read; finer voxels than those
        of the working grid are averaged by the resampling, their noise with them.

        Raises
        ------
        OptionError
            For a contrast that the site does not acquire, or acquires in thick slices: of those one
            slice of a head tells nothing.
        """
        if contrast not in site.protocols:
            raise OptionError(f'site {site.name} of the phantom has no protocol for {contrast}')
        protocol = site.protocols[contrast]
        if protocol.acquisition == '2D':
            raise OptionError(
                f'site {site.name} of the phantom acquires {contrast} in thick slices (2D), and MISPEL is '
                'trained on single slices of its heads: choose sites that acquire it in 3D'
            )
        widths = spread_widths(protocol, site.point_spread)
        blur = np.zeros(3)
        for direction, zoom, width in zip(
            AXES[protocol.plane], protocol.zooms, widths, strict=True
        ):
            blur[np.abs(direction).argmax()] = zoom * np.hypot(width / 2.3548, 12**-0.5)
        averaged = np.sqrt(np.prod(np.minimum(protocol.zooms, 1.0)))
        return cls(protocol, tuple(blur.tolist()), averaged / protocol.snr, 0.3 * protocol.bias)

    def signals(self, seed: int) -> torch.Tensor:
        """Signal of every tissue of a person, white matter at 1, shape (K,)."""
        person = torch.Generator().manual_seed(seed)
        properties = vary_properties(tissue_properties(self.protocol.field), 0.05, person)
        signals = signal(self.protocol, properties)
        return (signals / signals[_WM]).clamp(max=5.0)


class MatchedPhantom:
    """Draws slices of heads at the scanners of the phantom.

    A person is the same at all of them. The scans of a person lie on each other within a fraction
    of a voxel, as those of real people do after their registration.

    Parameters
    ----------
    heads : sequence of Head
    sites : sequence of Site
        Every one has a protocol of every contrast.
    contrasts : sequence of str
    size : int
        Height and width of the crops; a multiple of 16.
    aligned : float
        Standard deviation in mm by which a scan lies beside the others, along each axis.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        sites: Sequence[Site],
        contrasts: Sequence[str] = ('T1w',),
        size: int = 128,
        aligned: float = 0.3,
    ):
        self.sampler, self.aligned = SliceSampler(heads, size), aligned
        sites = sorted(sites, key=lambda site: site.name)
        self.scanners = tuple(site.name for site in sites)
        self.looks = {c: [Scanner.of(site, c) for site in sites] for c in contrasts}

    @property
    def units(self) -> list[tuple[str, str]]:
        """Contrast and scanner of each unit that can be learned from it."""
        return [(contrast, name) for contrast in self.looks for name in self.scanners]

    def draw(self, rng: np.random.Generator) -> MatchedBatch:
        """Draw a batch of one example."""
        contrast = list(self.looks)[int(rng.integers(len(self.looks)))]
        drawn = _PhantomDraw(self.sampler, rng)
        images, shown = drawn.sample(self.looks[contrast], self.aligned)
        index = np.int64(CONTRASTS.index(contrast))
        return MatchedBatch.of({'images': images, 'seen': shown, 'contrast': index})


class _PhantomDraw(SliceDraw):
    """One example of the phantom."""

    def sample(self, scanners: Sequence[Scanner], aligned: float) -> tuple[np.ndarray, np.ndarray]:
        """Slices by scanner and what they show, shape (M, size, size)."""
        rng = self.rng
        person = int(rng.integers(len(self.heads)))
        for _ in range(TRIES):
            fractions, brain = self.tissues(person, AXIAL)
            shown = silhouette_of(fractions)
            if shown.mean() >= LEAST:
                break
        fractions = self.alter(fractions)
        if rng.random() < STRIPPED:
            fractions = fractions * torch.from_numpy(brain.astype(np.float32))
            shown = brain
        rim = int(rng.integers(4))
        shown = ndimage.binary_dilation(shown, iterations=rim) if rim else shown
        seed = int(rng.integers(2**62))
        images = [self._scan(fractions, scanner, seed, aligned) for scanner in scanners]
        seen = np.repeat(shown[None], len(scanners), axis=0).astype(np.float32)
        return np.stack(images) * seen, seen

    def _scan(
        self, fractions: torch.Tensor, scanner: Scanner, person: int, aligned: float
    ) -> np.ndarray:
        rng = self.rng
        image = torch.tensordot(scanner.signals(person), fractions, dims=1).numpy()
        image = ndimage.gaussian_filter(image, scanner.blur[:AXIAL], truncate=3)
        field = self.smooth(4).numpy()
        gain = np.float32(rng.uniform(0.97, 1.03))
        image = rician(image * np.exp(scanner.bias * field) * gain, scanner.noise, rng)
        # resampling to the working grid smooths the noise too
        image = ndimage.shift(image, rng.normal(0, aligned, 2), order=1, mode='nearest')
        return np.clip(image, 0, 6).astype(np.float32)


class MatchedSessions:
    """Draws slices of real people who were at several scanners.

    Parameters
    ----------
    sets : sequence of MatchedSet
    units : sequence of (str, str)
        Contrast and scanner of each unit that learns; those of the sets are among them.
    size : int
        Height and width of the crops; a multiple of 16.
    """

    def __init__(
        self, sets: Sequence[MatchedSet], units: Sequence[tuple[str, str]], size: int = 128
    ):
        self.sets, self.units, self.size = list(sets), tuple(units), size
        self.scanners = tuple(sorted({scanner for _, scanner in units}))
        self.inside = [_points_of(one) for one in self.sets]

    def draw(self, rng: np.random.Generator) -> MatchedBatch:
        """Draw a batch of one example; of several scans at a scanner one is drawn."""
        number = int(rng.integers(len(self.sets)))
        chosen = self.sets[number]
        pairs = {s: group[int(rng.integers(len(group)))] for s, group in chosen.scans.items()}
        brains = rng.random() < STRIPPED
        volumes = []
        for session, scan in pairs.values():
            volumes += [scan.data()[None], scan.shown()[None], session.maps()[:1]]
        drawn = CropDraw(self.size, rng)
        for _ in range(TRIES):
            stack = drawn.crop(volumes, self.inside[number], AXIAL).numpy()
            shown = stack[1::3] > 127
            if shown.all(axis=0).mean() >= LEAST:
                break
        if brains:
            shown = shown & (stack[2::3] > 127)
        images, seen = np.zeros((2, len(self.scanners), self.size, self.size), np.float32)
        slots = [self.scanners.index(scanner) for scanner in pairs]
        images[slots], seen[slots] = np.clip(stack[::3], 0, None) * shown, shown
        index = np.int64(CONTRASTS.index(chosen.contrast))
        return MatchedBatch.of({'images': images, 'seen': seen, 'contrast': index})


def _points_of(matched: MatchedSet) -> np.ndarray:
    session, _ = next(iter(matched.scans.values()))[0]
    shown = [group[0][1].shown() for group in matched.scans.values()]
    return foreground_points(matched.subject, session.maps()[0], shown)
