"""The participant and group levels: plan, run, exit code."""

import logging
import shutil
import sys
import time
import uuid
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.atomic import write_text
from harmony_app.bids.derivatives import write_dataset_files
from harmony_app.bids.discovery import discover
from harmony_app.bids.filters import Selection, read_filter_file
from harmony_app.bids.publish import is_finished
from harmony_app.config import RunConfig, describe_environment, digest
from harmony_app.environment import prepare_environment
from harmony_app.errors import ExitCode
from harmony_app.logs import NODES
from harmony_app.workflows.checks import (
    check_dataset,
    check_device,
    check_folders,
    check_input_folder,
    check_measured,
    check_method,
    check_scans,
    method_options,
    read_plugin,
)
from harmony_app.workflows.costs import describe_cost, estimate
from harmony_app.workflows.fmriprep_export import export_plan
from harmony_app.workflows.names import node_name, session_name
from harmony_app.workflows.plans import MethodSettings, Plan, SessionPlan
from harmony_app.workflows.precomputed import find_precomputed
from harmony_app.workflows.progress import Progress, remove_session
from harmony_app.workflows.results import (
    describe_group,
    quality_rows,
    select_rows,
    without_effect,
)
from harmony_app.workflows.scratch import scratch_of_run, work_folder
from harmony_app.workflows.site_averages import find_site_averages
from harmony_app.workflows.summary import describe_end, describe_plan, summarize
from harmony_app.workflows.targets import resolve_targets

logger = logging.getLogger('harmony_app')


def run(config: RunConfig, alone: bool = True) -> ExitCode:
    """Run the level that was asked for.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    alone : bool
        Whether this is the only level; options of the other one are not told to be unread then.

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
        if lines := run_group(config, alone):
            _say('\n'.join(lines))
        return ExitCode.SUCCESS
    return run_participants(config)


def run_group(config: RunConfig, alone: bool = True) -> list[str]:
    """Do what ``--task`` says with the results of the participant level; says what came of it."""
    if config.task in ('train', 'adapt', 'styles', 'synthesize'):
        from harmony_app.workflows.model_tasks import run_task

        check_input_folder(config.bids_dir)
        check_folders(config)
        prepare_environment(config)
        return run_task(config)
    check_input_folder(config.bids_dir)
    if alone and (unread := without_effect(config)):
        logger.warning(
            '%s: without effect at the group level, which takes the results as they are',
            ', '.join(unread),
        )
    rows = select_rows(quality_rows(config.output_dir), _selection(config), config.output_dir)
    if config.task == 'evaluate':
        from harmony_app.workflows.evaluate import evaluate, evaluation_files

        files = evaluation_files()
        work = partial(evaluate, config, rows)
    else:
        from harmony_app.workflows.group import gather, report_files

        files = report_files(rows)
        work = partial(gather, config.output_dir, rows, config.modalities)
    check_folders(config)
    if config.dry_run:
        return describe_group(config, rows, files)
    prepare_environment(config)
    return work()


def run_participants(config: RunConfig) -> ExitCode:
    """Harmonize the scans of a dataset, see :func:`run`."""
    if config.reports_only:
        return _rebuild_reports(config)
    started = time.monotonic()
    description = check_dataset(config.bids_dir, config.skip_bids_validation)
    check_folders(config)
    if config.plugin_file:
        read_plugin(config.plugin_file)
    prepare_environment(config)
    plan = make_plan(config)
    _say('\n'.join(describe_plan(plan, config)))
    if config.dry_run:
        cost = estimate(plan, config)
        _say('\n'.join(describe_cost(cost, config, len(plan.sessions))))
        return ExitCode.SUCCESS
    with scratch_of_run(config):
        return _run_plan(config, plan, description, started)


def _run_plan(config: RunConfig, plan: Plan, description: dict, started: float) -> ExitCode:
    """Do what was planned, and tell how it ended."""
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
    (*lines, counts), code = summarize(config.output_dir, plan, run_name, logs)
    told, reported = _report(config, plan)
    lines += told
    # A page that failed is told by the code, unless a scan did and says why.
    code = code if code != ExitCode.SUCCESS else reported
    if config.export_fmriprep:
        exported, failed = export_plan(config, plan, description)
        lines += exported
        code = ExitCode.FAILURE if failed and code == ExitCode.SUCCESS else code
    lines += describe_end(config.output_dir, logs, counts, time.monotonic() - started)
    _say('\n'.join(lines))
    return code


def _report(config: RunConfig, plan: Plan) -> tuple[list[str], ExitCode]:
    """Pages of the participants of a run, and of those who have none yet."""
    from harmony_app.workflows.reporting import report_run

    worked_on = {session.scans[0].subject for session in plan.sessions}
    missing = {
        subject
        for subject, _ in plan.inventory.sessions
        if not (config.output_dir / f'sub-{subject}.html').is_file()
    }
    return report_run(config, sorted(worked_on | missing))


def _rebuild_reports(config: RunConfig) -> ExitCode:
    """Do what ``--reports-only`` says."""
    from harmony_app.workflows.reporting import rebuild

    check_folders(config)
    prepare_environment(config)
    lines, code = rebuild(config)
    _say('\n'.join(lines))
    return code


def make_plan(config: RunConfig) -> Plan:
    """Find out what there is to do; nothing is computed or written.

    Raises
    ------
    HarmonyError
        Where the settings do not fit the dataset, the machine or the model.
    """
    device = check_device(config.device, config.plugin_file)
    model, model_hash, method = check_method(config)
    root = config.bids_dir.resolve()
    index = config.bids_database_dir
    inventory = discover(root, _selection(config), index, config.bids_database_wipe)
    wanted = {*config.modalities, *config.impute}
    targets = resolve_targets(config.target, root, model, wanted)
    check_measured(method, targets)
    for style in targets.styles.values():
        method.check_target(style)
    check_scans(method, [s for s in inventory.scans if s.contrast in targets.contrasts])
    choice = config.site_average if method.uses_site_average else 'off'
    sites = find_site_averages(choice, inventory.scans, targets, root, model)
    given = find_precomputed(config.derivatives, inventory.scans)
    common = config.result_settings() | {
        'model_hash': model_hash,
        'device': device.partition(':')[0],
        'styles': {c: s.to_dict() for c, s in targets.styles.items()},
        'target_scans': {c: [_stamp(s.path) for s in ss] for c, ss in targets.scans.items()},
        'sites': {
            site: {c: p.to_dict() for c, p in found.items()}
            for site, found in sites.profiles.items()
        },
        'site_scans': {
            site: {c: [_stamp(s.path) for s in ss] for c, ss in found.items()}
            for site, found in sites.scans.items()
        },
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
        digest_wanted = None if config.skip_existing else plan.digest
        if not config.overwrite and is_finished(config.output_dir, name, digest_wanted):
            finished.append(name)
        else:
            sessions.append(plan)
    computed, there = tuple(sessions), tuple(finished)
    return Plan(inventory, targets, sites, model, model_hash, device, computed, there)


def _selection(config: RunConfig) -> Selection:
    """What the user wants of the dataset, or of the results."""
    filters = read_filter_file(config.bids_filter_file) if config.bids_filter_file else {}
    return Selection(
        config.participants,
        config.sessions,
        config.modalities,
        filters,
        config.include_contrast_enhanced,
    )


def method_settings(config: RunConfig, plan: Plan) -> MethodSettings:
    """What a node needs to make the method."""
    return MethodSettings(
        name=config.method,
        model=plan.model,
        model_hash=plan.model_hash,
        options=method_options(config),
        device=plan.device,
        threads=max(config.omp_nthreads, min(config.nprocs, 8)),
        seed=config.random_seed,
        falls_back=config.device == 'auto',
    )


def make_workflow(config: RunConfig, plan: Plan, run_name: str):
    """The workflow of a plan, not yet run.

    Parameters
    ----------
    config : RunConfig
    plan : Plan
        With a session at least.
    run_name : str
        Name of the run: of its logs and markers.

    Returns
    -------
    nipype.pipeline.engine.Workflow
    """
    from harmony_app.workflows.harmony import init_harmony_wf

    method = method_settings(config, plan)
    settings: dict = {
        'HarmonizationMethod': config.method,
        'HarmonyAppVersion': __version__,
        'RandomSeed': config.random_seed,
    }
    if plan.model is not None:
        settings |= {'HarmonizationModelSHA256': plan.model_hash, 'Device': plan.device}
    return init_harmony_wf(
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
        sites=plan.sites,
        sloppy=config.keeps_bias,
        super_resolution=config.super_resolution,
        bare={'skip': True, 'force': False}.get(config.skull_strip),
        spaces=config.output_spaces,
    )


def _run_workflow(config: RunConfig, plan: Plan, run_name: str, logs: Path) -> None:
    from nipype import config as nipype_config
    from nipype import logging as nipype_logging

    from harmony_app.workflows.graph import draw_graph
    from harmony_app.workflows.plugin import make_plugin
    from harmony_app.workflows.resources import write_resources
    from harmony_app.workflows.workers import LOGGERS

    workflow = make_workflow(config, plan, run_name)
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
    level = ('CRITICAL', 'INFO', 'DEBUG')[max(min(config.verbose - 1, 2), 0)]
    for name in LOGGERS:
        quiet = nipype_logging.getLogger(name)
        # A crash is told once, by the summary.
        quiet.setLevel(level)
    if config.write_graph:
        draw_graph(workflow, logs)
    progress = _make_progress(config, plan, workflow)
    samples = logs / 'resources' if config.resource_monitor else None
    plugin, plugin_args = make_plugin(
        config.nprocs,
        config.memory_gb,
        config.plugin_file,
        method_settings(config, plan).uses_gpu,
        config.verbose >= NODES,
        progress,
        progress.is_live,
        config.low_mem,
        samples,
        config.step_timeout or None,
    )
    try:
        with progress:
            workflow.run(plugin=plugin, plugin_args=plugin_args)
    except Exception as error:  # noqa: BLE001
        # Nipype raises whatever a node raised after the others have ended. How each scan
        # ended is in the markers; the summary tells it, with the crash files.
        logger.debug('the workflow ended with %r', error)
    if samples is not None:
        _say('\n'.join(write_resources(samples, progress.sessions)))


def _make_progress(config: RunConfig, plan: Plan, workflow) -> Progress:
    """Callback that tells each step, and removes what a written session no longer needs."""
    digests = {session.name: session.digest for session in plan.sessions}
    groups = [*plan.targets.scans.values()]
    groups += [scans for found in plan.sites.scans.values() for scans in found.values()]
    measured = {session_name(scan.subject, scan.session) for scans in groups for scan in scans}
    names = {node_name(f'{name}{part}_wf'): name for name in digests for part in ('', '_prepare')}

    def written(session: str) -> None:
        if config.keep_workdir or session in measured:
            return
        if is_finished(config.output_dir, session, digests[session]):
            remove_session(Path(workflow.base_dir) / workflow.name, session)

    # The lines of Nipype would tear a live display apart, and other plugins tell nothing.
    live = config.verbose < NODES and config.plugin_file is None
    return Progress(workflow.list_node_names(), names, written, live)


def _stamp(path: Path) -> list:
    """What tells whether a file is still the same."""
    status = Path(path).stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def _say(text: str) -> None:
    sys.stdout.write(text + '\n')
    sys.stdout.flush()
