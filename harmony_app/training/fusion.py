"""Train a fusion network: three decoded orientations to the truth, on patches.

``python -m harmony_app.training.fusion --heads DIR --checkpoint FILE --out DIR``. The decoder
is fixed. Blocks of heads are scanned and decoded in three orientations once, and patches of
them are drawn from memory.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from harmony_app.engine.compute import Compute
from harmony_app.methods.model_folder import write_atomically
from harmony_app.nets.contrast import ContrastNets
from harmony_app.nets.fusion import FusionNet
from harmony_app.training.fusion_blocks import Block, draw_block, draw_session_block
from harmony_app.training.haca3_weights import read_averaged
from harmony_app.training.heads import Head, load_heads
from harmony_app.training.sessions import Session

WEIGHTS = 'fusion.safetensors'

WINDOW = 7
"""Edge of the windows in voxels."""

FLAT = 1e-3
"""Variance (white matter is 1) that a window's structure has to rise above."""


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
    edge: int = 96,
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
        Cubes that are decoded; a third of them judges.
    contrast : str, optional
        To decode to; any without.

    Returns
    -------
    fusion : FusionNet or None
        None where it is no better than the median.
    facts : dict
        How unlike the truth the median and the network are on the blocks that judge
        (:func:`unlikeness`).
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
    held_out, drawn = drawn[: max(1, len(drawn) // 3)], drawn[max(1, len(drawn) // 3) :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fusion = FusionNet(nets.config.fusion_width).to(device)
    taken = train_fusion(fusion, drawn, rng, minutes, compute=compute, steps=steps)
    before, after = (
        float(np.mean([fusion_error(net, block, compute) for block in held_out]))
        for net in (None, fusion)
    )
    nets.to('cpu')
    facts = {
        'steps': taken,
        'unlike_median': round(before, 5),
        'unlike_network': round(after, 5),
    }
    return (fusion.to('cpu') if after < before else None), facts


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the fusion training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--checkpoint', type=Path, required=True, help='of the HACA3 training')
    parser.add_argument('--out', type=Path, required=True, help='folder of the weights')
    parser.add_argument('--minutes', type=float, default=10.0, help='budget of the training')
    parser.add_argument('--blocks', type=int, default=12, help='cubes that are decoded for it')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    options = parser.parse_args(arguments)
    from safetensors.torch import save

    compute = Compute(options.device)
    nets, _ = read_averaged(options.checkpoint)
    nets = nets.to(options.device).eval()
    rng = np.random.default_rng(options.seed)
    heads = load_heads(options.heads)
    blocks = [
        draw_block(nets, heads[int(rng.integers(len(heads)))], rng, compute)
        for _ in range(options.blocks)
    ]
    held_out, blocks = blocks[: options.blocks // 6 + 1], blocks[options.blocks // 6 + 1 :]
    torch.manual_seed(options.seed)
    fusion = FusionNet(nets.config.fusion_width).to(options.device)
    before = float(np.mean([fusion_error(None, block, compute) for block in held_out]))
    steps = train_fusion(fusion, blocks, rng, options.minutes, compute=compute)
    after = float(np.mean([fusion_error(fusion, block, compute) for block in held_out]))
    options.out.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.cpu().contiguous() for key, tensor in fusion.state_dict().items()}
    facts = {
        'steps': str(steps),
        'unlike_median': f'{before:.5f}',
        'unlike_network': f'{after:.5f}',
    }
    write_atomically(options.out / WEIGHTS, save(tensors, metadata=facts))
    print(f'{steps} steps; unlike: median {before:.4f}, network {after:.4f}', flush=True)  # noqa: T201


if __name__ == '__main__':
    main()
