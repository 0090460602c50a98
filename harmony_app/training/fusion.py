"""Train a fusion network: three decoded orientations to the truth, on patches.

``python -m harmony_app.training.fusion --heads DIR --checkpoint FILE --out DIR``. The decoder
is fixed. Blocks of heads are scanned and decoded in three orientations once, and patches of
them are drawn from memory.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from harmony_app.engine.anatomy import (
    decode_volumes,
    encode_anatomy,
    represent,
    translate_volumes,
)
from harmony_app.engine.compute import Compute
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.model_folder import write_atomically
from harmony_app.nets.anatomy import AnatomyNets
from harmony_app.nets.contrast import ContrastNets
from harmony_app.nets.fusion import FusionNet
from harmony_app.training.haca3_weights import read_averaged
from harmony_app.training.heads import Head, load_heads
from harmony_app.training.script import run_script
from harmony_app.training.sessions import Session
from harmony_app.training.slices import draw_looks

WEIGHTS = 'fusion.safetensors'


@dataclass(frozen=True)
class Block:
    """A decoded part of a head.

    Parameters
    ----------
    decoded : ndarray, shape (3, X, Y, Z), float32
        Axial, coronal and sagittal result.
    truth : ndarray, shape (X, Y, Z), float32
        Noise-free scan at the target.
    mask : ndarray, shape (X, Y, Z), bool
        What the sources show.
    """

    decoded: np.ndarray
    truth: np.ndarray
    mask: np.ndarray


def draw_block(
    nets: ContrastNets,
    head: Head,
    rng: np.random.Generator,
    compute: Compute,
    edge: int = 96,
    contrast: str | None = None,
) -> Block:
    """Scan a cube of a head in two contrasts and decode it to a third or to one of them.

    Networks without attention are given the first of both alone, and those that keep the contrast
    (which have no one-hot anatomy) one at another site than that to reach.

    Parameters
    ----------
    nets : ContrastNets
        Trained.
    head : Head
        Fractions on the working grid.
    rng : numpy.random.Generator
        Draws place, protocols and noise.
    edge : int
        Of the cube; a multiple of 16.
    contrast : str, optional
        To decode to; any without.
    """
    points = np.argwhere(np.asarray(head.maps[0, ::8, ::8, ::8]) > 127) * 8
    centre = points[int(rng.integers(len(points)))]
    corner = [
        int(np.clip(c - edge // 2, 0, max(0, n - edge)))
        for c, n in zip(centre, head.fractions.shape[1:], strict=True)
    ]
    cube = tuple(slice(c, c + edge) for c in corner)
    fractions = torch.from_numpy(head.fractions[(slice(None), *cube)].astype(np.float32) / 255)
    mask = ndimage.binary_fill_holes(fractions.sum(0).numpy() > 0.3)

    order, place = [CONTRASTS[i] for i in rng.permutation(4)], int(rng.integers(3))
    if contrast is not None:
        here = order.index(contrast)
        order[here], order[place] = order[place], contrast
    if not isinstance(nets, AnatomyNets):
        order = [contrast or order[0]] * 3
    looks = draw_looks(order[:3], rng)
    wanted = looks[place if isinstance(nets, AnatomyNets) else 2]
    scans = []
    for look in looks[:2]:
        scan = look.render(fractions)
        scan = ndimage.gaussian_filter(scan, rng.uniform(0.3, 0.7))
        noise = rng.standard_normal((2, *scan.shape), np.float32) / np.float32(look.snr)
        scans.append((np.hypot(scan + noise[0], noise[1]) * mask).astype(np.float32))
    truth = wanted.render(fractions) * mask
    return _decoded(nets, scans, truth, mask, compute, blur=0.3)


def draw_session_block(
    nets: ContrastNets,
    session: Session,
    rng: np.random.Generator,
    compute: Compute,
    edge: int = 96,
    contrast: str | None = None,
) -> Block:
    """Decode a cube of a real session to the contrast of one of its scans, which is the truth.

    Networks without attention are given one scan alone; those that keep the contrast are given
    the very one.

    Parameters
    ----------
    nets : ContrastNets
        Trained.
    session : Session
        From the cache.
    rng : numpy.random.Generator
        Draws place and scans.
    edge : int
        Of the cube; a multiple of 16.
    contrast : str, optional
        To decode to, one of the session's; any without.

    Raises
    ------
    ValueError
        Where its scans show nothing together.
    """
    scans = [session.scans[i] for i in rng.permutation(len(session.scans))[:3]]
    points = np.argwhere(np.asarray(session.maps()[0][::8, ::8, ::8]) > 127) * 8
    if not len(points):
        raise ValueError(f'{session.name} has no brain')
    centre = points[int(rng.integers(len(points)))]
    cube = tuple(
        slice(start, start + edge)
        for start in (
            int(np.clip(c - edge // 2, 0, max(0, n - edge)))
            for c, n in zip(centre, session.maps().shape[1:], strict=True)
        )
    )
    mask = np.logical_and.reduce([np.asarray(scan.shown()[cube]) > 127 for scan in scans])
    if not mask.any():
        raise ValueError(f'the scans of {session.name} show nothing together')
    images = [np.asarray(scan.data()[cube], np.float32) * mask for scan in scans]
    truths = [
        i for i, s in zip(images, scans, strict=True) if contrast is None or s.contrast == contrast
    ]
    if not truths:
        raise ValueError(f'no scan of {contrast} among those drawn of {session.name}')
    truth = truths[int(rng.integers(len(truths)))]
    given = images[:2] if isinstance(nets, AnatomyNets) else [truth]
    return _decoded(nets, given, truth, mask, compute)


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
        Mean absolute error of the median and of the network on the blocks that judge.
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
    facts = {'steps': taken, 'l1_median': round(before, 5), 'l1_network': round(after, 5)}
    return (fusion.to('cpu') if after < before else None), facts


def _decoded(
    nets: ContrastNets,
    scans: Sequence[np.ndarray],
    truth: np.ndarray,
    mask: np.ndarray,
    compute: Compute,
    blur: float = 0.0,
) -> Block:
    """Decode scans of a block in three orientations to the style of the truth."""
    style = represent(nets, truth, mask, compute, slices=3)
    if blur:
        truth = ndimage.gaussian_filter(truth, blur) * mask
    if not isinstance(nets, AnatomyNets):
        theta = torch.tensor([style.theta], dtype=torch.float32, device=compute.device)
        decoded = translate_volumes(
            lambda images, shown: nets.translate(images, shown, theta.expand(len(images), -1)),
            scans[0],
            mask,
            compute,
        )
        return Block(decoded, truth.astype(np.float32), mask)
    attention = getattr(nets, 'attention', None)
    if attention is None:
        scans, weights = scans[:1], [1.0]
    else:
        found = [represent(nets, scan, mask, compute, slices=3) for scan in scans]
        with compute.running():
            weights = attention(
                torch.tensor([[*style.theta, *style.eta]], device=compute.device),
                torch.tensor([[[*f.theta, *f.eta] for f in found]], device=compute.device),
                torch.ones((1, len(scans)), dtype=torch.bool, device=compute.device),
            )[0].tolist()
    anatomies = [encode_anatomy(nets, scan, mask, compute) for scan in scans]
    decoded, _ = decode_volumes(nets, anatomies, [mask] * len(scans), weights, style.theta, compute)
    return Block(decoded, truth.astype(np.float32), mask)


def fusion_error(fusion: FusionNet | None, block: Block, compute: Compute) -> float:
    """Mean absolute error of a fused block inside its mask; of the median without a network.

    Above white matter it is relative, as in the training: fat and fluid would decide alone.
    """
    volumes = compute.tensor(block.decoded)[None]
    mask = compute.tensor(block.mask)[None, None]
    with compute.running():
        fused = volumes.median(1, keepdim=True).values if fusion is None else fusion(volumes, mask)
        truth = compute.tensor(block.truth)
        weight = mask / truth.clamp_min(1)
        error = ((fused - truth).abs() * weight).sum() / weight.sum()
    return float(error)


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
        # above white matter the error is relative, as in the training of the decoder
        weight = mask / truth.clamp_min(1)
        loss = ((fusion(volumes, mask) - truth).abs() * weight).sum() / weight.sum().clamp_min(1)
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
    facts = {'steps': str(steps), 'l1_median': f'{before:.5f}', 'l1_network': f'{after:.5f}'}
    write_atomically(options.out / WEIGHTS, save(tensors, metadata=facts))
    print(f'{steps} steps; L1 of the median {before:.4f}, of the network {after:.4f}', flush=True)  # noqa: T201


if __name__ == '__main__':
    run_script(main)
