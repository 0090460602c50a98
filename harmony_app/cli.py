"""The command line: arguments become a RunConfig."""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.filters import read_labels
from harmony_app.cli_execution import add_other, add_performance
from harmony_app.cli_training import add_group_options, add_training_options
from harmony_app.cli_workflow import add_filters, add_harmonization, add_outputs
from harmony_app.config import TASKS, RunConfig
from harmony_app.errors import HarmonyError, OptionError
from harmony_app.methods.base import CONTRASTS


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
        add_filters,
        add_harmonization,
        add_outputs,
        add_performance,
        add_other,
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
    if arguments.export_dir and not arguments.export_fmriprep:
        raise OptionError('--export-dir is the folder of --export-fmriprep; give both')
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
        export_fmriprep=arguments.export_fmriprep,
        export_dir=_absolute(arguments.export_dir),
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


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path.expanduser()))


def _cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _user() -> str:
    return str(os.getuid()) if hasattr(os, 'getuid') else 'user'
