"""What a run is going to do, and how it ended, in words and as an exit code."""

from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.atomic import write_table
from harmony_app.bids.discovery import ScanInput
from harmony_app.bids.publish import read_marker
from harmony_app.config import RunConfig
from harmony_app.errors import ExitCode
from harmony_app.workflows.failures import reason_of
from harmony_app.workflows.names import session_name
from harmony_app.workflows.pace import in_words
from harmony_app.workflows.plans import Plan

OUTCOME_COLUMNS = ['scan', 'session', 'status', 'message', 'exit_code', 'crash']
"""Columns of ``outcomes.tsv``: ``status`` is done, failed, skipped, or before (done by an earlier run)."""


def describe_plan(plan: Plan, config: RunConfig) -> list[str]:
    """The plan in words, one line for each scan."""
    used = len(plan.inventory.scans)
    skipped = [row for row in plan.inventory.rows if not row.used]
    lines = [
        f'harmony-app {__version__}: {used} scans in {len(plan.inventory.sessions)} sessions, '
        f'method {config.method} on {plan.device}'
    ]
    lines += [f'  target of {line}' for line in plan.targets.describe()]
    lines += [f'  {line}' for line in plan.sites.describe()]
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
    """How each scan ended, and the exit code that follows from nothing else; writes ``outcomes.tsv``.

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
    outcomes = scan_outcomes(output_dir, plan, run_name, logs)
    write_table(logs / 'outcomes.tsv', OUTCOME_COLUMNS, outcomes)
    states = [(row['scan'], row) for row in outcomes if row['status'] != 'before']
    before = len(outcomes) - len(states)
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


def scan_outcomes(output_dir: Path, plan: Plan, run_name: str, logs: Path) -> list[dict]:
    """How each scan of a run ended, rows of ``outcomes.tsv``; parameters as :func:`summarize`."""
    rows = []
    for session in plan.sessions:
        marker = read_marker(output_dir, session.name)
        scans = marker['scans'] if marker and marker.get('run') == run_name else {}
        crash = '' if scans else _crash_of(session.name, logs)
        reason, code = reason_of(crash)
        crashed = {
            'status': 'failed',
            'message': f'{session.name} stopped; see {crash}{reason}',
            'exit_code': int(code),
        }
        for scan in session.scans:
            state = scans.get(scan.name, crashed)
            rows.append(
                {'scan': scan.name, 'session': session.name}
                | {key: state[key] for key in ('status', 'message', 'exit_code')}
                | {'crash': Path(crash).name if crash and Path(crash).is_file() else ''}
            )
    for (subject, session), scans in plan.inventory.sessions.items():
        name = session_name(subject, session)
        if name in plan.finished:
            told = {'session': name, 'status': 'before', 'message': '', 'exit_code': 0, 'crash': ''}
            rows += [{'scan': scan.name} | told for scan in scans]
    return rows


def _crash_of(session: str, logs: Path) -> str:
    """Newest crash file of a session, else the folder of them."""
    key = session.replace('-', '_')
    crashes = sorted(path for path in logs.glob('crash-*') if key in path.name)
    if not crashes:
        crashes = sorted(
            path for path in logs.glob('crash-*') if f'{key}_' in path.read_text(errors='replace')
        )
    return str(crashes[-1] if crashes else logs)


def _short(scan: ScanInput) -> str:
    parts = [f'{key}-{label}' for key, label in scan.entities if key not in ('sub', 'ses')]
    return '_'.join([*parts, scan.contrast])


def describe_end(output_dir: Path, logs: Path, counts: str, seconds: float) -> list[str]:
    """The end of what a run tells: where everything is, and last how many scans ended how.

    Parameters
    ----------
    output_dir, logs : Path
        Results, and logs of this run.
    counts : str
        Last line of :func:`summarize`.
    seconds : float
        Duration of the run.
    """
    return [
        f'results in {output_dir}',
        f'settings and logs in {logs}',
        f'{counts} in {in_words(seconds)}',
    ]
