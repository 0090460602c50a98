"""What a step of HACA3 is given: slices with what is known of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch

ANATOMY = (
    ('bone', 'vessel'),
    ('csf', 'vitreous'),
    ('gm', 'deep_gm'),
    ('wm',),
    ('lesion', 'marrow', 'fat', 'muscle', 'skin', 'mucosa'),
)
"""Tissues by level of the anatomy; air goes with the first. Where it lies tells a lesion from fat."""

LEVELS = ('gm', 'deep_gm', 'csf', 'lesion', 'vessel', 'marrow', 'fat', 'muscle')
"""Tissues whose intensities, white matter at 1, say what a contrast looks like."""


@dataclass(frozen=True)
class Drawn:
    """Tensors by name, each with one row for an example; subclasses say which."""

    @classmethod
    def of(cls, drawn: Mapping[str, np.ndarray]) -> Self:
        """Batch of one example, its fields without their first axis."""
        return cls(**{name: torch.from_numpy(np.asarray(v))[None] for name, v in drawn.items()})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Batches one after the other."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def take(self, chosen: torch.Tensor) -> Self:
        """Examples that are chosen, by a mask (B,) or their numbers."""
        return type(self)(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def to(self, device: str) -> Self:
        """The batch on a device."""
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class Batch(Drawn):
    """Draws for one step, all float32 and (B, 1, H, W) unless said.

    Parameters
    ----------
    sources, source_masks : Tensor, shape (B, 2, H, W)
        Two contrasts of one slice as scanned, and the head or brain that each shows of it. Of
        the air around it only eta learns.
    views : Tensor, shape (B, 3, H, W)
        Field of view of both sources and of the style slice, air included where it was
        measured; the slices are zero outside.
    target : Tensor
        The same slice at the target's protocol, noise-free.
    anatomy : Tensor, shape (B, 5, H, W)
        Fraction of each level of :data:`ANATOMY` in the slice; sums to 1.
    style, style_mask : Tensor
        Another slice at the target's protocol, as scanned, and the head or brain in it.
    clean, mild, severe : Tensor
        The style slice as scanned or with hardly any noise, and with one artifact at two
        severities.
    severity : Tensor, shape (B, 2)
        Of ``mild`` and ``severe``.
    source_severity : Tensor, shape (B, 2)
        Of the artifact of each source, 0 for none.
    levels : Tensor, shape (B, 3, 8)
        Intensity of :data:`LEVELS` in both sources and in the target, bright ones compressed.
    contrasts : Tensor, shape (B, 3), int64
        Index of the contrasts of both sources and of the target in ``CONTRASTS``.
    present : Tensor, shape (B, 2), bool
        Which sources there are; a source that is absent repeats the other.
    known : Tensor, shape (B,)
        1 where ``anatomy`` and ``levels`` are the truth, 0 where nobody knows it.
    seeds : Tensor, shape (B,), int64
        Of the noise that the training adds.
    """

    sources: torch.Tensor
    source_masks: torch.Tensor
    views: torch.Tensor
    target: torch.Tensor
    anatomy: torch.Tensor
    style: torch.Tensor
    style_mask: torch.Tensor
    clean: torch.Tensor
    mild: torch.Tensor
    severe: torch.Tensor
    severity: torch.Tensor
    source_severity: torch.Tensor
    levels: torch.Tensor
    contrasts: torch.Tensor
    present: torch.Tensor
    known: torch.Tensor
    seeds: torch.Tensor
