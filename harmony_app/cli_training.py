"""Options of the group level."""

import argparse
from pathlib import Path

from harmony_app.cli_types import above_zero, flags, positive
from harmony_app.config import TASKS


def add_group_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of what the group level does."""
    group = parser.add_argument_group('Options for the group level')
    group.add_argument(
        '--task',
        choices=TASKS,
        default=TASKS[0],
        metavar='TASK',
        help='report: gather the tables of all participants; evaluate: measure what harmonization '
        'did to the study, in tables and a page (group.html); train: train a model of --method on '
        'the preprocessed scans or the phantom; adapt: fit a model to --site; styles: keep the '
        'average style of sites in a model; synthesize: make new slices in the style of --site, of '
        'noise (dlest). Labels, --modalities and --bids-filter-file choose '
        'among the results; options of harmonization have no effect on report and evaluate',
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the tasks that make models."""
    group = parser.add_argument_group(
        'Options for training (group --task train, adapt, styles, synthesize)'
    )
    group.add_argument(
        '--phantom',
        type=Path,
        metavar='FILE',
        help='train on simulated heads too: YAML with heads or label_maps (folders) and share '
        '(of the examples); without preprocessed scans, on them alone',
    )
    group.add_argument(
        '--biology',
        nargs='+',
        default=[],
        metavar='COLUMN',
        help='columns of participants.tsv (age, sex, diagnosis) whose information the training is '
        'to keep; method imunity',
    )
    group.add_argument(
        '--site',
        metavar='NAME',
        help='site to adapt to, whose style to keep (every site else), or to make slices of',
    )
    group.add_argument(
        '--n',
        type=positive,
        default=20,
        metavar='N',
        help='slices to make of each contrast (synthesize)',
    )
    group.add_argument(
        *flags('model-out'),
        type=Path,
        metavar='FOLDER',
        help='model folder to write; in models of the output folder by default',
    )
    group.add_argument(
        '--minutes', type=above_zero, metavar='N', help='budget of time; that of the method else'
    )
    group.add_argument(
        '--steps', type=positive, metavar='N', help='budget of steps instead: exactly repeatable'
    )
    group.add_argument(
        *flags('batch-size'),
        type=positive,
        metavar='N',
        help='examples of a step of training, of all processes together; for participants, slices '
        'that go through a network at a time (16 by default; methods with networks on slices)',
    )
    group.add_argument(
        '--patience',
        type=positive,
        metavar='N',
        help='end after N validations without a better one',
    )
    group.add_argument(
        '--precision',
        choices=('auto', 'float32', 'bfloat16'),
        default='auto',
        help='of the networks in training; auto is bfloat16 on CUDA',
    )
