"""What the trainings of networks on slices have in common.

A method adds its networks, its losses, its settings and its draws.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
import torch

from harmony_app.training.base import Training
from harmony_app.training.heads import Head
from harmony_app.training.slice_scores import draw_checks
from harmony_app.training.slice_settings import SliceSettings
from harmony_app.training.slice_weights import fill_from_model


class SliceTraining(Training):
    """Networks that are trained on crops of slices and judged on held-out ones.

    Parameters
    ----------
    settings : SliceSettings
        Of the method.
    source : object
        ``draw(rng)`` gives a batch of one example.
    check : object, optional
        The same of held-out heads or people; without it nothing is validated.
    device : str
        Of the networks.
    seed : int
        Of the initial weights.

    Attributes
    ----------
    method : str
        Name in the registry.
    checks : tuple of int
        Batches of the validation, and slices of each.
    fading : tuple of str
        Losses whose weights fall to a tenth over the share ``tissue_until`` of the budget.
    judge : callable
        ``judge(network, batches)`` gives metrics by name.
    show : callable
        ``show(network, batch)`` gives a picture (H, W), 0 to 1.
    """

    method: str
    score = 'psnr_all'
    checks: tuple[int, int] = (6, 8)
    fading: tuple[str, ...] = ()
    judge: Callable[[torch.nn.Module, Sequence], dict[str, float]]
    show: Callable[[torch.nn.Module, object], np.ndarray]

    def __init__(
        self,
        settings: SliceSettings,
        source: object,
        check: object | None = None,
        device: str = 'cpu',
        seed: int = 1,
    ):
        self.settings, self.source, self.device = settings, source, device
        self._check, self._checks = check, None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.make_network()
            helpers = self.make_helpers(network)
        # the faster layout for few channels, on the CPU too
        self.network = network.to(device, memory_format=torch.channels_last)
        self.helpers = {name: helper.to(device) for name, helper in helpers.items()}

    @abstractmethod
    def make_network(self) -> torch.nn.Module:
        """Networks of the widths that the settings name, their weights by chance."""

    def make_helpers(self, network: torch.nn.Module) -> dict[str, torch.nn.Module]:
        """What is trained beside the networks and is no part of the model; nothing by default."""
        return {}

    @staticmethod
    @abstractmethod
    def phantom(heads: Sequence[Head], settings: SliceSettings, judged: bool) -> object:
        """Source of examples of the phantom, for learning or, ``judged``, for validation."""

    @classmethod
    def on_phantom(
        cls,
        settings: SliceSettings,
        heads: Sequence[Head],
        held_out: Sequence[Head],
        device: str = 'cpu',
        seed: int = 1,
    ) -> Self:
        """The training on heads of the phantom alone, judged by others where there are any."""
        source = cls.phantom(heads, settings, judged=False)
        check = cls.phantom(held_out, settings, judged=True) if held_out else None
        return cls(settings, source, check, device, seed)

    def describe(self) -> dict:
        """Settings, for JSON."""
        return asdict(self.settings)

    def weights(self, done: float) -> dict[str, float]:
        """Weight of each loss by name, at a share of the budget from 0 to 1."""
        weights = asdict(self.settings)
        for name in self.fading:
            weights[name] *= max(0.1, 1 - 0.9 * done / self.settings.tissue_until)
        return weights

    def weighted(self, terms: dict[str, torch.Tensor], done: float) -> dict[str, torch.Tensor]:
        """The losses, and ``loss``: their sum by the weights at a share of the budget."""
        weights = self.weights(done)
        names = [name for name in self.terms if name != 'loss']
        return {'loss': sum(weights[name] * terms[name] for name in names)} | terms

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Metrics of :attr:`judge` on the held-out examples; nothing where there are none."""
        return self.judge(network, self.held_out()) if self._check is not None else {}

    def picture(self, network: torch.nn.Module) -> np.ndarray | None:
        """Picture of :attr:`show` of the first held-out examples, or None."""
        return self.show(network, self.held_out()[0]) if self._check is not None else None

    def held_out(self) -> list:
        """Batches for validation, the same each time."""
        if self._checks is None:
            self._checks = draw_checks(self._check, *self.checks, self.device)
        return self._checks

    def begin_from(self, folder: Path) -> None:
        """Start from the networks of a model folder of the method, the helpers fresh.

        Raises
        ------
        InputError
            Where the widths of the model are others.
        """
        fill_from_model(self.network, self.method, folder, self.device)
