"""What is told while a run goes on: in a terminal, and elsewhere."""

import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harmony_app.workflows.pace import Pace
from harmony_app.workflows.progress import Progress

SESSIONS = {f'sub_0{n}{part}_wf': f'sub-0{n}' for n in (1, 2) for part in ('', '_prepare')}
STEPS = [
    f'sub_0{n}{part}'
    for n in (1, 2)
    for part in (
        '_prepare_wf.prepare_T1w',
        '_prepare_wf.align',
        '_prepare_wf.finish_T1w',
        '_prepare_wf.prepared_scans',
        '_wf.harmonize',
        '_wf.write',
    )
]


def node(name):
    return SimpleNamespace(fullname=f'harmony_wf.{name}')


def test_what_is_left_is_known_from_the_steps_of_this_run_alone():
    pace = Pace([(s, step) for s in 'ab' for step in ('prepare_T1w', 'write')])
    assert pace.left(0.0) == (0.0, False)
    assert pace.tell(0.0) == ''
    pace.start(('a', 'prepare_T1w'), 0.0)
    assert pace.end(('a', 'prepare_T1w'), 100.0) == 100
    # No write has ended yet: what is known is a lower bound.
    assert pace.left(100.0) == (100.0, False)
    assert pace.tell(100.0) == 'more than 2 min left'
    pace.start(('a', 'write'), 100.0)
    pace.end(('a', 'write'), 120.0)
    assert pace.left(120.0) == (120.0, True)
    assert pace.tell(120.0) == 'about 2 min left'
    pace.start(('b', 'prepare_T1w'), 120.0)
    # A step that runs is over in its mean less what has passed; never in less than nothing.
    assert pace.left(170.0)[0] == pytest.approx(70)
    assert pace.left(900.0)[0] == pytest.approx(20)


def test_what_was_found_in_the_scratch_says_nothing_of_the_time():
    pace = Pace([('a', 'align'), ('b', 'align')])
    pace.start(('a', 'align'), 0.0)
    pace.end(('a', 'align'), 0.01)
    assert pace.left(1.0) == (0.0, False)


def test_steps_at_the_same_time_halve_what_is_left():
    pace = Pace([(s, 'align') for s in 'abcd'])
    for s in 'ab':
        pace.start((s, 'align'), 0.0)
    for s in 'ab':
        pace.end((s, 'align'), 10.0)
    assert pace.left(10.0)[0] == pytest.approx(10)
    assert pace.left(10.0, 'c')[0] == pytest.approx(10)


def test_a_failure_ends_the_steps_of_its_session():
    pace = Pace([('a', 'align'), ('a', 'write'), ('b', 'write')])
    pace.start(('a', 'align'), 0.0)
    pace.end(('a', 'align'), 5.0, failed=True)
    assert pace.open == {('b', 'write')}
    assert (pace.ended, pace.count) == (2, 3)


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.DEBUG, 'harmony_app')
    return caplog


def test_a_log_has_a_line_for_each_step_that_ends(told):
    written = []
    progress = Progress(STEPS, SESSIONS, written.append, live=False)
    for name in STEPS[:6]:
        progress(node(name), 'start')
        progress(node(name), 'end')
    lines = [record.getMessage() for record in told.records if record.levelno == logging.INFO]
    assert lines[0] == '[1/10] sub-01: prepare T1w, 0 s'
    assert lines[-2] == '[5/10] sub-01: write, 0 s'
    assert lines[-1].startswith('sub-01: written after 0 s')
    assert len(lines) == 6
    assert written == ['sub-01']
    begins = [r for r in told.records if r.getMessage().endswith('begins')]
    assert len(begins) == 5
    assert all(logging.DEBUG < record.levelno < logging.INFO for record in begins)


def test_a_failed_step_is_an_error(told):
    progress = Progress(STEPS, SESSIONS, lambda _: None, live=False)
    progress(node(STEPS[0]), 'start')
    progress(node(STEPS[0]), 'exception')
    record = told.records[-1]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == '[5/10] sub-01: prepare T1w failed, 0 s'


SCRIPT = """
import time
from types import SimpleNamespace
from harmony_app.logs import set_up_logging
from harmony_app.workflows.progress import Progress

set_up_logging({verbose})
progress = Progress({steps!r}, {sessions!r}, lambda session: None)
with progress:
    for step in {steps!r}:
        node = SimpleNamespace(fullname='harmony_wf.' + step)
        progress(node, 'start')
        time.sleep({sleep} if 'scans' not in step else 0)
        progress(node, 'end')
"""


def run_script(in_terminal, verbose=0, term='xterm-256color', sleep=0.35):
    """What the script tells on standard error, in a pseudo-terminal or in a pipe."""
    code = SCRIPT.format(steps=STEPS, sessions=SESSIONS, verbose=verbose, sleep=sleep)
    root = Path(__file__).parents[2]
    environment = os.environ | {'PYTHONPATH': str(root), 'TERM': term, 'COLUMNS': '100'}
    environment.pop('NO_COLOR', None)
    command = [sys.executable, '-c', code]
    if not in_terminal:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stderr
    master, slave = pty.openpty()
    with subprocess.Popen(command, env=environment, stderr=slave, stdout=slave) as process:
        os.close(slave)
        seen = b''
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break  # the other end is closed
            if not chunk:
                break
            seen += chunk
    os.close(master)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


def test_a_terminal_shows_a_live_line_for_the_running_session():
    seen = run_script(in_terminal=True, sleep=0.7)
    plain = re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', seen)
    assert re.search(r'sub-01  bias field of T1w  0/5  0:00', plain)
    assert re.search(r'sub-02  harmonization  3/5  0:0\d  about \d s left', plain)
    assert re.search(r'\d/10 steps  0:0\d  more than \d s left', plain)
    # Lines are drawn over, the cursor goes up for it and comes back at the end.
    assert '\x1b[1A' in seen
    assert seen.count('\x1b[?25l') == seen.count('\x1b[?25h') == 1
    # What stays: one line for each session, none for each step.
    assert re.search(r'INFO: sub-01: written after \d s', plain)
    assert 'INFO: [1/10]' not in plain


@pytest.mark.parametrize('how', [{'in_terminal': False}, {'in_terminal': True, 'term': 'dumb'}])
def test_elsewhere_there_are_plain_lines_and_no_control_characters(how):
    seen = run_script(**how)
    assert '\x1b' not in seen
    assert 'INFO: [1/10] sub-01: prepare T1w, 0 s' in seen
    assert re.search(r'sub-01: written after \d s; about \d s left', seen)
    assert 'begins' not in seen


def test_more_is_told_with_v():
    assert 'STEP: sub-01: align begins' in run_script(in_terminal=False, verbose=1)
    # Nipype's own lines come with -vv, and a display could not stand among them.
    seen = run_script(in_terminal=False, verbose=2)
    assert '[1/10] sub-01: prepare T1w' in seen
