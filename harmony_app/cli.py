"""The command line: arguments become a RunConfig."""

import argparse
import logging
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.filters import read_labels
from harmony_app.cli_reports import add_report_options, report_settings
from harmony_app.cli_training import add_group_options, add_training_options
from harmony_app.cli_training import flags as _flags
from harmony_app.cli_training import positive as _positive
from harmony_app.config import DEFAULT_SEED, TASKS, RunConfig
from harmony_app.errors import HarmonyError, OptionError
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.registry import METHOD_NAMES

_UNITS = {'': 1e-3, 'm': 1e-3, 'g': 1.0, 't': 1e3}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells a default where it is a value: None, an empty list or False tell nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run harmony-app and give the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.
    """
    parser = make_parser()
    # An option that takes several values may stand before the folders: both orders work.
    arguments = parser.parse_intermixed_args(argv)
    logging.basicConfig(format='%(levelname)s: %(message)s', stream=sys.stderr)
    logger = logging.getLogger('harmony_app')
    logger.setLevel(max(logging.DEBUG, logging.INFO - 5 * arguments.verbose))
    try:
        config = make_config(arguments)
        from harmony_app.app import run

        return int(run(config))
    except HarmonyError as error:
        sys.stderr.write(f'harmony-app: error: {error}\n')
        return int(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write('harmony-app: interrupted; the same command continues the run\n')
        return 130


def make_parser() -> argparse.ArgumentParser:
    """Parser of the command line, groups and names as in fMRIPrep."""
    parser = argparse.ArgumentParser(
        prog='harmony-app',
        description='Harmonize the contrast of multi-site brain MRI: a BIDS dataset in, the same '
        'brains in the contrast of one target out.',
        formatter_class=_HelpFormatter,
        # An abbreviation of today may be ambiguous tomorrow.
        allow_abbrev=False,
    )
    parser.add_argument('bids_dir', type=Path, help='root of the input BIDS dataset')
    parser.add_argument('output_dir', type=Path, help='folder of the results')
    parser.add_argument(
        'analysis_level',
        choices=('participant', 'group'),
        help='participant: harmonize; group: what --task says, with the results of all participants',
    )
    parser.add_argument('--version', action='version', version=f'harmony-app {__version__}')
    for add in (
        add_group_options,
        add_training_options,
        _add_filters,
        _add_harmonization,
        add_report_options,
        _add_performance,
        _add_other,
    ):
        add(parser)
    return parser


def make_config(arguments: argparse.Namespace) -> RunConfig:
    """Turn parsed arguments into the settings of a run.

    Raises
    ------
    OptionError
        Where options do not fit together.
    """
    if arguments.task != TASKS[0] and arguments.analysis_level != 'group':
        raise OptionError(f'--task {arguments.task} is for the group level; give group')
    bids_dir, output_dir = _absolute(arguments.bids_dir), _absolute(arguments.output_dir)
    participants = read_labels(arguments.participant_label, 'sub')
    work_dir = arguments.work_dir or Path(tempfile.gettempdir()) / f'harmony-work-{_user()}'
    return RunConfig(
        bids_dir=bids_dir,
        output_dir=output_dir,
        analysis_level=arguments.analysis_level,
        task=arguments.task,
        participants=participants,
        sessions=read_labels(arguments.session_label, 'ses'),
        modalities=tuple(c for c in CONTRASTS if c in arguments.modalities),
        bids_filter_file=_absolute(arguments.bids_filter_file),
        skip_bids_validation=arguments.skip_bids_validation,
        derivatives=_named_paths(arguments.derivatives),
        method=arguments.method,
        model=_absolute(arguments.model),
        target=tuple(arguments.target),
        detail=arguments.detail,
        fusion=arguments.fusion,
        noise=arguments.noise,
        site_average=arguments.site_average,
        impute=tuple(c for c in CONTRASTS if c in arguments.impute),
        include_contrast_enhanced=arguments.include_contrast_enhanced,
        device=arguments.device,
        nprocs=arguments.nprocs or _cpus(),
        omp_nthreads=arguments.omp_nthreads,
        memory_gb=arguments.mem,
        plugin_file=_absolute(arguments.use_plugin),
        work_dir=_absolute(work_dir),
        clean_workdir=arguments.clean_workdir,
        keep_workdir=arguments.keep_workdir,
        phantom=_absolute(arguments.phantom),
        biology=tuple(dict.fromkeys(arguments.biology)),
        site=arguments.site,
        count=arguments.n,
        model_out=_absolute(arguments.model_out),
        minutes=arguments.minutes,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        patience=arguments.patience,
        precision=arguments.precision,
        random_seed=arguments.random_seed,
        sloppy=arguments.sloppy,
        dry_run=arguments.dry_run,
        stop_on_first_crash=arguments.stop_on_first_crash,
        overwrite=arguments.overwrite,
        verbose=arguments.verbose,
        **report_settings(arguments),
    )


def parse_memory(text: str) -> float:
    """Gigabytes of an amount of memory; a bare number is megabytes, as in fMRIPrep.

    Examples
    --------
    >>> [parse_memory(t) for t in ('8G', '1.5G', '8 GB', '16g', '8000')]
    [8.0, 1.5, 8.0, 16.0, 8.0]
    """
    match = re.fullmatch(r'\s*(\d+(?:\.\d*)?|\.\d+)\s*([mgt]?)(?:i?b)?\s*', text.lower())
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f'{text!r} is no amount of memory; give 8G or 8000 (MB)')
    return float(match[1]) * _UNITS[match[2]]


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('Options for filtering BIDS queries')
    group.add_argument(
        *_flags('participant-label'),
        nargs='+',
        action='extend',
        default=[],
        metavar='LABEL',
        help='participants, with or without sub-, or a text file with one label a line; '
        'all by default',
    )
    group.add_argument(
        *_flags('session-label'),
        *_flags('session-id'),
        nargs='+',
        action='extend',
        default=[],
        metavar='LABEL',
        help='sessions, with or without ses-; scans without a session are always taken',
    )
    group.add_argument(
        '-m',
        '--modalities',
        nargs='+',
        choices=CONTRASTS,
        default=list(CONTRASTS),
        help='contrasts to harmonize, or to gather and evaluate',
    )
    group.add_argument(
        *_flags('bids-filter-file'),
        type=Path,
        metavar='FILE',
        help='JSON of the form {"t1w": {"acquisition": "label", "run": null, "rec": "*"}}; '
        'null asks for scans without the entity, "*" for scans with it',
    )
    group.add_argument(
        *_flags('skip-bids-validation'),
        *_flags('skip-bids-validator'),
        action='store_true',
        help='take a dataset whose dataset_description.json is absent, or says that it is a '
        'derivative',
    )
    group.add_argument(
        *_flags('include-contrast-enhanced'),
        action='store_true',
        help='harmonize scans after contrast agent (ce-) as well',
    )
    group.add_argument(
        '-d',
        '--derivatives',
        nargs='+',
        action='extend',
        default=[],
        metavar='NAME=PATH',
        help='derivative datasets whose brain masks (desc-brain_mask) and transforms '
        '(*_xfm.txt) are taken instead of estimated ones; with --task evaluate, whose lesion '
        'masks (label-lesion_mask, label-WMH_mask, label-L_mask) lesions are measured under',
    )


def _add_harmonization(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        'Options for harmonization', 'Of the participant level; the group level does not read them.'
    )
    group.add_argument('--method', choices=METHOD_NAMES, default='transfer', help='method')
    group.add_argument(
        *_flags('model'),
        type=Path,
        metavar='FOLDER',
        help='model folder of the method; the packaged one by default',
    )
    group.add_argument(
        '--target',
        action='append',
        default=[],
        metavar='[CONTRAST=]TARGET',
        help='what to look like: a named style of the model, an image file, sub-XX or '
        'sub-XX_ses-YY of the dataset, site:NAME, or a style JSON file; repeat it to give a '
        'target for each contrast (T1w=... T2w=...); the default style of the model by default',
    )
    group.add_argument(
        '--detail',
        choices=('transfer', 'decoder'),
        help='where the detail of a result comes from: the scan itself or the decoder '
        '(methods with a decoder)',
    )
    group.add_argument(
        '--fusion',
        choices=('network', 'median'),
        help='how three orientations become one volume (methods that work on slices)',
    )
    group.add_argument(
        '--noise',
        choices=('match', 'keep', 'remove'),
        help="what becomes of a scan's noise (transfer, and haca3 with it): brought down to the "
        "target's where it is stronger (the default), kept as it is, or removed",
    )
    group.add_argument(
        *_flags('site-average'),
        choices=('auto', 'dataset', 'off'),
        default='auto',
        help='let people keep what they differ in: a scan goes to the target as the average of its '
        'site does, by a style of the model that has its name, or for site:NAME by the dataset '
        "(auto), by the dataset for all targets, or not at all (transfer's, and haca3's with it)",
    )
    group.add_argument(
        '--impute',
        nargs='+',
        choices=CONTRASTS,
        default=[],
        metavar='CONTRAST',
        help='contrasts to make where they were not acquired (methods that can)',
    )


def _add_performance(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('Options to handle performance')
    group.add_argument('--device', default='auto', type=_device, help='auto, cpu, cuda or cuda:N')
    group.add_argument(
        *_flags('nprocs'),
        *_flags('n-cpus'),
        *_flags('nthreads'),
        type=_positive,
        metavar='N',
        help='processes at a time; all processors by default',
    )
    group.add_argument(
        *_flags('omp-nthreads'),
        type=_positive,
        default=1,
        metavar='N',
        help='threads of a process',
    )
    group.add_argument(
        *_flags('mem'),
        *_flags('mem-mb'),
        type=parse_memory,
        metavar='AMOUNT',
        help='memory that processes may take together, for example 8G (a bare number is MB)',
    )
    group.add_argument(
        *_flags('use-plugin'),
        '--nipype-plugin-file',
        type=Path,
        metavar='FILE',
        help='YAML with the Nipype plugin to run on (plugin: SLURM, plugin_args: ...)',
    )


def _add_other(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('Other options')
    group.add_argument('-v', '--verbose', action='count', default=0, help='say more; -vv more yet')
    group.add_argument(
        '-w',
        *_flags('work-dir'),
        type=Path,
        metavar='FOLDER',
        help='scratch, in the temporary folder by default; an interrupted run continues from it',
    )
    group.add_argument(
        *_flags('clean-workdir'),
        action='store_true',
        help='empty the scratch of this dataset before the run',
    )
    group.add_argument(
        *_flags('keep-workdir'),
        action='store_true',
        help='keep what was computed for sessions that are written (half a gigabyte each), so '
        'that another method or target starts from there',
    )
    group.add_argument(
        *_flags('random-seed'), type=int, default=DEFAULT_SEED, metavar='N', help='random seed'
    )
    group.add_argument(
        '--sloppy',
        action='store_true',
        help='skip the bias field correction; for tests only',
    )
    group.add_argument(
        *_flags('dry-run'),
        action='store_true',
        help='print what would be read and done, write nothing',
    )
    group.add_argument(
        *_flags('stop-on-first-crash'),
        action='store_true',
        help='stop at the first failure instead of finishing the other scans',
    )
    group.add_argument(
        '--overwrite',
        action='store_true',
        help='compute sessions again whose results are there already',
    )


def _named_paths(items: Sequence[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition('=')
        if not equals:
            name, path = Path(item).name, item
        if name in named:
            raise OptionError(f'--derivatives gives {name} twice; give each a name: NAME=PATH')
        if not Path(path).is_dir():
            raise OptionError(f'--derivatives {item}: {path} is not a folder')
        named[name] = _absolute(Path(path))
    return named


def _device(text: str) -> str:
    if not re.fullmatch(r'auto|cpu|cuda(:\d+)?', text):
        raise argparse.ArgumentTypeError(f'{text!r} is none of auto, cpu, cuda, cuda:N')
    return text


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path.expanduser()))


def _cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _user() -> str:
    return str(os.getuid()) if hasattr(os, 'getuid') else 'user'
