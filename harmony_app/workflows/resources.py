"""Processor and memory of each step, sampled while it runs, and tables of them."""

import json
import logging
import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harmony_app.bids.atomic import write_json, write_table
from harmony_app.workflows.progress import STEP

logger = logging.getLogger('harmony_app')

PERIOD = 0.5
"""Seconds between two samples."""

STEP_COLUMNS = {
    'session': 'Session, or target',
    'step': 'Step of the workflow',
    'start': 'Seconds from the start of the run',
    'seconds': 'Duration',
    'cpu_seconds': 'Seconds of processors, of all threads',
    'processors': 'Processors in use, on average',
    'peak_mb': 'Largest resident memory of the process, with the libraries it holds, MB',
    'added_mb': 'What of that was not there when the step began, MB',
}
"""Columns of ``resources.tsv``."""

TIME_COLUMNS = {
    'session': 'Session, or target',
    'step': 'Step of the workflow',
    'time': 'Seconds from the start of the run',
    'processors': 'Processors in use since the sample before',
    'memory_mb': 'Resident memory of the process, MB',
}
"""Columns of ``resources_over_time.tsv``."""


@contextmanager
def monitor(folder: Path, name: str, period: float = PERIOD) -> Iterator[None]:
    """Sample this process while the block runs, and write what was seen.

    Parameters
    ----------
    folder : Path
        Where the samples go, one file for each name.
    name : str
        Full name of the node.
    period : float
        Seconds between samples.
    """
    samples = [_sample()]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(period):
            samples.append(_sample())

    watcher = threading.Thread(target=watch, name='resources', daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        samples.append(_sample())
        write_json(folder / f'{name}.json', {'name': name, 'samples': samples})


def write_resources(folder: Path, sessions: Mapping[str, str]) -> list[str]:
    """Turn the samples of a run into two tables beside their folder, which is removed.

    Parameters
    ----------
    folder : Path
        Of :func:`monitor`.
    sessions : mapping of str to str
        Name of the session by the name of each of its workflows.

    Returns
    -------
    list of str
        A summary: for each kind of step how often it ran, its time, processors and memory.
    """
    seen = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(folder.glob('*.json'))]
    # Nodes that only pass records on are not work.
    seen = [item for item in seen if STEP.fullmatch(item['name'].split('.')[-1])]
    seen.sort(key=lambda item: item['samples'][0][0])
    if not seen:
        return []
    start = seen[0]['samples'][0][0]
    steps, over_time = [], []
    for item in seen:
        *_, workflow, step = item['name'].split('.')
        common = {'session': sessions.get(workflow, 'target'), 'step': step}
        steps.append(common | _describe(item['samples'], start))
        over_time += [common | row for row in _rows(item['samples'], start)]
    for name, columns, rows in (
        ('resources', STEP_COLUMNS, steps),
        ('resources_over_time', TIME_COLUMNS, over_time),
    ):
        path = folder.parent / f'{name}.tsv'
        write_table(path, list(columns), rows)
        write_json(path.with_suffix('.json'), {k: {'Description': v} for k, v in columns.items()})
    shutil.rmtree(folder, ignore_errors=True)
    return _summary(steps)


def _sample() -> list[float]:
    """Time of day, processor seconds of this process, resident memory in MB."""
    return [round(time.time(), 3), round(time.process_time(), 3), round(_resident_mb(), 1)]


def _resident_mb() -> float:
    try:
        with open('/proc/self/statm', encoding='ascii') as stream:
            pages = int(stream.read().split()[1])
        return pages * os.sysconf('SC_PAGE_SIZE') / 2**20
    except (OSError, ValueError, IndexError):
        # Where there is no /proc: the most that the process ever held.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _describe(samples: Sequence[Sequence[float]], start: float) -> dict:
    (first, cpu, memory), (last, cpu_end, _) = samples[0], samples[-1]
    seconds, used = last - first, cpu_end - cpu
    peak = max(sample[2] for sample in samples)
    return {
        'start': round(first - start, 1),
        'seconds': round(seconds, 1),
        'cpu_seconds': round(used, 1),
        'processors': round(used / seconds, 2) if seconds > 0 else 0.0,
        'peak_mb': round(peak),
        'added_mb': round(peak - memory),
    }


def _rows(samples: Sequence[Sequence[float]], start: float) -> list[dict]:
    rows = []
    for (before, cpu, _), (now, cpu_now, memory) in zip(samples, samples[1:], strict=False):
        passed = now - before
        used = round((cpu_now - cpu) / passed, 2) if passed > 0 else 0.0
        rows.append({'time': round(now - start, 1), 'processors': used, 'memory_mb': memory})
    return rows


def _summary(steps: Sequence[Mapping]) -> list[str]:
    """One line for each kind of step, in the order in which they came first."""
    kinds: dict[str, list[Mapping]] = {}
    for row in steps:
        kinds.setdefault(row['step'].split('_')[0], []).append(row)
    lines = [f'{"step":<12}{"times":>6}{"seconds":>9}{"CPU s":>8}{"processors":>12}{"peak MB":>9}']
    for kind, rows in kinds.items():
        seconds, used = (sum(row[key] for row in rows) for key in ('seconds', 'cpu_seconds'))
        lines.append(
            f'{kind:<12}{len(rows):>6}{seconds / len(rows):>9.1f}{used / len(rows):>8.1f}'
            f'{used / max(seconds, 0.1):>12.2f}{max(row["peak_mb"] for row in rows):>9}'
        )
    total = sum(row['cpu_seconds'] for row in steps)
    return [*lines, f'{total:.0f} seconds of processors in {len(steps)} steps']
