"""The command line of the trainings on slices of the phantom."""

import argparse
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.training import distributed
from harmony_app.training.base import LoopSettings
from harmony_app.training.crops import check_size
from harmony_app.training.heads import Head, split_heads
from harmony_app.training.loop import CHECKPOINT, Loop
from harmony_app.training.options import add_loop_options, loop_settings
from harmony_app.training.slice_settings import SliceSettings
from harmony_app.training.slice_training import SliceTraining


def slice_parser(
    description: str,
    settings: SliceSettings,
    variants: Iterable[str],
    loop: LoopSettings,
    begins: str = 'model folder to start from',
) -> argparse.ArgumentParser:
    """Options that every such training has.

    Parameters
    ----------
    description : str
        Of the command.
    settings : SliceSettings
        Defaults of the method.
    variants : iterable of str
        Names of the widths.
    loop : LoopSettings
        Defaults of the loop.
    begins : str
        What is said of ``--begin-from``.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add('--heads', type=Path, required=True, help='folder of cached heads')
    add('--out', type=Path, required=True, help='folder of checkpoint and log')
    add('--size', type=int, default=settings.size, help='edge of the crops')
    add('--variant', choices=sorted(variants), default=settings.variant)
    add('--begin-from', type=Path, help=begins)
    add('--resume', action='store_true', help='continue from the checkpoint')
    add('--device', default='cpu')
    add_loop_options(parser, loop)
    return parser


def train_slices(
    options: argparse.Namespace,
    loop: LoopSettings,
    begin: Callable[[list[Head], list[Head], str, int], SliceTraining],
) -> None:
    """Train on cached heads to the end of the budget, or until told to stop.

    Parameters
    ----------
    options : Namespace
        Of :func:`slice_parser`.
    loop : LoopSettings
        Defaults of the loop.
    begin : callable
        Gives the training of heads to learn from, heads to be judged by, device and seed.

    Raises
    ------
    InputError
        Where a checkpoint is in the way, or none is there to resume from.
    """
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    check_size(options.size)
    checkpoint = options.out / CHECKPOINT
    if checkpoint.exists() and not options.resume:
        raise InputError(f'{checkpoint} exists: give --resume or another --out')
    if options.resume and not checkpoint.exists():
        raise InputError(f'{checkpoint}: no checkpoint to resume from')
    ranks = distributed.start(options.device)
    device = ranks.device(options.device)
    heads, held_out = split_heads(options.heads, options.seed)
    training = begin(heads, held_out, device, options.seed)
    if options.begin_from:
        training.begin_from(options.begin_from)
    running = Loop(training, loop_settings(options, loop), options.out, device, ranks)
    running.resume()
    running.run()
    distributed.finish()
