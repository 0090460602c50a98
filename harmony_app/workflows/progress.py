"""What a run tells while it runs, and what it clears away."""

import logging
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from harmony_app.workflows.names import node_name

logger = logging.getLogger('harmony_app')

STEP = re.compile(r'(prepare|finish)_.+|align|harmonize|write|encode_target')
"""Names of the nodes that do work; the others only pass records on."""


class Progress:
    """Nipype's status callback: one line for each step that ends.

    Parameters
    ----------
    steps : int
        Number of nodes that do work.
    sessions : mapping of str to str
        Name of the session by the name of each of its workflows.
    written : callable
        Called with the name of a session that was written.
    """

    def __init__(self, steps: int, sessions: Mapping[str, str], written: Callable[[str], None]):
        self.steps, self.sessions, self.written = steps, sessions, written
        self.ended = 0
        self._started: dict[str, float] = {}

    def __call__(self, node, status: str) -> None:
        """Note that a node starts, ends or fails."""
        *_, workflow, step = node.fullname.split('.')
        if not STEP.fullmatch(step):
            return
        if status == 'start':
            self._started[node.fullname] = time.monotonic()
            return
        self.ended += 1
        session = self.sessions.get(workflow, 'target')
        seconds = time.monotonic() - self._started.get(node.fullname, time.monotonic())
        level, word = (logging.INFO, '') if status == 'end' else (logging.ERROR, ' failed')
        what = step.replace('_', ' ', 1)
        logger.log(
            level, '[%d/%d] %s: %s%s, %.0f s', self.ended, self.steps, session, what, word, seconds
        )
        if step == 'write' and status == 'end':
            self.written(session)


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
