"""The command line: arguments become a RunConfig."""

import argparse
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.filters import read_labels
from harmony_app.cli_checks import check_options
from harmony_app.cli_descriptor import PrintDescriptor
from harmony_app.cli_execution import add_other, add_performance
from harmony_app.cli_help import DESCRIPTION, EXAMPLES, HelpFormatter
from harmony_app.cli_reports import add_report_options, report_settings
from harmony_app.cli_training import add_group_options, add_training_options
from harmony_app.cli_types import device, flags
from harmony_app.cli_workflow import add_filters, add_harmonization, add_outputs
from harmony_app.config import RunConfig
from harmony_app.errors import ExitCode, HarmonyError, InputError, OptionError
from harmony_app.imaging.grid import SPACES
from harmony_app.logs import set_up_logging
from harmony_app.methods.base import CONTRASTS

_FIELDS = {
    'participant_label': 'participants',
    'session_label': 'sessions',
    'mem': 'memory_gb',
    'use_plugin': 'plugin_file',
    'n': 'count',
}
"""Settings whose option has another name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run harmony-app and give the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.
    """
    for stream in (sys.stdout, sys.stderr):
        # Where a locale has no letter for a name, its code is better than the end of a run.
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
    # An option that takes several values may stand before the folders: both orders work.
    arguments = make_parser().parse_intermixed_args(argv)
    try:
        return _run(arguments, argv)
    except HarmonyError as error:
        sys.stderr.write(f'harmony-app: error: {error}\n')
        return int(error.exit_code)
    except OSError as error:
        # A path that no system has, a disk that went away: no file of a scan, which have their own.
        named = f' {error.filename}' if error.filename else ''
        sys.stderr.write(
            f'harmony-app: error: {error.strerror or error}:{named}; is the path right?\n'
        )
        return int(ExitCode.IO_ERROR)
    except KeyboardInterrupt as end:
        told, code = ('terminated', 143) if isinstance(end, _Terminated) else ('interrupted', 130)
        sys.stderr.write(f'harmony-app: {told}; the same command continues the run\n')
        return code


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what a batch system sends before it kills."""


def _terminate(number, frame):
    raise _Terminated


def _run(arguments: argparse.Namespace, argv: Sequence[str] | None) -> int:
    """Run the levels that were asked for; SIGTERM ends them as Ctrl-C does."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if in_main else None
    try:
        config = make_config(arguments, argv)
        set_up_logging(config.verbose)
        from harmony_app.app import run

        levels = _levels(arguments)
        alone = len(levels) == 1
        codes = [int(run(replace(config, analysis_level=level), alone)) for level in levels]
        return next((code for code in codes if code), 0)
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def make_parser() -> argparse.ArgumentParser:
    """Parser of the command line, groups and names as in fMRIPrep."""
    parser = argparse.ArgumentParser(
        prog='harmony-app',
        description=DESCRIPTION,
        usage='%(prog)s bids_dir output_dir {participant,group} [options]',
        formatter_class=HelpFormatter,
        epilog=EXAMPLES,
        # An abbreviation of today may be ambiguous tomorrow.
        allow_abbrev=False,
    )
    parser.add_argument('bids_dir', type=Path, help='root of the input BIDS dataset')
    parser.add_argument('output_dir', type=Path, help='folder of the results')
    parser.add_argument(
        'analysis_level',
        nargs='+',
        choices=('participant', 'group'),
        help='participant: harmonize; group: what --task says, with the results of all '
        'participants; both, one after the other',
    )
    parser.add_argument('--version', action='version', version=f'harmony-app {__version__}')
    parser.add_argument(
        *flags('bids-exec-spec'),
        action=PrintDescriptor,
        const=make_parser,
        help='print the Boutiques descriptor of this command line and exit',
    )
    for add in (
        add_filters,
        add_harmonization,
        add_outputs,
        add_report_options,
        add_performance,
        add_other,
        add_group_options,
        add_training_options,
    ):
        add(parser)
    return parser


def make_config(arguments: argparse.Namespace, argv: Sequence[str] | None = None) -> RunConfig:
    """Turn parsed arguments into the settings of a run.

    Parameters
    ----------
    arguments : Namespace
        Of the parser.
    argv : sequence of str, optional
        What was parsed; those of the process by default. Needed for ``--config-file``, over
        which what was given wins and what was not does not.

    Raises
    ------
    OptionError
        Where options do not fit together.
    """
    config = _from_arguments(arguments)
    if arguments.config_file:
        config = _over_file(config, arguments.config_file, argv)
    check_options(config, _levels(arguments))
    return config


def _levels(arguments: argparse.Namespace) -> list[str]:
    """Levels that were asked for, participants first, each once."""
    return sorted(set(arguments.analysis_level), reverse=True)


def _over_file(config: RunConfig, path: Path, argv: Sequence[str] | None) -> RunConfig:
    """Settings of a file, with those in their place that were given on the command line."""
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is not text'
        raise InputError(f'cannot read --config-file {path}: {reason}') from error
    parser = make_parser()
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    given = vars(parser.parse_intermixed_args(argv)).keys() - {'config_file'}
    try:
        filed = RunConfig.from_toml(text)
    except OptionError as error:
        raise OptionError(f'--config-file {path}: {error}') from error
    _check_choices(filed, parser, path)
    return replace(filed, **{n: getattr(config, n) for n in (_FIELDS.get(d, d) for d in given)})


def _check_choices(config: RunConfig, parser: argparse.ArgumentParser, path: Path) -> None:
    """Refuse settings of a file that the command line does not have."""
    for action in parser._actions:
        value = getattr(config, _FIELDS.get(action.dest, action.dest), None)
        values = value if isinstance(value, tuple) else (value,)
        for one in values if action.choices and value is not None else ():
            if one not in action.choices:
                known = ', '.join(map(str, action.choices))
                raise OptionError(f'--config-file {path}: {action.dest} {one!r} is none of {known}')
    try:
        device(config.device)
    except argparse.ArgumentTypeError as error:
        raise OptionError(f'--config-file {path}: device {error}') from error


def _from_arguments(arguments: argparse.Namespace) -> RunConfig:
    bids_dir, output_dir = _absolute(arguments.bids_dir), _absolute(arguments.output_dir)
    participants = read_labels(arguments.participant_label, 'sub')
    work_dir = arguments.work_dir or Path(tempfile.gettempdir()) / f'harmony-work-{_user()}'
    return RunConfig(
        bids_dir=bids_dir,
        output_dir=output_dir,
        analysis_level=_levels(arguments)[0],
        task=arguments.task,
        participants=participants,
        sessions=read_labels(arguments.session_label, 'ses'),
        modalities=tuple(c for c in CONTRASTS if c in arguments.modalities),
        bids_filter_file=_absolute(arguments.bids_filter_file),
        skip_bids_validation=arguments.skip_bids_validation,
        bids_database_dir=_absolute(arguments.bids_database_dir),
        bids_database_wipe=arguments.bids_database_wipe,
        derivatives=_named_paths(arguments.derivatives),
        method=arguments.method,
        model=_absolute(arguments.model),
        target=tuple(arguments.target),
        detail=arguments.detail,
        fusion=arguments.fusion,
        noise=arguments.noise,
        site_average=arguments.site_average,
        super_resolution=arguments.super_resolution,
        impute=tuple(c for c in CONTRASTS if c in arguments.impute),
        include_contrast_enhanced=arguments.include_contrast_enhanced,
        skull_strip=arguments.skull_strip,
        ignore=tuple(dict.fromkeys(arguments.ignore)),
        output_spaces=tuple(s for s in SPACES if s in arguments.output_spaces),
        export_fmriprep=arguments.export_fmriprep,
        export_dir=_absolute(arguments.export_dir),
        device=arguments.device,
        nprocs=arguments.nprocs or _cpus(),
        omp_nthreads=arguments.omp_nthreads,
        memory_gb=arguments.mem,
        low_mem=arguments.low_mem,
        step_timeout=arguments.step_timeout,
        plugin_file=_absolute(arguments.use_plugin),
        resource_monitor=arguments.resource_monitor,
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
        write_graph=arguments.write_graph,
        stop_on_first_crash=arguments.stop_on_first_crash,
        overwrite=arguments.overwrite,
        skip_existing=arguments.skip_existing,
        verbose=arguments.verbose,
        **report_settings(arguments),
    )


def _named_paths(items: Sequence[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition('=')
        if not equals:
            name, path = Path(item).name, item
        if name in named:
            raise OptionError(f'--derivatives gives {name} twice; give each a name: NAME=PATH')
        if not os.path.isdir(path):
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
