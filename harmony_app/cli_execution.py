"""Options that say with what resources a run goes, and how it behaves."""

import argparse
from pathlib import Path

from harmony_app.cli_types import device, flags, gigabytes, minutes, parse_memory, positive
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
        *flags('mem-gb'),
        dest='mem',
        type=gigabytes,
        default=argparse.SUPPRESS,
        metavar='GB',
        help='the same in gigabytes',
    )
    group.add_argument(
        *flags('low-mem'),
        action='store_true',
        help='less memory for more time: a fresh process for each step, and four slices at a '
        'time through the networks (--batch-size says otherwise)',
    )
    group.add_argument(
        *flags('step-timeout'),
        type=minutes,
        default=240.0,
        metavar='MINUTES',
        help='a step that runs longer is stopped, and the other sessions go on; 0 for no limit',
    )
    group.add_argument(
        *flags('use-plugin'),
        '--nipype-plugin-file',
        type=Path,
        metavar='FILE',
        help='YAML with the Nipype plugin to run on (plugin: SLURM, plugin_args: ...)',
    )
    group.add_argument(
        *flags('resource-monitor'),
        action='store_true',
        help='measure processor and memory of each step: a table at the end, and resources.tsv '
        'and resources_over_time.tsv in the logs',
    )


def add_other(parser: argparse.ArgumentParser) -> None:
    """Add the others: scratch, seed, what is told."""
    group = parser.add_argument_group('Other options')
    group.add_argument(
        '-v',
        '--verbose',
        action='count',
        default=0,
        help='say more: -v each step as it starts and ends, -vv what harmony-app decides, and what '
        'Nipype does in which folder, -vvv what the libraries say too',
    )
    group.add_argument(
        *flags('config-file'),
        type=Path,
        metavar='FILE',
        help='settings of an earlier run (logs/*/harmony_app.toml of its results); what else '
        'stands on the command line wins',
    )
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
        help='keep what was computed for sessions that are written (a quarter of a gigabyte for '
        'two scans), so that another method or target starts from there',
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
        help='print what would be read and done, and what it would cost; write nothing',
    )
    group.add_argument(
        *flags('write-graph'),
        action='store_true',
        help='draw the workflow into the logs (graph.dot, and graph.svg where graphviz is there)',
    )
    group.add_argument(
        *flags('stop-on-first-crash'),
        action='store_true',
        help='stop at the first failure instead of finishing the other scans',
    )
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        '--overwrite',
        action='store_true',
        help='compute sessions again whose results are there already',
    )
    existing.add_argument(
        *flags('skip-existing'),
        action='store_true',
        help='leave every session that has results, whatever settings they were made with; '
        'without either, those are left whose settings and scans are the same',
    )
