"""Train the transfer network on phantom draws and, where allowed, real scans.

``python -m harmony_app.training.transfer --heads DIR --out DIR --minutes 30 --seed 1``
"""

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from harmony_app.errors import InputError
from harmony_app.methods.model_folder import common_metadata, read_metadata
from harmony_app.methods.transfer import Transfer
from harmony_app.methods.transfer_features import CONDITION
from harmony_app.nets.bilateral import TransferConfig, TransferNetwork, sample_grid, slice_grid
from harmony_app.training import distributed
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.checkpoint import load_averaged, read_facts
from harmony_app.training.heads import load_heads, split_heads
from harmony_app.training.loop import Loop, best_or_last
from harmony_app.training.options import add_loop_options, loop_settings
from harmony_app.training.script import run_script
from harmony_app.training.subjects import draw_pool, plain_subject
from harmony_app.training.transfer_draws import Example, RealScan, TransferDraws
from harmony_app.training.transfer_settings import LossSettings

logger = logging.getLogger(__name__)

LOSS = LossSettings()

LOOP = LoopSettings()
"""What the loop is told unless asked otherwise."""

CHECKS = 24
"""Examples of the validation."""


def transferred(
    network: TransferNetwork, example: Example, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted grid (2 * bins, X, Y, Z) of an example, and what it makes of its points (N,)."""
    config = network.config
    grid = network(example.features[None].to(device), example.condition[None].to(device))[0]
    sampled = sample_grid(grid, example.points.to(device), config.cell)
    source = example.source.to(device)
    base = example.base.to(device) if config.base else source
    return grid, slice_grid(sampled, source, base, config.last_bin, network.guide())


def example_loss(
    network: TransferNetwork, example: Example, device: str, settings: LossSettings = LOSS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and brain error of one example.

    Parameters
    ----------
    settings : LossSettings
        Weights.

    Returns
    -------
    loss : Tensor, ()
        L1 to the truth over its range, with the brain weighted more; the roughness of the grid;
        and on cubes of points, where asked for, L1 of local means and 1 - SSIM.
    error : Tensor, ()
        Mean squared error in the brain over the squared range, detached.
    """
    grid, result = transferred(network, example, device)
    truth = example.truth.to(device)
    difference = (result - truth) / example.scale
    inside = example.inside.to(device)
    weight = torch.where(inside, settings.brain, 1.0)
    rough = sum(grid.diff(dim=axis).square().mean() for axis in (1, 2, 3))
    loss = (weight * difference.abs()).sum() / weight.sum() + settings.smoothness * rough
    if settings.scales:
        loss = loss + settings.scales * coarse_l1(difference, weight, example.cube)
    if settings.structure:
        similar = cube_ssim(result / example.scale, truth / example.scale, example.cube)
        loss = loss + settings.structure * (1 - similar).mean()
    return loss, difference.detach()[inside].square().mean()


def coarse_l1(difference: torch.Tensor, weight: torch.Tensor, cube: int) -> torch.Tensor:
    """L1 of the means of a difference over 2 voxels and over each cube, averaged.

    Parameters
    ----------
    difference, weight : Tensor, shape (N,)
        Of cubes of points, cube by cube.
    cube : int
        Edge of the cubes, even.
    """
    errors, weights = (x.reshape(-1, 1, cube, cube, cube) for x in (difference, weight))
    total = 0.0
    for scale in (2, cube):
        mean, share = (functional.avg_pool3d(x, scale) for x in (errors, weights))
        total = total + (share * mean.abs()).sum() / share.sum()
    return total / 2


def cube_ssim(result: torch.Tensor, truth: torch.Tensor, cube: int) -> torch.Tensor:
    """SSIM of each cube of points, with all of the cube as the window and a range of 1.

    Parameters
    ----------
    result, truth : Tensor, shape (N,)
        Cube by cube.
    cube : int
        Edge of the cubes.

    Returns
    -------
    Tensor, shape (N / cube ** 3,)
    """
    a, b = (x.reshape(-1, cube**3) for x in (result, truth))
    mean_a, mean_b = a.mean(1), b.mean(1)
    variances = a.var(1, correction=0) + b.var(1, correction=0)
    covariance = (a * b).mean(1) - mean_a * mean_b
    light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    return light * (2 * covariance + 9e-4) / (variances + 9e-4)


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


class TransferTraining(Training):
    """The transfer network and its loss.

    Parameters
    ----------
    source : object
        ``draw(rng)`` gives an :class:`~harmony_app.training.transfer_draws.Example`.
    check : object, optional
        The same of held-out people; without it nothing is validated.
    device : str
        Of the network.
    seed : int
        Of the initial weights.
    config : TransferConfig, optional
        Widths.
    begin_from : Path, optional
        Model folder to start from.
    weights : LossSettings
        Of the loss.
    """

    terms = ('loss',)
    score = 'psnr_after_db'

    def __init__(
        self,
        source: object,
        check: object | None = None,
        device: str = 'cpu',
        seed: int = 1,
        config: TransferConfig | None = None,
        begin_from: Path | None = None,
        weights: LossSettings = LOSS,
    ):
        self.weights = weights
        self.source, self.device = source, device
        self._check, self._checks = check, None
        if begin_from is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = TransferNetwork(config or TransferConfig(condition=CONDITION))
            self.network = network.to(device)
        else:
            self.network = Transfer.load(begin_from, device).network
        self.helpers = {}

    collate = staticmethod(list)

    def describe(self) -> dict:
        """Widths, for JSON."""
        return asdict(self.network.config)

    def losses(self, batch: Sequence[Example], step: int, done: float) -> dict[str, torch.Tensor]:
        """Mean loss of the examples."""
        found = [
            example_loss(self.network, example, self.device, self.weights)[0] for example in batch
        ]
        return {'loss': torch.stack(found).mean()}

    def validate(self, network: TransferNetwork) -> dict[str, float]:
        """PSNR in dB inside the brain, before and after."""
        if self._check is None:
            return {}
        if self._checks is None:
            self._checks = [
                self._check.draw(np.random.default_rng([9000, i])) for i in range(CHECKS)
            ]
        before, after = validate(network, self._checks, self.device)
        return {'psnr_before_db': before, 'psnr_after_db': after}


def phantom_sources(
    heads: Path, subjects_per_head: int, seed: int, real: Sequence[RealScan] = ()
) -> tuple[TransferDraws, TransferDraws | None]:
    """Draws of subjects of the heads of a folder, and of held-out heads if it has any."""
    training, held_out = split_heads(heads, seed)
    check = TransferDraws([plain_subject(head) for head in held_out]) if held_out else None
    return TransferDraws(draw_pool(training, subjects_per_head, seed), real), check


def read_trained(out: Path) -> tuple[TransferNetwork, dict]:
    """Best network of a training, or the average of its checkpoint, and what is said of it."""
    path = best_or_last(out)
    facts = read_facts(path)
    try:
        network = TransferNetwork(TransferConfig(**facts['training']))
    except (KeyError, TypeError) as error:
        raise InputError(f'{path} is no checkpoint of the transfer network') from error
    load_averaged(path, network)
    return network, facts


def pack(out: Path, folder: Path, trained: dict) -> None:
    """Write the best network of a training as a model folder.

    Parameters
    ----------
    out : Path
        Folder of the checkpoint.
    folder : Path
        Model folder to write.
    trained : dict
        What it was trained on, for ``model.json``; steps, minutes and seed are added.
    """
    network, facts = read_trained(out)
    metrics = facts['progress']['metrics']
    metadata = common_metadata('Apache-2.0') | {
        'training': trained
        | {
            'steps': facts['progress']['step'],
            'minutes': round(facts['progress']['seconds'] / 60, 1),
            'seed': facts['loop']['seed'],
            'settings': facts['loop'],
            'loss': {'kind': 'L1 over the range of the truth'} | asdict(LOSS),
        },
        'metrics': {
            'validation': 'PSNR in dB inside the brain, random sites, held-out heads',
            'before': metrics.get('psnr_before_db'),
            'after': metrics.get('psnr_after_db'),
        },
    }
    Transfer(network, metadata).save(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--heads', type=Path, required=True, help='folder of the heads')
    parser.add_argument('--out', type=Path, required=True, help='checkpoint and log')
    parser.add_argument('--real', type=Path, help='folder of preprocessed real scans')
    parser.add_argument('--subjects-per-head', type=int, default=10)
    parser.add_argument('--begin-from', type=Path, help='model folder to start from')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--pack', type=Path, help='model folder to write at the end')
    add_loop_options(parser, LOOP)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    real = load_real(options.real) if options.real else []
    if real:
        credits_of(options.real)  # better before the training than after it
    ranks = distributed.start(options.device)
    device = ranks.device(options.device)
    source, check = phantom_sources(options.heads, options.subjects_per_head, options.seed, real)
    training = TransferTraining(source, check, device, options.seed, begin_from=options.begin_from)
    loop = Loop(training, loop_settings(options, LOOP), options.out, device, ranks)
    loop.resume()
    loop.run()
    distributed.finish()
    if options.pack and ranks.first:
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

    Raises
    ------
    InputError
        Where there is none.
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
    if not scans:
        raise InputError(f'{folder} holds no preprocessed scan (.npz)')
    return scans


if __name__ == '__main__':
    run_script(main)
