"""Energies of latent codes, and the Langevin chains that lower them (Wu 2024, section 3.2.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from harmony_app.nets.masked import masked_statistics


@dataclass(frozen=True)
class ChainConfig:
    """Short-run Langevin dynamics (equation 7).

    Parameters
    ----------
    steps : int
        T, steps of a chain.
    step : float
        alpha: half of it times the gradient of the energy is a step, and its square root is the
        standard deviation of the noise of a step.
    temperature : float
        What the output of the energy network is divided by. With ``step`` it fixes how far a unit
        of gradient goes: ``step / (2 temperature)``.
    noise_at_use : bool
        Whether a chain has noise where a model is used; in training it always has.
    seed : int
        Of that noise: the same voxels each time.

    Notes
    -----
    The paper names none of them. Six steps with noise of 0.02, where codes have a spread of about
    1, leave the anatomy as it is and still move a style from one end of the phantom to the other.
    """

    steps: int = 6
    step: float = 4e-4
    temperature: float = 2e-4
    noise_at_use: bool = False
    seed: int = 0


class EnergyNet(nn.Module):
    """Energy of the codes of one site: low where a code could be of it (equation 6).

    It sees a cell with its neighbours, and the mean and spread of such features over the whole
    slice. The first says which tissue a cell is, the second what the style of the slice is: a dark
    grey matter and a mixture of fluid and white matter are the same number until the rest of the
    slice tells them apart. Neither says what a head looks like elsewhere, so its gradient changes
    the level of what is there, and moves nothing. The energy of a slice is the sum over its cells,
    so that the gradient at a cell does not depend on the size of the slice.

    Parameters
    ----------
    channels : int
        Of the code.
    width : int
        Of the hidden layers (2048 in the paper, for a vector).
    kernel : int
        Edge in cells of what the first layer sees.
    pooled : bool
        Whether it sees the statistics of the slice.
    told : bool
        Whether it sees beside them ``site``, the same statistics of slices of the site. Then one
        set of weights can serve all sites, and what a new one needs is to be looked at.
    """

    def __init__(
        self, channels: int, width: int, kernel: int = 3, pooled: bool = True, told: bool = False
    ):
        super().__init__()
        self.first = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
        self.second = nn.Conv2d(width, width, 1)
        self.head = nn.Conv2d(width, 1, 1)
        self.style, self.site = None, None
        if pooled and told:
            self.site = nn.Parameter(torch.zeros(2 * width))
            self.style = nn.Sequential(
                nn.Linear(4 * width, 2 * width),
                nn.SiLU(),
                nn.Linear(2 * width, 2 * width),
                nn.SiLU(),
                nn.Linear(2 * width, 2 * width),
            )
        elif pooled:
            self.style = nn.Sequential(
                nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 2 * width)
            )
        if pooled:
            nn.init.zeros_(self.style[-1].bias)
            self.style[-1].weight.data.mul_(0.3 if told else 0.1)

    def statistics(self, code: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Mean and spread of the features of whole slices, shape (B, 2 width)."""
        return masked_statistics(self._features(code, cells), cells)

    def forward(
        self, code: torch.Tensor, cells: torch.Tensor, site: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Energy (B,) of codes (B, channels, h, w), zero outside their masks (B, 1, h, w).

        Parameters
        ----------
        code, cells : Tensor
        site : Tensor, shape (B, 2 width), optional
            Another site for each slice than that of the network, where it is told of one.
        """
        features = self._features(code, cells)
        hidden = self.second(features)
        if self.style is not None:
            seen = masked_statistics(features, cells)
            if self.site is not None:
                site = self.site.expand(len(code), -1) if site is None else site
                seen = torch.cat([seen, site], dim=1)
            scale, shift = self.style(seen).chunk(2, dim=1)
            hidden = hidden * (1 + scale[..., None, None]) + shift[..., None, None]
        return (self.head(functional.silu(hidden)) * cells).sum((1, 2, 3))

    def _features(self, code: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        return functional.silu(self.first(code)) * cells


def langevin(
    energy: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    code: torch.Tensor,
    cells: torch.Tensor,
    chain: ChainConfig,
    generator: torch.Generator | None = None,
    *,
    uphill: bool = False,
    create_graph: bool = False,
) -> torch.Tensor:
    """Run a chain from codes towards lower energy (equation 7).

    Parameters
    ----------
    energy : callable
        ``energy(code, cells)`` gives (B,).
    code : Tensor, shape (B, channels, h, w)
        Where the chain begins: codes of source slices.
    cells : Tensor, shape (B, 1, h, w)
        Their mask; nothing moves outside it.
    chain : ChainConfig
    generator : torch.Generator, optional
        Of the noise, fresh at every step; without it the chain only descends.
    uphill : bool
        Against the energy, which undoes a chain (equation 9).
    create_graph : bool
        Keep what a loss of the result needs to reach the energy's weights and ``code``.

    Returns
    -------
    Tensor, shape of ``code``
    """
    rate = chain.step / (2 * chain.temperature) * (-1 if uphill else 1)
    if create_graph:
        return _run(energy, code, cells, rate, chain, generator, True)
    # a gradient is needed even where the networks are used; its tensors are none of inference
    with torch.inference_mode(False), torch.enable_grad():
        return _run(energy, code.clone(), cells.clone(), rate, chain, generator, False)


def _run(energy, code, cells, rate, chain, generator, create_graph) -> torch.Tensor:
    for _ in range(chain.steps):
        if not code.requires_grad:
            code = code.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(energy(code, cells).sum(), code, create_graph=create_graph)
        code = code - rate * slope * cells
        if generator is not None:
            noise = torch.randn(code.shape, generator=generator, device=code.device)
            code = code + chain.step**0.5 * noise * cells
        if not create_graph:
            code = code.detach()
    return code
