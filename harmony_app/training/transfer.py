"""Train the transfer network on phantom draws and, where allowed, real scans.

``python -m harmony_app.training.transfer --heads DIR --out DIR --minutes 30 --seed 1``
"""

import argparse
import copy
import csv
import logging
import math
import signal as signals
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from harmony_app import __version__
from harmony_app.errors import InputError
from harmony_app.imaging.grid import SPACE, WORKING_SHAPE
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.model_folder import read_metadata
from harmony_app.methods.transfer import Transfer
from harmony_app.methods.transfer_features import CONDITION
from harmony_app.nets.bilateral import TransferConfig, TransferNetwork, sample_grid, slice_grid
from harmony_app.training.checkpoint import load_checkpoint, save_checkpoint
from harmony_app.training.heads import VALIDATION, load_heads
from harmony_app.training.subjects import draw_pool, plain_subject
from harmony_app.training.transfer_draws import Example, RealScan, TransferDraws

logger = logging.getLogger(__name__)

CHECKPOINT = 'checkpoint.safetensors'

AVERAGE = 0.998
"""Decay of the moving average of the weights."""


def example_loss(
    network: TransferNetwork, example: Example, device: str, smoothness: float = 0.02
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and brain error of one example.

    Parameters
    ----------
    smoothness : float
        Weight of the squared difference of neighbouring cells.

    Returns
    -------
    loss : Tensor, ()
        L1 to the truth over its range, the brain weighted threefold, and the smoothness.
    error : Tensor, ()
        Mean squared error in the brain over the squared range, detached.
    """
    grid = network(example.features[None].to(device), example.condition[None].to(device))[0]
    sampled = sample_grid(grid, example.points.to(device))
    source, base = example.source.to(device), example.base.to(device)
    result = slice_grid(sampled, source, base, network.config.last_bin)
    difference = (result - example.truth.to(device)) / example.scale
    inside = example.inside.to(device)
    weight = torch.where(inside, 3.0, 1.0)
    rough = sum(grid.diff(dim=axis).square().mean() for axis in (1, 2, 3))
    loss = (weight * difference.abs()).sum() / weight.sum() + smoothness * rough
    return loss, difference.detach()[inside].square().mean()


@torch.inference_mode()
def validate(
    network: TransferNetwork, examples: Sequence[Example], device: str
) -> tuple[float, float]:
    """Mean PSNR in dB inside the brain, before and after, of fixed examples."""
    before, after = [], []
    for example in examples:
        _, error = example_loss(network, example, device)
        unchanged = ((example.source - example.truth) / example.scale)[example.inside]
        before.append(-10 * math.log10(float(unchanged.square().mean()) + 1e-9))
        after.append(-10 * math.log10(float(error) + 1e-9))
    return float(np.mean(before)), float(np.mean(after))


def train(
    heads: Path,
    out: Path,
    minutes: float,
    seed: int = 1,
    *,
    real: Sequence[RealScan] = (),
    subjects_per_head: int = 10,
    batch: int = 2,
    rate: float = 1e-3,
    device: str = 'cpu',
    config: TransferConfig | None = None,
    steps: int | None = None,
    begin_from: Path | None = None,
) -> TransferNetwork:
    """Train for a time, going on from a checkpoint in ``out`` where there is one.

    Parameters
    ----------
    heads : Path
        Folder of :mod:`harmony_app.training.heads`.
    out : Path
        Checkpoint, ``log.csv``.
    minutes : float
        Of training in all, earlier runs counted in; the learning rate falls to zero by then.
    seed : int
        Of the pool, the initial weights and every draw; step n draws the same whether or not
        the training was interrupted.
    real : sequence of RealScan
        Real scans for self-supervised examples.
    steps : int, optional
        Ends, and lets the learning rate fall, by steps instead of minutes: exactly repeatable.
    begin_from : Path, optional
        Model folder whose weights a fresh training starts from.

    Returns
    -------
    TransferNetwork
        Moving average of the weights.
    """
    torch.manual_seed(seed)
    if begin_from is None:
        network = TransferNetwork(config or TransferConfig(condition=CONDITION)).to(device)
    else:
        network = Transfer.load(begin_from, device).network.train()
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    modules = {'network': network, 'average': average}
    state = {'step': 0, 'seconds': 0.0}
    # every draw comes of its step's own seed; the generator only fills the checkpoint's form
    generator = torch.Generator().manual_seed(seed)
    if (out / CHECKPOINT).exists():
        state = load_checkpoint(out / CHECKPOINT, modules, optimizer, generator)
    draws = TransferDraws(draw_pool(load_heads(heads), subjects_per_head, seed), real)
    judges = TransferDraws([plain_subject(head) for head in load_heads(heads, VALIDATION)])
    fixed = np.random.default_rng(20)
    examples = [judges.draw(fixed) for _ in range(24)]
    out.mkdir(parents=True, exist_ok=True)
    stopped = []
    previous = signals.signal(signals.SIGTERM, lambda *_: stopped.append(True))
    began, saved, losses = time.monotonic(), time.monotonic(), []

    def save(state):
        seconds = state['seconds'] + time.monotonic() - began
        progress = state | {'seconds': seconds, 'seed': seed}
        save_checkpoint(out / CHECKPOINT, modules, optimizer, generator, progress)

    try:
        while not stopped:
            seconds = state['seconds'] + time.monotonic() - began
            share = state['step'] / steps if steps else seconds / (60 * minutes)
            if share >= 1:
                break
            for group in optimizer.param_groups:
                warm = min(1.0, (state['step'] + 1) / 50)
                group['lr'] = rate * warm * 0.5 * (1 + math.cos(math.pi * share))
            rng = np.random.default_rng([seed, state['step']])
            optimizer.zero_grad(set_to_none=True)
            for _ in range(batch):
                loss, _ = example_loss(network, draws.draw(rng), device)
                (loss / batch).backward()
                losses.append(float(loss.detach()))
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            state['step'] += 1
            decay = min(AVERAGE, state['step'] / (state['step'] + 10))
            with torch.no_grad():
                for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                    kept.lerp_(new, 1 - decay)
            if state['step'] % 100 == 0:
                before, after = validate(average, examples, device)
                _log(out, state['step'], seconds, float(np.mean(losses)), before, after)
                losses = []
            if time.monotonic() - saved > 240:
                save(state)
                saved = time.monotonic()
    finally:
        signals.signal(signals.SIGTERM, previous)
        save(state)
    return average


def _log(out: Path, step: int, seconds: float, loss: float, before: float, after: float) -> None:
    path = out / 'log.csv'
    new = not path.exists()
    with path.open('a', newline='') as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(['step', 'seconds', 'loss', 'psnr_before_db', 'psnr_after_db'])
        writer.writerow([step, round(seconds), round(loss, 5), round(before, 2), round(after, 2)])
    logger.info('step %d %.0f s loss %.4f psnr %.2f -> %.2f dB', step, seconds, loss, before, after)


def pack(out: Path, folder: Path, trained: dict) -> None:
    """Write the moving average of a checkpoint as a model folder.

    Parameters
    ----------
    out : Path
        Folder of the checkpoint.
    folder : Path
        Model folder to write.
    trained : dict
        What it was trained on, for ``model.json``; steps, minutes and seed are added.
    """
    network = TransferNetwork(TransferConfig(condition=CONDITION))
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters())
    state = load_checkpoint(
        out / CHECKPOINT,
        {'network': network, 'average': average},
        optimizer,
        torch.Generator(),
    )
    rows = list(csv.DictReader((out / 'log.csv').open(newline='')))
    metadata = {
        'version': __version__,
        'licence': 'Apache-2.0',
        'contrasts': list(CONTRASTS),
        'grid': {'space': SPACE, 'shape': list(WORKING_SHAPE), 'zooms': [1.0, 1.0, 1.0]},
        'normalization': 'white-matter peak at 1',
        'training': trained
        | {
            'steps': state['step'],
            'minutes': round(state['seconds'] / 60, 1),
            'seed': state['seed'],
            'optimizer': 'AdamW, rate 1e-3, cosine to zero, moving average 0.998',
            'loss': 'L1 over the range of the truth, brain weighted 3; grid smoothness 0.02',
        },
        'metrics': {
            'validation': 'PSNR in dB inside the brain, random sites, heads 11 and 12',
            'before': float(rows[-1]['psnr_before_db']),
            'after': float(rows[-1]['psnr_after_db']),
        },
    }
    Transfer(average, metadata).save(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--heads', type=Path, required=True, help='folder of the heads')
    parser.add_argument('--out', type=Path, required=True, help='checkpoint and log')
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--real', type=Path, help='folder of preprocessed real scans')
    parser.add_argument('--subjects-per-head', type=int, default=10)
    parser.add_argument('--begin-from', type=Path, help='model folder to start from')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--pack', type=Path, help='model folder to write at the end')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    real = load_real(options.real) if options.real else []
    if real:
        credits_of(options.real)  # better before the training than after it
    train(
        options.heads,
        options.out,
        options.minutes,
        options.seed,
        real=real,
        subjects_per_head=options.subjects_per_head,
        device=options.device,
        begin_from=options.begin_from,
    )
    if options.pack:
        heads = [head.name for head in load_heads(options.heads)]
        trained = {
            'heads': heads,
            'source': 'ICBM 2009a maps (nilearn) and SynthSeg label maps (Apache-2.0)',
            'subjects': options.subjects_per_head * len(heads),
            'real_scans': len(real),
        }
        if options.begin_from:
            trained['begun_from'] = read_metadata(options.begin_from).get('training', {})
        if real:
            trained['real_scan_credits'] = credits_of(options.real)
        pack(options.out, options.pack, trained)
    logger.info('done: %s, with %d real scans', options.out, len(real))


def credits_of(folder: Path) -> list[str]:
    """Lines of ``CREDITS.txt`` beside the real scans: whose they are and under which licence.

    Raises
    ------
    InputError
        Where there is none: a model says whose scans it saw.
    """
    path = Path(folder) / 'CREDITS.txt'
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except OSError as error:
        raise InputError(f'{path}: say there whose scans these are and the licence') from error
    return [line.strip() for line in lines if line.strip()]


def load_real(folder: Path) -> list[RealScan]:
    """Read real preprocessed scans at 2 mm.

    Parameters
    ----------
    folder : Path
        ``.npz`` files with ``contrast`` (str), ``data`` (float, WM peak 1), ``brain`` (bool)
        and ``tissues`` (uint8), all on the 2 mm grid; and ``CREDITS.txt``.
    """
    scans = []
    for path in sorted(folder.glob('*.npz')):
        with np.load(path, allow_pickle=False) as file:
            scans.append(
                RealScan(
                    str(file['contrast']),
                    np.clip(file['data'], 0, 6).astype(np.float32),
                    file['brain'].astype(bool),
                    file['tissues'].astype(np.float32) / 255,
                )
            )
    return scans


if __name__ == '__main__':
    main()
