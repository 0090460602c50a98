"""Options of the command lines that train."""

import argparse
from dataclasses import replace

from harmony_app.training.base import PRECISIONS, LoopSettings


def add_loop_options(parser: argparse.ArgumentParser, settings: LoopSettings) -> None:
    """Add the options of the loop; ``settings`` are the defaults."""
    add = parser.add_argument
    add('--minutes', type=float, default=settings.minutes, help='budget of time')
    add('--steps', type=int, default=settings.steps, help='budget of steps instead of time')
    add('--batch', type=int, default=settings.batch, help='examples of a step')
    add('--seed', type=int, default=settings.seed, help='of weights and examples')
    add('--rate', type=float, default=settings.rate, help='learning rate at its highest')
    add('--patience', type=int, default=0, help='validations without a better one; 0 for no end')
    add('--precision', choices=PRECISIONS, default='auto', help='auto: bfloat16 on CUDA')
    add('--workers', type=int, default=0, help='processes that draw examples ahead')


def loop_settings(options: argparse.Namespace, settings: LoopSettings) -> LoopSettings:
    """Settings with what :func:`add_loop_options` was given."""
    names = ('minutes', 'steps', 'batch', 'seed', 'rate', 'patience', 'precision', 'workers')
    return replace(settings, **{name: getattr(options, name) for name in names})
