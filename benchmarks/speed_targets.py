"""One target and twenty: a session is preprocessed once, whatever it is brought to."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from benchmarks.speed_preprocessing import load_records, run_ours, session_of, spent_in
from harmony_app.evaluation.cost import measure_cost
from harmony_app.methods.base import Style
from harmony_app.methods.model_folder import read_metadata
from harmony_app.methods.registry import packaged_model
from harmony_app.methods.transfer import Transfer

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
    named = read_metadata(packaged_model('transfer'))['styles']
    styles = [Style.from_dict(fields) for fields in named if fields['contrast'] == 'T1w']
    rows = []
    for count in COUNTS:
        targets = list(islice(cycle(styles), count))
        cost = measure_cost(_harmonize, scans, out / 'records-targets', targets)
        rows.append(
            {
                'who': f'harmony-app, {count} targets',
                **spent_in(cost),
            }
        )
    return rows


def _harmonize(scans: dict, records: Path, targets: Sequence[Style]) -> None:
    run_ours(records, scans)
    (scan,) = load_records(records, ['T1w'])
    method = Transfer.load(packaged_model('transfer'))
    for target in targets:
        method.harmonize([scan], target)
