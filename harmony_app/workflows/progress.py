"""What a run tells while it runs, and what it clears away."""

import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from harmony_app.logs import STEP_LEVEL
from harmony_app.workflows.names import node_name
from harmony_app.workflows.pace import Pace, in_words

logger = logging.getLogger('harmony_app')

STEP = re.compile(r'(prepare|finish)_.+|align|harmonize|write|encode_target|average_sites')
"""Names of the nodes that do work; the others only pass records on."""

STAGES = {
    'prepare': 'bias field of',
    'align': 'alignment, template',
    'finish': 'working grid of',
    'harmonize': 'harmonization',
    'write': 'writing',
    'encode': 'style of the target',
    'average': 'averages of sites',
}
"""What each kind of step is to a person; some are followed by the name of the scan."""


class Progress:
    """Nipype's status callback: a live line for each running session, or a line for each step.

    Used as a context: within it a terminal shows for every running session its stage, its
    steps and what is left, and one line for the run. Elsewhere (a file, a batch system, a dumb
    terminal) each step that ends is a line of the log.

    Parameters
    ----------
    steps : iterable of str
        Names of the nodes, with their workflows; those that do no work are passed over.
    sessions : mapping of str to str
        Name of the session by the name of each of its workflows.
    written : callable
        Called with the name of a session that was written.
    live : bool
        Whether a terminal may show live lines, where there is one.
    """

    def __init__(
        self,
        steps: Iterable[str],
        sessions: Mapping[str, str],
        written: Callable[[str], None],
        live: bool = True,
    ):
        self.sessions, self.written = sessions, written
        parts = [name.split('.') for name in steps if STEP.fullmatch(name.split('.')[-1])]
        found = [(self._session(part), part[-1]) for part in parts]
        self.pace = Pace(found)
        self._counts = {session: 0 for session, _ in found}
        for session, _ in found:
            self._counts[session] += 1
        self._begun: dict[str, float] = {}
        self._started = time.monotonic()
        self._display = _make_display(self._lines) if live else None

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal that shows live lines."""
        return self._display is not None

    def __enter__(self) -> 'Progress':
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(self, *_) -> None:
        if self._display is not None:
            self._display.stop()

    def __call__(self, node, status: str) -> None:
        """Note that a node starts, ends or fails."""
        parts = node.fullname.split('.')
        if not STEP.fullmatch(parts[-1]):
            return
        session, step = self._session(parts), parts[-1]
        now = time.monotonic()
        what = step.replace('_', ' ', 1)
        if status == 'start':
            self._begun.setdefault(session, now)
            self.pace.start((session, step), now)
            logger.log(STEP_LEVEL, '%s: %s begins', session, what)
            return
        failed = status != 'end'
        seconds = self.pace.end((session, step), now, failed)
        at = f'[{self.pace.ended}/{self.pace.count}] {session}: {what}'
        if failed:
            logger.error('%s failed, %.0f s', at, seconds)
            return
        # A terminal shows each step as it runs; there only what is finished stays.
        level = logging.INFO if self._display is None else STEP_LEVEL
        logger.log(level, '%s, %.0f s', at, seconds)
        if step == 'write':
            took = in_words(now - self._begun[session])
            left = self.pace.tell(now)
            logger.info('%s: written after %s%s', session, took, f'; {left}' if left else '')
            self.written(session)

    def _session(self, parts: list[str]) -> str:
        return self.sessions.get(parts[-2], 'target') if len(parts) > 1 else 'target'

    def _lines(self) -> list[str]:
        """The live lines of now."""
        now = time.monotonic()
        lines = []
        for session in dict.fromkeys(session for session, _ in list(self.pace.running)):
            stages = [_stage(step) for s, step in list(self.pace.running) if s == session]
            done = self._counts[session] - sum(s == session for s, _ in list(self.pace.open))
            lines.append(
                f'{session}  {", ".join(stages)}  {done}/{self._counts[session]}  '
                f'{_clock(now - self._begun[session])}  {self.pace.tell(now, session)}'.rstrip()
            )
        total = f'{self.pace.ended}/{self.pace.count} steps  {_clock(now - self._started)}'
        return [*lines, f'{total}  {self.pace.tell(now)}'.rstrip()]


def _make_display(lines: Callable[[], list[str]]):
    """Live display on standard error; None where that is no terminal that can show one."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console, Group
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    spinner = Spinner('dots')

    def render() -> Group:
        *running, total = lines()
        frame = spinner.render(console.get_time())
        rows = [
            Text.assemble(frame, ' ', line, overflow='ellipsis', no_wrap=True) for line in running
        ]
        return Group(*rows, Text(total, style='bold', overflow='ellipsis', no_wrap=True))

    return Live(console=console, get_renderable=render, refresh_per_second=4, transient=True)


def _stage(step: str) -> str:
    kind, _, scan = step.partition('_')
    words = STAGES[kind]
    return f'{words} {scan}' if words.endswith(' of') else words


def _clock(seconds: float) -> str:
    """Time that has passed.

    Examples
    --------
    >>> _clock(65), _clock(3700)
    ('1:05', '1:01:40')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'


def remove_session(folder: Path, session: str) -> None:
    """Remove what was computed for a session that is written: half a gigabyte or more.

    Parameters
    ----------
    folder : Path
        Folder of the run's workflow.
    session : str
        Name of the session.
    """
    for name in (f'{session}_prepare_wf', f'{session}_wf'):
        shutil.rmtree(folder / node_name(name), ignore_errors=True)
