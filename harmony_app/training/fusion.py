"""Train a fusion network: three decoded orientations to the truth, on patches.

The decoder is fixed. Blocks of heads are scanned and decoded in three orientations once, and
patches of them are drawn from memory.

What counts is structure: the correlation with the truth in small windows. Where the decoder meets
the level of a tissue badly no choice among the orientations mends it, and a loss that sees levels
has the network choose by the levels of the few blocks that it is shown.
"""

import copy
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from harmony_app.engine.compute import Compute
from harmony_app.nets.contrast import ContrastNets
from harmony_app.nets.fusion import FusionNet
from harmony_app.training.fusion_blocks import EDGE, Block, draw_block, draw_session_block
from harmony_app.training.heads import Head
from harmony_app.training.sessions import Session

WINDOW = 7
"""Edge of the windows in voxels."""

FLAT = 1e-3
"""Variance (white matter is 1) that a window's structure has to rise above."""

GAIN = 0.05
"""Least gain on the blocks that judge, as a part, for which learned weights are kept.

These are few: weights of HACA3 that gained 2 % on four of them lost 1 to 9 % on whole scans.
"""


def fuse_trained(
    nets: ContrastNets,
    heads: Sequence[Head],
    sessions: Sequence[Session],
    *,
    seed: int,
    minutes: float,
    steps: int = 0,
    blocks: int = 9,
    device: str = 'cpu',
    edge: int = EDGE,
    contrast: str | None = None,
) -> tuple[FusionNet | None, dict]:
    """Train a fusion network for trained networks, and judge it on blocks of its own.

    Parameters
    ----------
    nets : ContrastNets
        Trained.
    heads, sessions : sequence of Head and of Session
        Blocks are drawn from both in turn; one may be empty.
    seed : int
        Of weights and blocks.
    minutes, steps : float and int
        Budget; steps count where they are not 0.
    blocks : int
        Cubes that are decoded; a third of them judges. This takes some half minute of a core each,
        beyond the budget.
    contrast : str, optional
        To decode to; any without.

    Returns
    -------
    fusion : FusionNet or None
        As trained, or as it began (all alike) where that is better; None where neither is better
        than the median.
    facts : dict
        How unlike the truth (:func:`unlikeness`) the median, a network that weighs all alike, and
        the trained one are on the blocks that judge.
    """
    compute, rng = Compute(device), np.random.default_rng(seed)
    nets = nets.to(device).eval()
    drawn: list[Block] = []
    for attempt in range(3 * blocks):
        if len(drawn) == blocks:
            break
        try:
            if heads and (attempt % 2 == 0 or not sessions):
                head = heads[int(rng.integers(len(heads)))]
                drawn.append(draw_block(nets, head, rng, compute, edge, contrast))
            else:
                session = sessions[int(rng.integers(len(sessions)))]
                drawn.append(draw_session_block(nets, session, rng, compute, edge, contrast))
        except ValueError:
            continue
    if len(drawn) < 2:
        return None, {}
    judging = max(1, len(drawn) // 3)
    held_out, shown = drawn[:judging], drawn[judging:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fusion = FusionNet(nets.config.fusion_width).to(device)

    def judged(network):
        return float(np.mean([fusion_error(network, block, compute) for block in held_out]))

    median, alike = judged(None), judged(fusion)
    start = copy.deepcopy(fusion)
    taken = train_fusion(fusion, shown, rng, minutes, compute=compute, steps=steps)
    learned = judged(fusion)
    nets.to('cpu')
    facts = {
        'blocks': len(drawn),
        'steps': taken,
        'unlike_median': round(median, 5),
        'unlike_alike': round(alike, 5),
        'unlike_learned': round(learned, 5),
    }
    # what it learned of few blocks is kept only where it holds on others
    best, error = (fusion, learned) if learned < (1 - GAIN) * alike else (start, alike)
    return (best.to('cpu').eval() if error < median else None), facts


def fusion_error(fusion: FusionNet | None, block: Block, compute: Compute) -> float:
    """How unlike the truth a fused block is, 0 to 2; of the median without a network."""
    volumes = compute.tensor(block.decoded)[None]
    mask = compute.tensor(block.mask)[None, None]
    with compute.running():
        fused = volumes.median(1, keepdim=True).values if fusion is None else fusion(volumes, mask)
        truth = compute.tensor(block.truth)[None, None]
        return float(unlikeness(fused.float(), truth.float(), mask.float()))


def unlikeness(result: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One less the correlation of two images in windows, averaged; blind to their levels.

    Parameters
    ----------
    result, truth, mask : Tensor, shape (B, 1, X, Y, Z)
        Only what is in the mask counts, and windows by as much of it as they hold; every axis of
        :data:`WINDOW` voxels at least.

    Returns
    -------
    Tensor, ()
    """

    def mean(data):
        return functional.avg_pool3d(data * mask, WINDOW, stride=2) / share.clamp_min(1e-3)

    share = functional.avg_pool3d(mask, WINDOW, stride=2)
    mean_a, mean_b = mean(result), mean(truth)
    spread_a = (mean(result**2) - mean_a**2).clamp_min(0)
    spread_b = (mean(truth**2) - mean_b**2).clamp_min(0)
    together = mean(result * truth) - mean_a * mean_b
    alike = (together + FLAT) / ((spread_a + FLAT) * (spread_b + FLAT)).sqrt()
    return (share * (1 - alike)).sum() / share.sum().clamp_min(1e-3)


def train_fusion(
    fusion: FusionNet,
    blocks: Sequence[Block],
    rng: np.random.Generator,
    minutes: float,
    *,
    compute: Compute | None = None,
    steps: int = 0,
    patch: int = 32,
    batch: int = 4,
    rate: float = 2e-3,
) -> int:
    """Train on patches of decoded blocks.

    Parameters
    ----------
    fusion : FusionNet
        Trained in place; evaluation mode at the end.
    blocks : sequence of Block
    rng : numpy.random.Generator
        Draws the patches.
    minutes, steps : float and int
        Budget; steps count where they are not 0.

    Returns
    -------
    int
        Steps taken.
    """
    compute = compute or Compute()
    fusion.to(compute.device).train()
    optimizer = torch.optim.AdamW(fusion.parameters(), lr=rate, weight_decay=1e-4)
    start, step = time.monotonic(), 0
    while True:
        done = step / steps if steps else (time.monotonic() - start) / (60 * minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group['lr'] = rate * (1 - done) + 1e-5
        volumes, truth, mask = _patches(blocks, rng, patch, batch)
        volumes, truth, mask = (compute.tensor(a) for a in (volumes, truth, mask))
        loss = unlikeness(fusion(volumes, mask), truth, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(fusion.parameters(), 1.0)
        optimizer.step()
        step += 1
    fusion.eval()
    return step


def _patches(blocks, rng, patch, batch):
    """Patches (B, 3, P, P, P), (B, 1, P, P, P) twice, of random blocks around foreground."""
    parts = []
    while len(parts) < batch:
        block = blocks[int(rng.integers(len(blocks)))]
        corner = [int(rng.integers(0, max(1, n - patch + 1))) for n in block.mask.shape]
        cube = tuple(slice(c, c + patch) for c in corner)
        if block.mask[cube].any():
            parts.append(
                (
                    block.decoded[(slice(None), *cube)],
                    block.truth[cube][None],
                    block.mask[cube][None],
                )
            )
    return (np.stack(part).astype(np.float32) for part in zip(*parts, strict=True))
