"""Processor and memory of each step, sampled while it runs, and tables of them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harmony_app.bids.atomic import write_json, write_table
from harmony_app.workflows import sampler
from harmony_app.workflows.progress import STEP

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
    """Sample this process while the block runs; of one that is killed the samples stay.

    Parameters
    ----------
    folder : Path
        Where the samples go, one file for each name.
    name : str
        Full name of the node.
    period : float
        Seconds between samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f'{name}.txt'
    file.write_text(sampler.sample(os.getpid()), encoding='ascii')
    # Isolated and without site packages: it starts in some hundredths of a second.
    command = [sys.executable, '-I', '-S', sampler.__file__, str(os.getpid())]
    command += [str(file), str(period)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.stdin.close()


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
    seen = [
        (path.stem.split('.'), samples)
        for path in sorted(folder.glob('*.txt'))
        if len(samples := _read(path)) > 1
    ]
    # Nodes that only pass records on are not work.
    seen = [(parts, samples) for parts, samples in seen if STEP.fullmatch(parts[-1])]
    seen.sort(key=lambda item: item[1][0][0])
    if not seen:
        return []
    start = seen[0][1][0][0]
    steps, over_time = [], []
    for (*_, workflow, step), samples in seen:
        common = {'session': sessions.get(workflow, 'target'), 'step': step}
        steps.append(common | _describe(samples, start))
        over_time += [common | row for row in _rows(samples, start)]
    for name, columns, rows in (
        ('resources', STEP_COLUMNS, steps),
        ('resources_over_time', TIME_COLUMNS, over_time),
    ):
        path = folder.parent / f'{name}.tsv'
        write_table(path, list(columns), rows)
        write_json(path.with_suffix('.json'), {k: {'Description': v} for k, v in columns.items()})
    shutil.rmtree(folder, ignore_errors=True)
    return _summary(steps)


def _read(path: Path) -> list[tuple[float, ...]]:
    """Time, processor seconds and memory of each sample; half a line at the end is left out."""
    lines = path.read_text(encoding='ascii').splitlines()
    rows = [tuple(map(float, line.split())) for line in lines]
    return [row for row in rows if len(row) == 3]


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
    return [
        *lines,
        f'{total:.0f} seconds of processors in {len(steps)} step{"s" * (len(steps) > 1)}',
    ]
