"""How long harmony-app takes, and what others would on the same machine and data.

``python -m benchmarks.speed OUT --label-maps HEADS`` simulates a session of four contrasts and
measures, each in processes of its own:

- ``preprocessing``: ours, and ANTs as published pipelines call it, with how accurate both are;
- ``field``: how well a strong bias field is found, by ours and by N4;
- ``network``: HACA3's decoder on one scan and one target, and the same computed as its published
  code does: all slices of three orientations, 56 at a time, nothing left out;
- ``session``: the whole participant level on the session;
- ``targets``: one target, and twenty;
- ``sessions``: memory of the participant level on one session and on several;
- ``planning``: a dataset of 1,000 people on paper: index, plan and graph;
- ``start``: ``--help``.

``--parts`` chooses. Rows go to ``OUT/speed.tsv`` with a data dictionary. Processor seconds depend
less than wall seconds on what else the machine does; measure on an idle one all the same.
"""

import argparse
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.columns import read_rows, write_rows
from benchmarks.speed_network import network_rows
from benchmarks.speed_preprocessing import field_rows, preprocessing_rows
from benchmarks.speed_scale import planning_rows
from benchmarks.speed_targets import target_rows
from benchmarks.tables import to_markdown
from harmony_app.phantom.sites import find_sites, load_sites
from harmony_app.phantom.writer import Settings, write_dataset
from harmony_app.training.script import run_script

logger = logging.getLogger(__name__)

COLUMNS = {
    'part': 'What is measured',
    'who': 'Whose way: harmony-app, or that of others',
    'wall_s': 'Seconds that passed',
    'cpu_s': 'Seconds of the processor, all threads and processes together',
    'memory_gb': 'Largest resident memory of a process',
    'measure': 'What tells how good the result is, where there is one',
    'value': 'Value of that',
}

SEED, SITE = 31, 'siteA'
"""Of the simulated session."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out', type=Path, help='folder of the tables; keeps what was simulated')
    parser.add_argument('--label-maps', type=Path, help='heads; the ICBM head without')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--people', type=int, default=3, help='of the part sessions')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    options.out.mkdir(parents=True, exist_ok=True)
    rows = _kept(options)
    for part in options.parts:
        logger.info('%s', part)
        rows += [{'part': part} | row for row in PARTS[part](options)]
        table = write_rows(options.out / 'speed.tsv', COLUMNS, rows)
    sys.stdout.write(to_markdown(table, 3) + '\n')


def _kept(options: argparse.Namespace) -> list[dict]:
    """Rows of the parts that are not measured now."""
    path = options.out / 'speed.tsv'
    if not path.exists():
        return []
    return [row for row in read_rows(path).to_dict('records') if row['part'] not in options.parts]


def simulated(options: argparse.Namespace, people: int = 1, contrasts: Sequence[str] = ()) -> Path:
    """A dataset with a session of each person, made once."""
    bids = options.out / f'bids-{people}'
    if not (bids / 'participants.tsv').exists():
        more = {'contrasts': tuple(contrasts)} if contrasts else {}
        sites = find_sites([SITE], load_sites())
        settings = Settings(
            people, sites, seed=SEED, label_maps=options.label_maps, truth='own', **more
        )
        write_dataset(bids, settings, logger.info)
    return bids


def run_command(*arguments: str) -> dict:
    """Cost of a command of harmony-app, in a process of its own.

    Raises
    ------
    RuntimeError
        Where it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    # a child of a child: the peak that the system keeps is that of all children so far
    command = [sys.executable, '-c', _MEASURED, sys.executable, '-m', 'harmony_app', *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f'harmony-app {" ".join(arguments)} failed:\n{done.stderr[-2000:]}')
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = int(done.stdout.rsplit('peak ', 1)[1])
    return {'wall_s': wall, 'cpu_s': cpu, 'memory_gb': peak * 1024 / 1e9}


_MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
raise SystemExit(code)
"""


def session_rows(options: argparse.Namespace) -> list[dict]:
    """The participant level on a session of four contrasts, all defaults."""
    return [{'who': 'harmony-app'} | _participants(options, simulated(options), 'transfer')]


def sessions_rows(options: argparse.Namespace) -> list[dict]:
    """The same of T1w scans, of one person and of several: memory is not to grow."""
    rows = []
    for people in (1, options.people):
        bids = simulated(options, people, () if people == 1 else ('T1w',))
        row = _participants(options, bids, 'transfer', '--modalities', 'T1w')
        rows.append({'who': f'harmony-app, {people} sessions'} | row)
    return rows


def _participants(options: argparse.Namespace, bids: Path, method: str, *more: str) -> dict:
    out, work = (options.out / f'{name}-{bids.name}{len(more)}' for name in ('out', 'work'))
    places = [str(bids), str(out), 'participant', '--work-dir', str(work), '--clean-workdir']
    return run_command(*places, '--overwrite', '--method', method, '--nprocs', '2', *more)


def start_rows(options: argparse.Namespace) -> list[dict]:
    """``--help``, the second time: the first reads libraries from the disk."""
    run_command('--help')
    return [{'who': 'harmony-app'} | run_command('--help')]


PARTS: dict[str, Callable[[argparse.Namespace], list[dict]]] = {
    'preprocessing': lambda options: preprocessing_rows(simulated(options), options.out),
    'field': lambda options: field_rows(simulated(options), options.out),
    'network': lambda options: network_rows(simulated(options), options.out),
    'session': session_rows,
    'targets': lambda options: target_rows(simulated(options), options.out),
    'sessions': sessions_rows,
    'planning': lambda options: planning_rows(options.out),
    'start': start_rows,
}
"""What can be measured, by name."""

if __name__ == '__main__':
    run_script(main)
