"""Random numbers of a training step that do not depend on who computes them."""

import torch


class Noise:
    """Random numbers of each example from its own seed, whoever computes it.

    Parameters
    ----------
    seeds : Tensor, shape (B,), int64
    device : str
    """

    def __init__(self, seeds: torch.Tensor, device: str):
        self.device = device
        self.generators = [torch.Generator(device).manual_seed(s) for s in seeds.tolist()]

    def uniform(self, *shape: int) -> torch.Tensor:
        """Of 0 to 1, shape (B, *shape)."""
        return self._draw(torch.rand, shape)

    def normal(self, *shape: int) -> torch.Tensor:
        """Of mean 0 and standard deviation 1, shape (B, *shape)."""
        return self._draw(torch.randn, shape)

    def _draw(self, draw, shape) -> torch.Tensor:
        return torch.stack([draw(shape, generator=g, device=self.device) for g in self.generators])
