"""Phantom slices as plans: all that is random of them but the noise of their pixels.

A plan is drawn on a CPU in a few milliseconds and holds a few hundred numbers; the slices of a
step are rendered from plans on a GPU (:mod:`harmony_app.training.slice_renderer`). What is drawn is
what :class:`harmony_app.training.slices.SliceSampler` draws, one slice after the other on a CPU.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from harmony_app.methods.base import CONTRASTS
from harmony_app.training.crops import foreground_points
from harmony_app.training.heads import Head
from harmony_app.training.randomize import random_monotone_map
from harmony_app.training.slices import AIR, Look, draw_looks
from harmony_app.training.spoiled import KINDS, draw_severities

LESIONS = 7
"""Lesions of a slice at most."""

CONTROLS = (8, 40)
"""Fewest control points of a texture along an axis, and one more than the most."""

KNOTS = random_monotone_map(0.0, np.random.default_rng(0))[0]
"""Intensities at which monotone maps have their knots."""


class PlanSampler:
    """Draws plans.

    Parameters
    ----------
    heads : sequence of Head
        Of one shape.
    size : int
        Height and width of the crops; a multiple of 16.

    Raises
    ------
    ValueError
        Where the heads are smaller than a crop and the margin that it is turned within.
    """

    def __init__(self, heads: Sequence[Head], size: int = 128):
        self.size, self.window = size, size + size // 4
        self.shape = heads[0].maps.shape[1:]
        if min(self.shape) < self.window:
            raise ValueError(
                f'crops of {size} pixels are cut of {self.window}, and the heads have {self.shape} '
                'voxels: choose smaller crops'
            )
        self._inside = [foreground_points(h.name, h.maps[0], h.fractions) for h in heads]

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the plan of one example.

        Returns
        -------
        dict of str to ndarray
            Of both slices, that of the sources and that of the style: ``head``, ``axis``,
            ``plane``, ``start`` (corner of the window), ``matrix`` and ``bend`` of its
            deformation, ``flip``, ``controls`` of the texture, ``lesions`` (radius, width over
            height, share; shape (2, 7, 3)). Of both sources and the style as scanned: ``blur``,
            ``thick`` (along both axes), ``again``, ``bias``, ``gain``, ``noise``, ``kind`` and
            ``turned`` of the artifact. ``box`` of what is seen of the sources (first and last row
            and column); ``signals`` and ``curves`` of both sources and the target; ``grain`` of the
            clean slice, 0 where it is the style; and fields of
            :class:`harmony_app.training.slice_batch.Batch`.
        """
        person = other = int(rng.integers(len(self._inside)))
        if rng.random() < 0.3 or len(self._inside) == 1:
            other = int(rng.integers(len(self._inside)))
        stripped = rng.random() < 0.25
        crops = [self._crop(i, rng) for i in (person, other)]
        first, second = (int(i) for i in rng.choice(len(CONTRASTS), 2, replace=False))
        wanted = int(rng.integers(len(CONTRASTS)))
        names = [CONTRASTS[i] for i in (first, second, wanted)]
        *looks, target = draw_looks(names, rng)
        if wanted in (first, second) and rng.random() < 0.3:
            target = looks[(first, second).index(wanted)]
        scans = [_scan(look, rng) for look in (*looks, target)]
        looks.append(target)
        severities = draw_severities(rng)
        return _stacked(crops) | _stacked(scans) | {
            'stripped': np.array(stripped),
            'airy': np.array(not stripped and rng.random() < AIR),
            'rim': rng.integers(4),
            'box': np.stack([self._box(rng) for _ in range(2)]),
            'signals': np.stack([look.signals.numpy() for look in looks]),
            'curves': np.stack([KNOTS if k.curve is None else k.curve[1] for k in looks]).astype(
                np.float32
            ),
            'kind': rng.integers(len(KINDS), size=3),
            'turned': rng.random(3) < 0.5,
            'grain': np.float32(0.004 + 0.012 * rng.random() if rng.random() < 0.5 else 0),
            'severity': np.sort(rng.random(2)).astype(np.float32),
            'source_severity': np.array(severities, np.float32),
            'levels': np.stack([look.levels() for look in looks]),
            'contrasts': np.array([first, second, wanted]),
            'seeds': rng.integers(2**62),
        }  # fmt: skip

    def _crop(self, head: int, rng: np.random.Generator) -> dict:
        size, window = self.size, self.window
        points = self._inside[head]
        centre = points[int(rng.integers(len(points)))]
        axis = int(rng.integers(3))
        start = [
            np.clip(
                centre[i] + rng.integers(-size // 4, size // 4 + 1) - window // 2,
                0,
                self.shape[i] - window,
            )
            for i in range(3)
            if i != axis
        ]
        matrix, bend = np.eye(2), 0.0
        if rng.random() < 0.7:
            angle, stretch = rng.normal(0, 0.15), np.exp(rng.normal(0, 0.08, 2))
            matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            matrix, bend = matrix * stretch, rng.uniform(0, 3)
        lesions = np.zeros((LESIONS, 3), np.float32)
        lesions[:, :2] = 1
        if rng.random() < 0.3:
            count = int(rng.integers(1, LESIONS + 1))
            lesions[:count, 0] = np.exp(rng.uniform(np.log(1.5), np.log(7), count))
            lesions[:count, 1] = np.exp(rng.normal(0, 0.4, count))
            lesions[:count, 2] = rng.uniform(0.5, 1, count)
        return {
            'head': head,
            'axis': axis,
            'plane': int(centre[axis]),
            'start': np.array(start),
            'matrix': matrix.astype(np.float32),
            'bend': np.float32(bend),
            'flip': rng.random() < 0.5,
            'controls': int(rng.integers(*CONTROLS)),
            'lesions': lesions,
        }

    def _box(self, rng: np.random.Generator) -> np.ndarray:
        """First and last row and column that are seen: now and then a side is not scanned."""
        box = np.array([[0, self.size - 1], [0, self.size - 1]])
        if rng.random() < 0.15:
            axis, edge = int(rng.integers(2)), int(rng.uniform(0.5, 0.9) * self.size)
            box[axis] = (0, edge - 1) if rng.random() < 0.5 else (self.size - edge, self.size - 1)
        return box


def _scan(look: Look, rng: np.random.Generator) -> dict:
    """Numbers of :meth:`harmony_app.training.slices.SliceSampler` as it scans a slice."""
    thick = np.zeros(2, np.float32)
    if rng.random() < 0.25:
        thick[int(rng.integers(2))] = rng.uniform(0.5, 2.2)
    return {
        'blur': np.float32(rng.uniform(0, 0.8)),
        'thick': thick,
        'again': np.float32(rng.uniform(0.2, 0.6) if rng.random() < 0.5 else 0),
        'bias': np.float32(0.3 * look.bias),
        'gain': np.float32(rng.uniform(0.95, 1.05)),
        'noise': np.float32(1 / look.snr),
    }


def _stacked(parts: Sequence[Mapping]) -> dict[str, np.ndarray]:
    return {name: np.stack([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def join_plans(plans: Sequence[Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Plans of a step as tensors, the examples along the first axis."""
    return {name: torch.from_numpy(array) for name, array in _stacked(plans).items()}
