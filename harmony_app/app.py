"""The participant and group levels: plan, run, exit code."""

import logging
import os
import shutil
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.atomic import write_text
from harmony_app.bids.derivatives import write_dataset_files
from harmony_app.bids.discovery import Inventory, discover
from harmony_app.bids.filters import Selection, read_filter_file
from harmony_app.bids.publish import is_finished, read_marker
from harmony_app.config import RunConfig, describe_environment, digest
from harmony_app.errors import ExitCode
from harmony_app.workflows.checks import (
    check_dataset,
    check_device,
    check_folders,
    check_method,
    method_options,
    read_plugin,
)
from harmony_app.workflows.names import session_name
from harmony_app.workflows.plans import MethodSettings, SessionPlan
from harmony_app.workflows.precomputed import find_precomputed
from harmony_app.workflows.targets import Targets, resolve_targets

logger = logging.getLogger('harmony_app')


@dataclass(frozen=True)
class Plan:
    """What a participant run will do.

    Parameters
    ----------
    inventory : Inventory
        What was found.
    targets : Targets
        What to look like.
    model : Path or None
        Model folder.
    model_hash : str
        sha256 of its weights.
    device : str
        Device of the method.
    sessions : tuple of SessionPlan
        Sessions to compute.
    finished : tuple of str
        Sessions whose results are there already.
    """

    inventory: Inventory
    targets: Targets
    model: Path | None
    model_hash: str
    device: str
    sessions: tuple[SessionPlan, ...]
    finished: tuple[str, ...]


def run(config: RunConfig) -> ExitCode:
    """Run the level that was asked for.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.

    Returns
    -------
    ExitCode
        0 where everything went well, 1 where some scans failed, 65 where all failed for
        their data.

    Raises
    ------
    HarmonyError
        Where the run cannot begin.
    """
    if config.analysis_level == 'group':
        from harmony_app.workflows.group import gather

        _say('\n'.join(gather(config.output_dir)))
        return ExitCode.SUCCESS
    return run_participants(config)


def run_participants(config: RunConfig) -> ExitCode:
    """Harmonize the scans of a dataset, see :func:`run`."""
    started = time.monotonic()
    description = check_dataset(config.bids_dir, config.skip_bids_validation)
    check_folders(config)
    if config.plugin_file:
        read_plugin(config.plugin_file)
    prepare_environment(config)
    plan = make_plan(config)
    _say('\n'.join(describe_plan(plan, config)))
    if config.dry_run:
        return ExitCode.SUCCESS
    run_name = f'{datetime.now(UTC):%Y%m%d-%H%M%S}_{uuid.uuid4().hex[:8]}'
    logs = config.output_dir / 'logs' / run_name
    write_dataset_files(config.output_dir, config.bids_dir, description)
    plan.inventory.write(logs / 'inputs.tsv')
    environment = describe_environment() | {
        'device_used': plan.device,
        'model_used': str(plan.model) if plan.model else None,
        'model_sha256': plan.model_hash or None,
    }
    write_text(logs / 'harmony_app.toml', config.to_toml(environment))
    if plan.sessions:
        _run_workflow(config, plan, run_name, logs)
    lines, code = summarize(config.output_dir, plan, run_name, logs)
    lines.append(f'{time.monotonic() - started:.0f} s, settings and logs in {logs}')
    _say('\n'.join(lines))
    return code


def make_plan(config: RunConfig) -> Plan:
    """Find out what there is to do; nothing is computed or written.

    Raises
    ------
    HarmonyError
        Where the settings do not fit the dataset, the machine or the model.
    """
    device = check_device(config.device)
    model, model_hash, _ = check_method(config)
    filters = read_filter_file(config.bids_filter_file) if config.bids_filter_file else {}
    selection = Selection(
        config.participants,
        config.sessions,
        config.modalities,
        filters,
        config.include_contrast_enhanced,
    )
    root = config.bids_dir.resolve()
    inventory = discover(root, selection)
    targets = resolve_targets(config.target, root, model)
    given = find_precomputed(config.derivatives, inventory.scans)
    common = config.result_settings() | {
        'model_hash': model_hash,
        'device': device.partition(':')[0],
        'styles': {c: s.to_dict() for c, s in targets.styles.items()},
        'target_scans': {c: [_stamp(s.path) for s in ss] for c, ss in targets.scans.items()},
    }
    sessions, finished = [], []
    for (subject, session), scans in inventory.sessions.items():
        files = {name: given[name] for name in (scan.name for scan in scans) if name in given}
        own = {
            'scans': [[scan.name, scan.site, *_stamp(scan.path)] for scan in scans],
            'given': [[n, *_stamp(p)] for n, fs in files.items() for p in fs.values()],
        }
        plan = SessionPlan(scans, digest(common | own), files)
        name = session_name(subject, session)
        if not config.overwrite and is_finished(config.output_dir, name, plan.digest):
            finished.append(name)
        else:
            sessions.append(plan)
    return Plan(inventory, targets, model, model_hash, device, tuple(sessions), tuple(finished))


def describe_plan(plan: Plan, config: RunConfig) -> list[str]:
    """The plan in words, one line for each scan."""
    used = len(plan.inventory.scans)
    skipped = [row for row in plan.inventory.rows if not row.used]
    lines = [
        f'harmony-app {__version__}: {used} scans in {len(plan.inventory.sessions)} sessions, '
        f'method {config.method} on {plan.device}'
    ]
    lines += [f'  target of {line}' for line in plan.targets.describe()]
    for session in plan.sessions:
        lines.append(f'  {session.name}: {", ".join(_short(scan) for scan in session.scans)}')
    lines += [
        f'  {name}: finished before (--overwrite computes it again)' for name in plan.finished
    ]
    lines += [f'  skipped {row.path.name}: {row.reason}' for row in skipped]
    return lines


def summarize(
    output_dir: Path, plan: Plan, run_name: str, logs: Path
) -> tuple[list[str], ExitCode]:
    """How each scan ended, and the exit code that follows from nothing else.

    Parameters
    ----------
    output_dir : Path
        Where the markers of the sessions are.
    plan : Plan
        What was to be done.
    run_name : str
        The run; older markers do not count.
    logs : Path
        Where crash files are.
    """
    states = []
    for session in plan.sessions:
        marker = read_marker(output_dir, session.name)
        scans = marker['scans'] if marker and marker.get('run') == run_name else {}
        for scan in session.scans:
            crashed = {
                'status': 'failed',
                'message': f'{session.name} stopped; see {_crash_of(session.name, logs)}',
                'exit_code': int(ExitCode.FAILURE),
            }
            states.append((scan.name, scans.get(scan.name, crashed)))
    before = sum(
        len(scans)
        for (subject, session), scans in plan.inventory.sessions.items()
        if session_name(subject, session) in plan.finished
    )
    by_status = {
        status: [(name, state) for name, state in states if state['status'] == status]
        for status in ('done', 'failed', 'skipped')
    }
    left_out = [row for row in plan.inventory.rows if not row.used]
    lines = [f'failed {name}: {state["message"]}' for name, state in by_status['failed']]
    lines += [f'skipped {name}: {state["message"]}' for name, state in by_status['skipped']]
    lines += [f'check {name}: {s["message"]}' for name, s in by_status['done'] if s['message']]
    done = len(by_status['done']) + before
    lines.append(
        f'{done} done, {len(by_status["failed"])} failed, '
        f'{len(by_status["skipped"]) + len(left_out)} skipped'
        + (f' ({before} were done before)' if before else '')
    )
    if not by_status['failed']:
        return lines, ExitCode.SUCCESS
    codes = {state['exit_code'] for _, state in by_status['failed']}
    if done == 0 and len(codes) == 1:
        return lines, ExitCode(codes.pop())
    return lines, ExitCode.FAILURE


def prepare_environment(config: RunConfig) -> None:
    """Set what libraries read when they are imported, here and in worker processes.

    One ITK thread, because several add in no fixed order; no telemetry; caches in the
    work folder, because HOME may be absent or not writable.
    """
    cache = config.work_dir / 'cache'
    os.environ |= {
        'NO_ET': '1',
        'NIPYPE_NO_ET': '1',
        'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS': '1',
        'OMP_NUM_THREADS': str(config.omp_nthreads),
        'OPENBLAS_NUM_THREADS': str(config.omp_nthreads),
        'MKL_NUM_THREADS': str(config.omp_nthreads),
        'MPLBACKEND': 'Agg',
        'MPLCONFIGDIR': str(cache / 'matplotlib'),
        'XDG_CACHE_HOME': str(cache),
        # Needed by deterministic matrix products on CUDA.
        'CUBLAS_WORKSPACE_CONFIG': ':4096:8',
    }


def _run_workflow(config: RunConfig, plan: Plan, run_name: str, logs: Path) -> None:
    from nipype import config as nipype_config
    from nipype import logging as nipype_logging

    from harmony_app.workflows.harmony import init_harmony_wf
    from harmony_app.workflows.plugin import LOGGERS, make_plugin

    method = MethodSettings(
        name=config.method,
        model=plan.model,
        model_hash=plan.model_hash,
        options=method_options(config),
        device=plan.device,
        threads=max(config.omp_nthreads, min(config.nprocs, 8)),
        seed=config.random_seed,
    )
    settings: dict = {
        'HarmonizationMethod': config.method,
        'HarmonyAppVersion': __version__,
        'RandomSeed': config.random_seed,
    }
    if plan.model is not None:
        settings |= {'HarmonizationModelSHA256': plan.model_hash, 'Device': plan.device}
    workflow = init_harmony_wf(
        sessions=plan.sessions,
        method=method,
        styles=plan.targets.styles,
        target_scans=plan.targets.scans,
        target_names=plan.targets.names,
        bids_dir=config.bids_dir.resolve(),
        output_dir=config.output_dir,
        run=run_name,
        settings=settings,
        impute=config.impute,
        sloppy=config.sloppy,
    )
    base = work_folder(config)
    if config.clean_workdir:
        shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True, exist_ok=True)
    workflow.base_dir = str(base)
    workflow.config['execution'] = {
        'crashdump_dir': str(logs),
        'crashfile_format': 'txt',
        'stop_on_first_crash': str(config.stop_on_first_crash).lower(),
        'create_report': 'false',
        'check_version': 'false',
        'poll_sleep_duration': '0.2',
    }
    nipype_config.update_config({'logging': {'log_to_file': 'false'}})
    # Nipype has a handler of its own; ours would tell everything twice.
    logging.getLogger('nipype').propagate = False
    for name in LOGGERS:
        quiet = nipype_logging.getLogger(name)
        # A crash is told once, by the summary.
        quiet.setLevel('INFO' if config.verbose else 'CRITICAL')
    plugin, plugin_args = make_plugin(
        config.nprocs, config.memory_gb, config.plugin_file, method.uses_gpu, config.verbose > 0
    )
    try:
        workflow.run(plugin=plugin, plugin_args=plugin_args)
    except Exception as error:  # noqa: BLE001
        # Nipype raises whatever a node raised after the others have ended. How each scan
        # ended is in the markers; the summary tells it, with the crash files.
        logger.debug('the workflow ended with %r', error)


def work_folder(config: RunConfig) -> Path:
    """Scratch of this dataset, these results and this version: what may share a cache."""
    key = digest(
        {
            'input': str(config.bids_dir.resolve()),
            'output': str(config.output_dir.resolve()),
            'participants': sorted(config.participants),
            'sessions': sorted(config.sessions),
        }
    )
    return config.work_dir / f'harmony_app-{__version__}-{key}'


def _stamp(path: Path) -> list:
    """What tells whether a file is still the same."""
    status = Path(path).stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def _crash_of(session: str, logs: Path) -> str:
    """Newest crash file of a session, else the folder of them."""
    key = session.replace('-', '_')
    crashes = sorted(path for path in logs.glob('crash-*') if key in path.name)
    if not crashes:
        crashes = sorted(
            path for path in logs.glob('crash-*') if f'{key}_' in path.read_text(errors='replace')
        )
    return str(crashes[-1] if crashes else logs)


def _short(scan) -> str:
    parts = [f'{key}-{label}' for key, label in scan.entities if key not in ('sub', 'ses')]
    return '_'.join([*parts, scan.contrast])


def _say(text: str) -> None:
    sys.stdout.write(text + '\n')
    sys.stdout.flush()
