"""Options that say with what resources a run goes, and how it behaves."""

import argparse
from pathlib import Path

from harmony_app.cli_types import device, flags, parse_memory, positive
from harmony_app.config import DEFAULT_SEED


def add_performance(parser: argparse.ArgumentParser) -> None:
    """Add the options of resources."""
    group = parser.add_argument_group('Options to handle performance')
    group.add_argument('--device', default='auto', type=device, help='auto, cpu, cuda or cuda:N')
    group.add_argument(
        *flags('nprocs'),
        *flags('n-cpus'),
        *flags('nthreads'),
        type=positive,
        metavar='N',
        help='processes at a time; all processors by default',
    )
    group.add_argument(
        *flags('omp-nthreads'),
        type=positive,
        default=1,
        metavar='N',
        help='threads of a process',
    )
    group.add_argument(
        *flags('mem'),
        *flags('mem-mb'),
        type=parse_memory,
        metavar='AMOUNT',
        help='memory that processes may take together, for example 8G (a bare number is MB)',
    )
    group.add_argument(
        *flags('use-plugin'),
        '--nipype-plugin-file',
        type=Path,
        metavar='FILE',
        help='YAML with the Nipype plugin to run on (plugin: SLURM, plugin_args: ...)',
    )


def add_other(parser: argparse.ArgumentParser) -> None:
    """Add the others: scratch, seed, what is told."""
    group = parser.add_argument_group('Other options')
    group.add_argument('-v', '--verbose', action='count', default=0, help='say more; -vv more yet')
    group.add_argument(
        '-w',
        *flags('work-dir'),
        type=Path,
        metavar='FOLDER',
        help='scratch, in the temporary folder by default; an interrupted run continues from it',
    )
    group.add_argument(
        *flags('clean-workdir'),
        action='store_true',
        help='empty the scratch of this dataset before the run',
    )
    group.add_argument(
        *flags('keep-workdir'),
        action='store_true',
        help='keep what was computed for sessions that are written (half a gigabyte each), so '
        'that another method or target starts from there',
    )
    group.add_argument(
        *flags('random-seed'), type=int, default=DEFAULT_SEED, metavar='N', help='random seed'
    )
    group.add_argument(
        '--sloppy',
        action='store_true',
        help='skip the bias field correction; for tests only',
    )
    group.add_argument(
        *flags('dry-run'),
        action='store_true',
        help='print what would be read and done, write nothing',
    )
    group.add_argument(
        *flags('stop-on-first-crash'),
        action='store_true',
        help='stop at the first failure instead of finishing the other scans',
    )
    group.add_argument(
        '--overwrite',
        action='store_true',
        help='compute sessions again whose results are there already',
    )
