"""One target and twenty: a session is preprocessed once, whatever it is brought to."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from benchmarks.speed_network import styles_of
from benchmarks.speed_preprocessing import run_ours, session_of
from harmony_app.evaluation.cost import measure_cost
from harmony_app.methods.base import Style
from harmony_app.methods.registry import packaged_model
from harmony_app.methods.transfer import Transfer
from harmony_app.workflows.harmonizing import load_scans

COUNTS = (1, 20)
"""Targets."""


def target_rows(bids: Path, out: Path) -> list[dict]:
    """Preprocessing of a T1w scan and its transfer to one target and to twenty.

    Parameters
    ----------
    bids : Path
        Phantom dataset.
    out : Path
        Gets the records.
    """
    scans = {'T1w': session_of(bids)['T1w']}
    styles = styles_of('transfer', 'T1w')
    rows = []
    for count in COUNTS:
        targets = list(islice(cycle(styles), count))
        cost = measure_cost(_harmonize, scans, out / 'records-targets', targets)
        rows.append(
            {
                'who': f'harmony-app, {count} targets',
                'wall_s': cost.wall_seconds,
                'cpu_s': cost.cpu_seconds,
                'memory_gb': cost.peak_memory / 1e9,
            }
        )
    return rows


def _harmonize(scans: dict, records: Path, targets: Sequence[Style]) -> None:
    run_ours(records, scans)
    (scan,) = load_scans(
        [records / 'T1w_prepared.npz'],
        [records / 'T1w_finished.npz'],
        [records / 'aligned.npz'],
    )
    method = Transfer.load(packaged_model('transfer'))
    for target in targets:
        method.harmonize([scan], target)
