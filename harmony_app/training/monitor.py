"""What a training tells while it runs: a table, curves, a line with the time that is left."""

import csv
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

logger = logging.getLogger('harmony_app')

LOG = 'log.csv'
VALIDATION_LOG = 'validation.csv'
EXAMPLES = 'examples.png'
CURVES = 'tensorboard'

LINE_SECONDS = 15.0
"""Fewest seconds between two lines."""

PARTS = ('data', 'compute', 'rest')
"""Where the time goes: waiting for examples, forward and backward pass, everything else."""


class Stopwatch:
    """Seconds by :data:`PARTS` since the last reading."""

    def __init__(self):
        self._spent = dict.fromkeys(PARTS, 0.0)
        self._now = time.monotonic()

    def lap(self, part: str) -> None:
        """Count the time since the last lap for a part."""
        now = time.monotonic()
        self._spent[part] += now - self._now
        self._now = now

    def read(self) -> dict[str, float]:
        """Seconds by part; they start again at zero."""
        spent, self._spent = self._spent, dict.fromkeys(PARTS, 0.0)
        return spent


class Monitor:
    """Writes ``log.csv``, ``validation.csv``, TensorBoard curves and pictures of one training.

    Parameters
    ----------
    out : Path
        Folder; made where absent.
    terms : sequence of str
        Losses, columns of the log.
    step : int
        Step that a resume starts from; rows after it are dropped.
    examples : int
        Examples of one step.
    """

    def __init__(self, out: Path, terms: Sequence[str], step: int, examples: int):
        self.out = out
        self.examples = examples
        self._told = -LINE_SECONDS
        out.mkdir(parents=True, exist_ok=True)
        speeds = ('examples_per_second', *(f'{part}_share' for part in PARTS))
        self._columns = ('step', 'seconds', 'rate', *terms, *speeds)
        _start_table(out / LOG, self._columns, step)
        self._board = _board(out / CURVES, step)

    def log(
        self,
        step: int,
        seconds: float,
        rate: float,
        means: Mapping[str, float],
        counted: int,
        spent: Mapping[str, float],
        done: float,
    ) -> None:
        """Write a row of the log.

        Parameters
        ----------
        step : int
        seconds, rate : float
            Time so far and learning rate.
        means : mapping of str to float
            Mean of every loss since the last row.
        counted : int
            Steps since the last row, in this run.
        spent : mapping of str to float
            Seconds of these by :data:`PARTS`.
        done : float
            Share of the budget, 0 to 1.
        """
        total = max(sum(spent.values()), 1e-9)
        speed = counted * self.examples / total
        shares = {f'{part}_share': spent[part] / total for part in PARTS}
        values = {'rate': rate, **means, 'examples_per_second': speed, **shares}
        row = {'step': step, 'seconds': f'{seconds:.1f}'} | {
            name: f'{value:.6g}' for name, value in values.items()
        }
        with (self.out / LOG).open('a', newline='') as stream:
            csv.writer(stream).writerow([row[name] for name in self._columns])
        self._curves('training', values, step)
        now = time.monotonic()
        if now - self._told >= LINE_SECONDS:
            self._told = now
            left = seconds * (1 - done) / done if done > 0 else float('inf')
            logger.info(
                'step %d, %.0f %%, loss %.4f, %.1f examples/s (%.0f %% of the time for data), %s left',
                step, 100 * done, means['loss'], speed, 100 * shares['data_share'], duration(left),
            )  # fmt: skip

    def validated(
        self, step: int, seconds: float, metrics: Mapping[str, float], best: bool
    ) -> None:
        """Write a row of the validation."""
        path = self.out / VALIDATION_LOG
        columns = ('step', 'seconds', 'best', *metrics)
        _start_table(path, columns, step - 1)
        row = [step, f'{seconds:.1f}', int(best), *(f'{v:.6g}' for v in metrics.values())]
        with path.open('a', newline='') as stream:
            csv.writer(stream).writerow(row)
        self._curves('validation', metrics, step)
        shown = ', '.join(f'{name} {value:.4g}' for name, value in list(metrics.items())[:8])
        logger.info('step %d, validation: %s%s', step, shown, ' (best so far)' if best else '')

    def show(self, picture: np.ndarray, step: int) -> None:
        """Write a picture (H, W), 0 to 1, of examples."""
        from matplotlib.image import imsave

        imsave(self.out / EXAMPLES, picture, cmap='gray', vmin=0, vmax=1)
        if self._board is not None:
            self._board.add_image('examples', picture, step, dataformats='HW')

    def close(self) -> None:
        """Write the curves out."""
        if self._board is not None:
            self._board.close()

    def _curves(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f'{group}/{name}', value, step)


def duration(seconds: float) -> str:
    """Time in words.

    Examples
    --------
    >>> [duration(s) for s in (40, 600, 9000, float('inf'))]
    ['40 s', '10 min', '2.5 h', 'unknown time']
    """
    if seconds == float('inf'):
        return 'unknown time'
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def _start_table(path: Path, columns: Sequence[str], step: int) -> None:
    """Head of a table; of an old one with the same columns the rows up to a step are kept."""
    kept: list[list[str]] = []
    if step > 0 and path.exists():
        with path.open(newline='') as stream:
            rows = list(csv.reader(stream))
        if rows and rows[0] == list(columns):
            kept = [row for row in rows[1:] if row and row[0].isdigit() and int(row[0]) <= step]
    with path.open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(kept)


def _board(folder: Path, step: int):
    """Writer of TensorBoard, None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info('no TensorBoard curves: pip install harmony-app[training]')
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
