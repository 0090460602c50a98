"""HACA3 trained on slices that are rendered where the networks are."""

import time
from collections.abc import Sequence

import torch

from harmony_app.training.haca3 import Haca3Training
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.heads import Head
from harmony_app.training.slice_plans import PlanSampler, join_plans
from harmony_app.training.slice_renderer import SliceRenderer


class RenderedTraining(Haca3Training):
    """:class:`~harmony_app.training.haca3.Haca3Training` that is given plans.

    Parameters
    ----------
    settings : Settings
    heads : sequence of Head
        To train on.
    check : object, optional
        ``draw(rng)`` gives a batch of one example of held-out heads.
    device : str
        Of networks and slices.
    seed : int
        Of the initial weights.
    """

    def __init__(
        self,
        settings: Settings,
        heads: Sequence[Head],
        check: object | None = None,
        device: str = 'cuda',
        seed: int = 1,
    ):
        super().__init__(settings, PlanSampler(heads, settings.size), check, device, seed)
        self.renderer = SliceRenderer(heads, settings.size, device)
        self._drawing = 0.0

    collate = staticmethod(join_plans)

    def losses(self, batch: dict, step: int, done: float) -> dict[str, torch.Tensor]:
        """Every loss on the slices of a step's plans."""
        self._wait()
        start = time.monotonic()
        # half precision is for the networks
        with torch.autocast(self.device.partition(':')[0], enabled=False):
            slices = self.renderer.render(batch)
        self._wait()
        self._drawing += time.monotonic() - start
        return super().losses(slices, step, done)

    def drawing_seconds(self) -> float:
        """Seconds of rendering since the last call."""
        seconds, self._drawing = self._drawing, 0.0
        return seconds

    def _wait(self) -> None:
        """A GPU works on while its program goes on: wait, so that time is counted where it goes."""
        if self.device.startswith('cuda'):
            torch.cuda.synchronize(self.device)
