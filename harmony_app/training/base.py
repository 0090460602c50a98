"""What the training of a method gives to the loop, and what the loop is told and keeps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from harmony_app.errors import OptionError

PRECISIONS = ('auto', 'float32', 'bfloat16')
"""``auto`` is bfloat16 on CUDA, where it is fast, and float32 elsewhere."""


@dataclass(frozen=True)
class LoopSettings:
    """What the loop is told.

    Parameters
    ----------
    minutes : float
        Budget of time.
    steps : int
        Budget of steps instead, where not 0: then the same seed gives the same weights.
    batch : int
        Examples of a step, of all processes together.
    seed : int
        Of weights and examples.
    rate, decay : float
        Learning rate at its highest, and weight decay of AdamW.
    warm_steps : int
        Steps over which the rate rises.
    plateau : float
        Share of the budget at the highest rate; then it falls by a cosine to a thousandth.
    clip : float
        Largest norm of the gradient.
    average : float
        Decay of the running average of the weights, which is what is kept.
    log_steps, validation_steps : int
        Steps between rows of the log, and between validations.
    patience : int
        Validations without a better one after which the training ends; 0 for never.
    checkpoint_minutes : float
        Time between checkpoints.
    precision : str
        One of :data:`PRECISIONS`.
    workers : int
        Processes that draw examples ahead; 0 draws them in this one.
    """

    minutes: float = 30.0
    steps: int = 0
    batch: int = 2
    seed: int = 1
    rate: float = 1e-3
    decay: float = 1e-4
    warm_steps: int = 50
    plateau: float = 0.0
    clip: float = 1.0
    average: float = 0.998
    log_steps: int = 20
    validation_steps: int = 100
    patience: int = 0
    checkpoint_minutes: float = 4.0
    precision: str = 'auto'
    workers: int = 0

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise OptionError(f'precision {self.precision}: choose one of {", ".join(PRECISIONS)}')
        for name in ('batch', 'log_steps', 'validation_steps'):
            if getattr(self, name) < 1:
                raise OptionError(f'{name} of a training is at least 1')
        if self.steps < 0 or (not self.steps and self.minutes <= 0):
            raise OptionError('a training needs a budget: minutes or steps above 0')

    def schedule(self, step: int, done: float) -> float:
        """Share of the highest rate.

        Examples
        --------
        >>> settings = LoopSettings(warm_steps=10, plateau=0.5)
        >>> [round(settings.schedule(s, d), 3) for s, d in ((0, 0), (99, 0.5), (99, 0.75), (99, 1))]
        [0.1, 1.0, 0.5, 0.001]
        """
        warm = min(1.0, (step + 1) / max(1, self.warm_steps))
        falling = min(1.0, max(0.0, (done - self.plateau) / max(1e-9, 1 - self.plateau)))
        return warm * max(1e-3, 0.5 * (1 + math.cos(math.pi * falling)))


class Training(ABC):
    """What a method gives to the loop.

    Attributes
    ----------
    network : Module
        What the model holds in the end; its running average is kept.
    helpers : dict of str to Module
        Trained beside it, kept in checkpoints only.
    source : object
        ``draw(rng)`` gives one example.
    terms : tuple of str
        Names of the losses; ``loss`` is the one that is minimised.
    score : str
        Metric of :meth:`validate` by which the best model is chosen; higher is better.
    """

    network: torch.nn.Module
    helpers: Mapping[str, torch.nn.Module]
    source: object
    terms: tuple[str, ...] = ('loss',)
    score: str = ''

    @staticmethod
    @abstractmethod
    def collate(examples: Sequence):
        """Batch of examples."""

    @abstractmethod
    def losses(self, batch, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss on a batch.

        Parameters
        ----------
        batch : object
            Of :meth:`collate`.
        step : int
            Steps before this one.
        done : float
            Share of the budget, 0 to 1.
        """

    def drawing_seconds(self) -> float:
        """Seconds that :meth:`losses` spent on making its examples since the last call of this."""
        return 0.0

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Metrics of the averaged network on the same held-out examples each time, or nothing."""
        return {}

    def picture(self, network: torch.nn.Module) -> np.ndarray | None:
        """Picture (H, W), 0 to 1, of held-out examples, or None."""
        return None

    def describe(self) -> dict:
        """What a checkpoint says beside the state: settings, for JSON."""
        return {}


@dataclass
class Progress:
    """Where a training stands; everything a checkpoint says of it."""

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    bad_steps: int = 0
    counted: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
