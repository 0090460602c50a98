"""Train for minutes on a machine that is lent and keeps nothing.

``python -m harmony_app.training.lease --method haca3 --from MODEL --heads HEADS --out OUT --minutes M``

Heads come carried (:mod:`harmony_app.training.carried`) or built. Slices of HACA3 are rendered on
the device, examples of the transfer network are drawn by ``--workers`` processes. With every
checkpoint the folder of the training is written to OUT in pieces
(:mod:`harmony_app.training.pieces`), and at the end the model folder ``OUT/model``. A training that
is to outlast one command: ``--stop-after`` ends the command, ``--resume`` goes on exactly.
"""

import argparse
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from harmony_app.errors import InputError, OptionError
from harmony_app.methods.haca3 import Haca3
from harmony_app.methods.model_folder import METADATA, common_metadata, read_metadata
from harmony_app.nets.haca3 import VARIANTS
from harmony_app.training import haca3_weights, transfer
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.carried import METHODS, unpack_heads
from harmony_app.training.crops import check_size
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.heads import load_heads, split_heads
from harmony_app.training.loop import CHECKPOINT, Loop, best_or_last
from harmony_app.training.options import add_loop_options, loop_settings
from harmony_app.training.pieces import join_folder, split_folder
from harmony_app.training.rendered import RenderedTraining
from harmony_app.training.script import run_script
from harmony_app.training.slice_settings import LOOP as SLICE_LOOP
from harmony_app.training.slices import SliceSampler
from harmony_app.training.subjects import Subject, draw_subject, plain_subject
from harmony_app.training.transfer_draws import TransferDraws

logger = logging.getLogger('harmony_app')

LOOPS = {
    'haca3': replace(SLICE_LOOP, batch=64, validation_steps=500, checkpoint_minutes=2.0),
    'transfer': replace(transfer.LOOP, batch=8, checkpoint_minutes=2.0),
}
"""What the loop is told unless asked otherwise."""


class LentLoop(Loop):
    """A loop whose checkpoints are also written in pieces to a folder that comes back.

    Parameters
    ----------
    training, settings, out, device
        As of :class:`~harmony_app.training.loop.Loop`.
    back : Path
        That folder.
    """

    def __init__(
        self, training: Training, settings: LoopSettings, out: Path, device: str, back: Path
    ):
        super().__init__(training, settings, out, device)
        self.back = back

    def save(self) -> None:
        """Write a checkpoint, and the folder in pieces."""
        super().save()
        split_folder(self.out, self.back)


def begin_haca3(
    start: Path | None, heads: Path, size: int, eta_first: float | None, device: str, seed: int
) -> RenderedTraining:
    """Training of HACA3 from a model folder, a checkpoint or chance.

    Parameters
    ----------
    start : Path or None
        Model folder, folder of a training, or a file of weights in it.
    heads : Path
        Folder of the heads.
    size : int
        Edge of the crops.
    eta_first : float or None
        Share of the budget in which eta learns alone; None for none, or the usual share where
        training begins from chance.
    device : str
    seed : int
    """
    check_size(size)
    settings, nets = Settings(size=size), None
    if start is not None:
        if (start / METADATA).exists():
            nets = Haca3.load(start).nets
        else:
            nets, _ = haca3_weights.read_averaged(best_or_last(start))
        variants = [name for name, config in VARIANTS.items() if config == nets.config]
        if not variants:
            raise InputError(f'{start} has the widths of no variant: {", ".join(VARIANTS)}')
        settings = replace(settings, variant=variants[0], warm=0.0, eta_first=0.0)
    if eta_first is not None:
        settings = replace(settings, eta_first=eta_first)
    training_heads, held_out = split_heads(heads, seed)
    check = SliceSampler(held_out, size, artifacts=False) if held_out else None
    training = RenderedTraining(settings, training_heads, check, device, seed)
    if nets is not None:
        training.network.load_state_dict(nets.state_dict())
    return training


def begin_transfer(
    start: Path | None,
    heads: Path,
    real: Path | None,
    subjects: int,
    workers: int,
    device: str,
    seed: int,
) -> transfer.TransferTraining:
    """Training of the transfer network from a model folder, a checkpoint or chance.

    Parameters
    ----------
    start, heads, device, seed
        As of :func:`begin_haca3`.
    real : Path or None
        Folder of real scans.
    subjects : int
        Drawn of each head.
    workers : int
        Processes that draw them.
    """
    scans = transfer.load_real(real) if real else []
    training_heads, held_out = split_heads(heads, seed)
    names = [head.name for head in training_heads]
    source = TransferDraws(draw_subjects(heads, names, subjects, seed, workers), scans)
    check = TransferDraws([plain_subject(head) for head in held_out]) if held_out else None
    if start is None or (start / METADATA).exists():
        return transfer.TransferTraining(source, check, device, seed, begin_from=start)
    network, _ = transfer.read_trained(start)
    training = transfer.TransferTraining(source, check, device, seed, network.config)
    training.network.load_state_dict(network.state_dict())
    return training


def draw_subjects(
    heads: Path, names: Sequence[str], each: int, seed: int, workers: int
) -> list[Subject]:
    """Subjects of heads, drawn by several processes; they depend on the seed alone."""
    jobs = [(heads, name, [seed, i, j]) for i in range(each) for j, name in enumerate(names)]
    if workers < 2:
        return [_subject(job) for job in jobs]
    with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn')) as pool:
        return list(pool.map(_subject, jobs))


def _subject(job: tuple[Path, str, list[int]]) -> Subject:
    heads, name, seed = job
    torch.set_num_threads(1)
    return draw_subject(load_heads(heads, [name])[0], np.random.default_rng(seed))


@contextmanager
def ended_at(moment: float):
    """Tell this process to stop (SIGTERM) at a moment of ``time.monotonic()``."""
    left = max(1.0, moment - time.monotonic())
    timer = threading.Timer(left, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def pack(method: str, run: Path, folder: Path, heads: Path, options: argparse.Namespace) -> None:
    """Write the best weights of a run as a model folder."""
    trained = {
        'heads': [head.name for head in load_heads(heads)],
        'source': 'ICBM 2009a maps (nilearn) and SynthSeg label maps (Apache-2.0)',
        'device': _device_name(options.device),
    }
    if options.begin_from and (options.begin_from / METADATA).exists():
        trained['begun_from'] = read_metadata(options.begin_from).get('training', {})
    if method == 'transfer':
        if options.real:
            trained['real_scan_credits'] = transfer.credits_of(options.real)
        transfer.pack(run, folder, trained)
        return
    best = best_or_last(run)
    metrics = haca3_weights.read_averaged(best)[1]['progress']['metrics']
    card = common_metadata('Apache-2.0') | {
        'training': trained,
        'metrics': {'validation': 'slices of held-out heads at random protocols'} | metrics,
    }
    haca3_weights.pack(best, folder, card)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith('cuda') else device


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    began = time.monotonic()
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    if options.device.startswith('cuda'):
        if not torch.cuda.is_available():
            raise OptionError('--device cuda: no CUDA device is found')
        torch.backends.cudnn.benchmark = True
    if options.real:
        transfer.credits_of(options.real)
    heads, work = options.heads, options.work / options.method
    if not list(heads.glob('*_maps.npy')):
        heads = work / 'heads'
        logger.info('%d heads unpacked', len(unpack_heads(options.heads, heads, options.method)))
    start, seed = options.begin_from, options.seed
    if options.method == 'haca3':
        training = begin_haca3(start, heads, options.size, options.eta_first, options.device, seed)
    else:
        training = begin_transfer(
            start,
            heads,
            options.real,
            options.subjects_per_head,
            options.workers,
            options.device,
            seed,
        )
    run = work / 'run'
    if options.resume and not (run / CHECKPOINT).exists():
        join_folder(options.resume, run)
    settings = replace(
        loop_settings(options, LOOPS[options.method]), validation_steps=options.validation_steps
    )
    loop = LentLoop(training, settings, run, options.device, options.out)
    resumed = loop.resume()
    logger.info(
        '%s after %.0f s, from step %d',
        'goes on' if resumed else 'begins', time.monotonic() - began, loop.progress.step,
    )  # fmt: skip
    with ended_at(began + 60 * options.stop_after):
        progress = loop.run()
    pack(options.method, run, options.out / 'model', heads, options)
    logger.info(
        '%s at step %d after %.0f s',
        'to be resumed' if progress.stopped else 'done', progress.step, time.monotonic() - began,
    )  # fmt: skip


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument('--method', choices=METHODS, default=METHODS[0])
    method = early.parse_known_args(arguments)[0].method
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--method', choices=METHODS, required=True)
    add('--from', dest='begin_from', type=Path, help='model folder, training or its weights')
    add('--heads', type=Path, required=True, help='folder of carried or built heads')
    add('--real', type=Path, help='folder of real scans; transfer only')
    add('--out', type=Path, required=True, help='folder that comes back')
    add(
        '--work',
        type=Path,
        default=Path(tempfile.gettempdir(), 'lease'),
        help='heads and training; one that is there goes on',
    )
    add('--resume', type=Path, help='pieces of a training to go on with')
    add('--stop-after', type=float, default=9.0, help='minutes of this command, start included')
    add('--size', type=int, default=Settings.size, help='edge of the crops; haca3 only')
    add('--eta-first', type=float, help='share of the budget in which eta learns alone')
    add('--subjects-per-head', type=int, default=12, help='transfer only')
    add('--validation-steps', type=int, default=LOOPS[method].validation_steps)
    add('--device', default='cuda')
    add_loop_options(parser, LOOPS[method])
    parser.set_defaults(workers=max(0, (os.cpu_count() or 1) - 1))
    return parser.parse_args(arguments)


if __name__ == '__main__':
    run_script(main)
