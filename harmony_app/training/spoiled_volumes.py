"""Whole scans with graded artifacts, to teach eta what shows of an artifact in which slice.

A slice spoiled by itself is not what a slice of a spoiled scan looks like: ghosts and thick
slices lie along one axis of the scan and hardly show across it, a bias field is as wide as the
head, and most T2w and FLAIR scans have thick slices from the start, which is no artifact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harmony_app.engine.slicing import ORIENTATIONS
from harmony_app.methods.base import CONTRASTS
from harmony_app.phantom.acquisition import point_spread
from harmony_app.phantom.artifacts import ARTIFACTS
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES
from harmony_app.training.crops import cubic_weights
from harmony_app.training.heads import Head
from harmony_app.training.randomize import smooth_field
from harmony_app.training.slices import Look, draw_looks
from harmony_app.training.spoiled import BRIGHTEST, draw_kind

_BRAIN = [TISSUES.index(name) for name in BRAIN_TISSUES]
_CSF = TISSUES.index('csf')


@dataclass(frozen=True)
class SimulatedScan:
    """A scan of a head at a random protocol and resolution, without an artifact.

    Parameters
    ----------
    contrast : str
    data : ndarray, shape (X, Y, Z), float32
        White matter near 1; zero where nothing was measured.
    view : ndarray, shape (X, Y, Z), bool
        Where it was measured, air included unless it was cut away.
    head : ndarray, shape (X, Y, Z), bool
        Head, or brain of a stripped scan.
    """

    contrast: str
    data: np.ndarray
    view: np.ndarray
    head: np.ndarray


def simulate_scan(head: Head, contrast: str, rng: np.random.Generator) -> SimulatedScan:
    """Draw a protocol, a resolution, residual bias, noise and a field of view for a head.

    T1w has thick slices in one scan of five, the others in three of four: 2 to 6 mm, mostly axial.

    Parameters
    ----------
    head : Head
        On the working grid.
    contrast : str
        One of :data:`harmony_app.methods.base.CONTRASTS`.
    rng : numpy.random.Generator
        Draws everything.

    Examples
    --------
    >>> import numpy as np
    >>> fractions = np.zeros((len(TISSUES), 32, 32, 32), np.uint8)
    >>> fractions[TISSUES.index('wm'), 8:24, 8:24, 8:24] = 255
    >>> scan = simulate_scan(
    ...     Head('cube', fractions, fractions[:4]), 'T2w', np.random.default_rng(3)
    ... )
    >>> bool(0.6 < scan.data[12:20, 12:20, 12:20].mean() < 1.4)
    True
    """
    (look,) = draw_looks((contrast,), rng)
    stripped = rng.random() < 0.1
    image, shown = _rendered(head, look, stripped)
    flips = [axis for axis in (0, 1) if rng.random() < 0.5]
    image, shown = (torch.from_numpy(np.flip(a, flips).copy()) for a in (image, shown))
    image = image * torch.from_numpy(np.exp(0.3 * look.bias * smooth_field(image.shape, 4, rng)))
    image = _acquired(image * rng.uniform(0.95, 1.05), look, rng)
    if rng.random() < 0.5:
        # resampling to the working grid smooths the noise too
        image = point_spread(image[None], [float(rng.uniform(0.5, 1.4))] * 3)[0]
    view = _field_of_view(shown.shape, rng)
    if stripped or rng.random() < 0.15:
        view = view & shown.numpy()
    data = image.clamp(0, BRIGHTEST).numpy() * view
    return SimulatedScan(contrast, data.astype(np.float32), view, shown.numpy() & view)


def spoil(
    scan: SimulatedScan, kind: str, severity: float, seed: int, axes: Sequence[int] = (0, 1, 2)
) -> np.ndarray:
    """A scan with one artifact of :data:`harmony_app.phantom.artifacts.ARTIFACTS`.

    Parameters
    ----------
    scan : SimulatedScan
    kind : str
    severity : float
        0 to 1.
    seed : int
        Of the pattern, the same at every severity.
    axes : sequence of 3 int
        Order of the axes for the artifact, whose first one is that of phase encoding.

    Returns
    -------
    ndarray, shape (X, Y, Z), float32
        Zero where the scan measured nothing.
    """
    if kind not in ARTIFACTS:
        raise ValueError(f'unknown artifact {kind!r}; known: {", ".join(ARTIFACTS)}')
    turned = torch.from_numpy(np.ascontiguousarray(scan.data.transpose(axes)))
    generator = torch.Generator().manual_seed(seed)
    result = ARTIFACTS[kind](turned[None], severity, generator)[0].clamp(0, BRIGHTEST).numpy()
    return np.ascontiguousarray(result.transpose(np.argsort(axes))) * scan.view


@dataclass(frozen=True)
class SpoiledSlices:
    """Slices of one scan, as it is and spoiled.

    Parameters
    ----------
    contrast : str
    kinds : tuple of str, length V
        Artifact of each version; ``none`` first.
    severity : ndarray, shape (V,), float32
        0 first.
    images : tuple of 3 ndarray, shape (V, N, H, W), float16
        Axial, coronal and sagittal slices of every version.
    views : tuple of 3 ndarray, shape (N, H, W), bool
        Field of view in them.
    """

    contrast: str
    kinds: tuple[str, ...]
    severity: np.ndarray
    images: tuple[np.ndarray, ...]
    views: tuple[np.ndarray, ...]


class VolumeSampler:
    """Draws slices of scans as they are and with artifacts.

    Parameters
    ----------
    heads : sequence of Head
    slices : int
        Slices of each orientation.
    artifacts : int
        Artifacts of a scan, each at two severities.
    """

    def __init__(self, heads: Sequence[Head], slices: int = 3, artifacts: int = 2):
        self.heads, self.slices, self.artifacts = list(heads), slices, artifacts

    def draw(self, rng: np.random.Generator) -> SpoiledSlices:
        """Draw the slices of one scan."""
        head = self.heads[int(rng.integers(len(self.heads)))]
        contrast = CONTRASTS[int(rng.integers(len(CONTRASTS)))]
        scan = simulate_scan(head, contrast, rng)
        chosen = {axis: self._choose(scan.head, axis, rng) for axis in ORIENTATIONS.values()}
        kinds, severities = ['none'], [0.0]
        versions = [_take(scan.data, chosen)]
        for _ in range(self.artifacts):
            kind, seed = draw_kind(rng)
            axes = rng.permutation(3)
            for severity in np.sort(rng.random(2)):
                kinds.append(kind)
                severities.append(float(severity))
                versions.append(_take(spoil(scan, kind, float(severity), seed, axes), chosen))
        return SpoiledSlices(
            contrast,
            tuple(kinds),
            np.array(severities, np.float32),
            tuple(np.stack(planes).astype(np.float16) for planes in zip(*versions, strict=True)),
            tuple(_take(scan.view, chosen)),
        )

    def _choose(self, shown: np.ndarray, axis: int, rng: np.random.Generator) -> np.ndarray:
        """Slices that show at least a quarter of what the fullest shows."""
        area = np.moveaxis(shown, axis, 0).sum(axis=(1, 2))
        full = np.flatnonzero(area >= max(1, area.max() / 4))
        return np.sort(rng.choice(full, self.slices, replace=len(full) < self.slices))


def _rendered(head: Head, look: Look, stripped: bool) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free image of a head, and where the head, or its brain, is."""
    image = np.zeros(head.fractions.shape[1:], np.float32)
    whole = np.zeros(image.shape, np.float32)
    for index, (part, level) in enumerate(zip(head.fractions, look.signals, strict=True)):
        if stripped and index not in (*_BRAIN, _CSF):
            continue
        part = np.asarray(part, np.float32) / 255
        image += part * float(level)
        whole += part
    if look.curve is not None:
        image = np.interp(image, *look.curve).astype(np.float32)
    shown = whole > 0.3
    if stripped:
        shown = np.asarray(head.maps[0]) > 127
        image = image * shown
    return image, shown


def _acquired(image: torch.Tensor, look: Look, rng: np.random.Generator) -> torch.Tensor:
    """Point spread, slices of some thickness, and noise as the scanner has it."""
    image = point_spread(image[None], [float(rng.uniform(0.5, 1.8))] * 3)[0]
    thick = rng.random() < (0.2 if look.contrast == 'T1w' else 0.75)
    if not thick:
        return _noisy(image, 1 / look.snr, rng)
    zoom = float(rng.uniform(2, 6))
    axis = 2 if rng.random() < 0.7 else int(rng.integers(3))
    moved = image.movedim(axis, -1)
    length = moved.shape[-1]
    count = max(2, round(length / zoom))
    flat = point_spread(moved.reshape(1, -1, length), [0.0, 0.9 * np.sqrt(zoom**2 - 1)])
    flat = torch.nn.functional.interpolate(flat, size=count, mode='linear', align_corners=True)[0]
    flat = _noisy(flat, 1 / look.snr, rng) @ cubic_weights(length, count).T
    return flat.reshape(moved.shape).movedim(-1, axis)


def _noisy(image: torch.Tensor, sigma: float, rng: np.random.Generator) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    real = torch.randn(image.shape, generator=generator) * sigma
    imaginary = torch.randn(image.shape, generator=generator) * sigma
    return torch.hypot(image + real, imaginary)


def _field_of_view(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A box that leaves out up to an eighth at each side."""
    view = np.ones(shape, bool)
    for axis, length in enumerate(shape):
        for side in range(2):
            cut = int(rng.uniform(-0.12, 0.12) * length)
            if cut > 0:
                index = [slice(None)] * 3
                index[axis] = slice(0, cut) if side == 0 else slice(length - cut, None)
                view[tuple(index)] = False
    return view


def _take(volume: np.ndarray, chosen: dict[int, np.ndarray]) -> list[np.ndarray]:
    """Slices (N, H, W) of a volume for each orientation."""
    return [np.moveaxis(volume, axis, 0)[index] for axis, index in chosen.items()]
