"""Columns of the tables of the benchmark, and the files they go to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from harmony_app.bids.atomic import write_json, write_table
from harmony_app.imaging.profile import TISSUES

_WHAT = {
    'contrast': 'Contrast of the scan',
    'grid': 'native, the grid of the scan, or mni, the working grid',
    'method': 'Method; none leaves the scan as it is',
    'metric': 'What is measured',
}
_FOUR = {
    'before': 'The scan as preprocessed',
    'after': 'The scan harmonized',
    'ceiling': "The person's own scan at the target, judged in the same way",
    'limit': "The truth at the target with the source's noise: a perfect change of contrast",
}

ROWS = {
    **_WHAT,
    'subject': 'Person',
    'source': 'Session of the scan; all where sites are compared with each other',
    'target': 'Session of the site that it is brought to',
    **_FOUR,
}
"""Columns of ``rows.tsv`` and ``site_rows.tsv``."""

SUMMARY = {
    'question': 'Table of the report that the row belongs to; p values are corrected within it',
    **_WHAT,
    **{name: f'{text}; mean' for name, text in _FOUR.items()},
    'gap_closed': 'Share of the way from before to the ceiling; below 0 is farther away, n/a where '
    'the ceiling is no better than before',
    'low': 'Lower end of the 95 % bootstrap interval of the mean change for the better',
    'high': 'Its upper end',
    'p': "Wilcoxon's signed-rank test of before and after, two-sided",
    'p_holm': 'p corrected by Holm for the tests of the table',
    'pairs': 'Number of pairs, or of people',
    'better': 'Share of them that became better',
}
"""Columns of ``table.tsv``."""

VOLUMES = {
    'contrast': 'Contrast of the scan',
    'method': 'before, a method, combat (volumes before, after ComBat) or truth',
    'tissue': 'GM, WM or CSF',
    'ml': 'Mean volume, ml',
    'bias': 'Mean absolute difference between two sites, ml, mean over pairs of sites',
    'rmsd': 'Root of the mean squared difference between two sites, ml, mean over pairs of sites',
    'cv': 'Coefficient of variation over the sites of a person, percent, mean over people',
    'icc': 'Intraclass correlation of the percentage of the brain over the sessions of a person',
    'residual_variance': 'Variance between the sessions of a person, squared percent of the brain',
}
"""Columns of ``volumes.tsv``."""

SITES = {
    'contrast': 'Contrast of the scan',
    'features': 'radiomic, or theta of the packaged HACA3',
    'method': 'before, or a method that brought all scans to the reference site',
    'sites': 'Number of sites',
    'people': 'Number of people',
    'scans': 'Number of scans',
    'balanced_accuracy': 'Recall averaged over the sites, of people not trained on',
    'auc': 'Area under the ROC curve, averaged over the sites',
    'f1': 'F1 averaged over the sites',
    'chance': 'Balanced accuracy of guessing',
    'p': 'Share of shuffled sites that are told as well',
}
"""Columns of ``sites.tsv``."""

COSTS = {
    'contrast': 'Contrast of the scan',
    'method': 'Method',
    'parameters': 'Weights of its networks',
    'gflops': 'Floating point operations of its networks, 1e9',
    'wall_s': 'Time that passed, s',
    'cpu_s': 'Time of the processor, s',
    'memory_gb': 'Memory that the call adds to a process that holds scans and method, GB, at most',
    'process_gb': 'Memory of that process, GB, at most',
}
"""Columns of ``cost.tsv``."""

_SCAN = {
    'contrast': 'Contrast of the scan',
    'method': 'before, or the method that brought it to the reference site',
    'subject': 'Person',
    'session': 'Session of the scan',
}
_MEASURES = {
    'ml': 'Volume of {} by Atropos, ml',
    'true_ml': 'True volume of {}, ml',
    'dice': 'Dice of {} by Atropos and the truth',
    'jaccard': 'Jaccard index of {} by Atropos and the truth',
    'volume_error': 'Difference of the volume of {} from the truth without its sign, percent',
    'network_dice': 'Dice of {} by a network that knows the reference site only, and the truth',
}

SCANS = _SCAN | {
    f'{name}_{tissue}': text.format(tissue)
    for name, text in _MEASURES.items()
    for tissue in TISSUES
}
"""Columns of ``scans.tsv``."""


def features_columns(names: Sequence[str]) -> dict[str, str]:
    """Columns of ``features.tsv``."""
    return _SCAN | {
        name: f'Contrast representation of the packaged HACA3, number {name[6:]}'
        if name.startswith('theta_')
        else 'Radiomic feature: region, family and name'
        for name in names
    }


def write_rows(path: Path, columns: Mapping[str, str], rows: Sequence[Mapping]) -> pd.DataFrame:
    """Write a table with its data dictionary beside it, and give it as it is read back."""
    write_table(path, list(columns), [{k: row.get(k) for k in columns} for row in rows])
    write_json(path.with_suffix('.json'), {k: {'Description': v} for k, v in columns.items()})
    return read_rows(path)


def read_rows(path: Path) -> pd.DataFrame:
    """Read a table; labels stay text."""
    labels = dict.fromkeys(('subject', 'session', 'source', 'target'), str)
    return pd.read_csv(path, sep='\t', na_values=['n/a'], keep_default_na=False, dtype=labels)
