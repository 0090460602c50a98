"""What all scans of a study say together: volumes between sites, and sites told apart."""

import hashlib

import numpy as np
import pandas as pd

from benchmarks.scoring import attempt
from benchmarks.sessions import BEFORE
from harmony_app.evaluation.combat import fit_combat
from harmony_app.evaluation.reliability import longitudinal_reliability
from harmony_app.evaluation.site_classification import FEWEST_SUBJECTS, classify_sites
from harmony_app.evaluation.volumes import coefficient_of_variation, scanner_differences
from harmony_app.imaging.profile import TISSUES

COMBAT, TRUTH = 'combat', 'truth'
"""Names of the volumes before after ComBat, and of the true ones, among the methods."""

FOLDS = 5
"""Most folds of people that the site classification is tested on."""

KINDS = {'radiomic': 'svm', 'theta': 'linear'}
"""Classifier by the kind of features."""

VOLUMES = [f'ml_{tissue}' for tissue in TISSUES]


def volume_table(scans: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """How much the volumes of tissues depend on the site, for every method.

    Parameters
    ----------
    scans : DataFrame
        Columns ``contrast``, ``method``, ``subject``, ``session``, ``ml_GM`` ..., and for the
        method ``before`` ``true_ml_GM`` ...
    notes : list of str
        Gets a sentence for what the study does not allow.

    Returns
    -------
    DataFrame
        By contrast, method and tissue: ``bias`` and ``rmsd`` (ml, means over pairs of sites),
        ``cv`` (percent, mean over people), ``icc`` and ``residual_variance`` of the percentage
        of the brain.
    """
    rows: list[dict] = []
    for contrast, own in scans.groupby('contrast', sort=False):
        measured = own.dropna(subset=VOLUMES)
        tables = dict(tuple(measured.groupby('method', sort=False)))
        if BEFORE not in tables:
            continue
        combat = attempt(
            notes, f'{contrast}: ComBat of the volumes', lambda t=tables: _combat(t[BEFORE])
        )
        if combat is not None:
            tables[COMBAT] = combat
        tables[TRUTH] = tables[BEFORE].assign(
            **{name: tables[BEFORE][f'true_{name}'] for name in VOLUMES}
        )
        for method, table in tables.items():
            # what is true may not vary at all, which no one needs to be told
            told = [] if method == TRUTH else notes
            rows += _volume_rows(str(contrast), str(method), table, told)
    return pd.DataFrame(rows)


def site_jobs(features: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Classifications to make: contrast, kind of features and method.

    Methods whose features are equal are told apart once; see :func:`same_features`.
    """
    jobs = []
    for contrast, own in features.groupby('contrast', sort=False):
        for kind in KINDS:
            seen = set()
            for method, table in own.groupby('method', sort=False):
                key = _content(table, kind)
                if key not in seen:
                    seen.add(key)
                    jobs.append((str(contrast), kind, str(method)))
    return jobs


def same_features(features: pd.DataFrame, contrast: str, kind: str) -> dict[str, str]:
    """By method the first one whose features are equal to its own."""
    first: dict[str, str] = {}
    found = {}
    for method, table in features[features.contrast == contrast].groupby('method', sort=False):
        found[str(method)] = first.setdefault(_content(table, kind), str(method))
    return found


def classify(
    features: pd.DataFrame, job: tuple[str, str, str], permutations: int, seed: int
) -> dict:
    """How well the site of the scans of one contrast is told under one method.

    Parameters
    ----------
    features : DataFrame
        Columns ``contrast``, ``method``, ``subject``, ``session`` and the features.
    job : tuple of str
        Of :func:`site_jobs`.
    permutations, seed : int
        As of :func:`~harmony_app.evaluation.site_classification.classify_sites`.

    Returns
    -------
    dict
        ``row``, or ``note`` where the study does not allow it.
    """
    contrast, kind, method = job
    own = features[(features.contrast == contrast) & (features.method == method)]
    own = own.dropna(subset=_columns(features, kind))
    people = own.groupby('session').subject.nunique()
    if len(people) < 2 or people.min() < FEWEST_SUBJECTS:
        return {
            'note': f'{contrast}: no site classification: two sites of {FEWEST_SUBJECTS} people or '
            'more are needed'
        }
    notes: list[str] = []
    told = attempt(
        notes,
        f'{contrast} {method}: site classification by {kind} features',
        lambda: classify_sites(
            own[_columns(features, kind)].to_numpy(),
            list(own.session),
            list(own.subject),
            classifier=KINDS[kind],
            folds=min(FOLDS, int(people.min())),
            permutations=permutations,
            seed=seed,
        ),
    )
    if told is None:
        return {'note': notes[0]}
    row = {
        'contrast': contrast,
        'features': kind,
        'method': method,
        'sites': len(told.sites),
        'people': int(own.subject.nunique()),
        'scans': len(own),
        'balanced_accuracy': told.balanced_accuracy,
        'auc': told.auc,
        'f1': told.f1,
        'chance': told.chance,
        'p': told.permutation_p,
    }
    return {'row': row}


def _columns(features: pd.DataFrame, kind: str) -> list[str]:
    named = [c for c in features.columns if c not in ('contrast', 'method', 'subject', 'session')]
    return [c for c in named if c.startswith('theta_') == (kind == 'theta')]


def _content(table: pd.DataFrame, kind: str) -> str:
    chosen = table[['subject', 'session', *_columns(table, kind)]]
    return hashlib.sha256(chosen.to_csv(index=False).encode()).hexdigest()


def _combat(table: pd.DataFrame) -> pd.DataFrame:
    """Volumes without what the sites add."""
    values, sites = table[VOLUMES].to_numpy(), list(table.session)
    cleaned = fit_combat(values, sites).apply(values, sites)
    if cleaned.min() < 0:
        raise ValueError('a volume fell below 0')
    return table.assign(**dict(zip(VOLUMES, cleaned.T, strict=True)))


def _volume_rows(contrast: str, method: str, table: pd.DataFrame, notes: list[str]) -> list[dict]:
    long = table.melt(['subject', 'session'], VOLUMES, 'tissue', 'volume')
    long['tissue'] = long.tissue.str.removeprefix('ml_')
    long = long.rename(columns={'session': 'scanner'})
    sites = long.groupby('subject').scanner.nunique()
    travelled = long[long.subject.isin(sites[sites > 1].index)]
    # The reason is the study's, not the method's: it is told once.
    between = attempt(
        notes, f'{contrast}: volumes between sites', lambda: scanner_differences(long)
    )
    spread = attempt(
        notes,
        f'{contrast}: variation of volumes over sites',
        lambda: coefficient_of_variation(travelled),
    )
    total = table[VOLUMES].sum(axis=1)
    rows = []
    for tissue in TISSUES:
        row: dict = {'contrast': contrast, 'method': method, 'tissue': tissue}
        row['ml'] = float(table[f'ml_{tissue}'].mean())
        if between is not None:
            own = between[between.tissue == tissue]
            row |= {'bias': float(own.bias.mean()), 'rmsd': float(own.rmsd.mean())}
        if spread is not None:
            row['cv'] = float(spread[spread.tissue == tissue].variation.mean())
        shares = (100 * table[f'ml_{tissue}'] / total).to_numpy(np.float64)
        found = attempt(
            notes,
            f'{contrast}: reliability of volumes over sessions',
            lambda s=shares: longitudinal_reliability(s, table.subject.to_numpy()),
        )
        if found is not None:
            row |= {'icc': found.icc, 'residual_variance': found.residual_variance}
        rows.append(row)
    return rows
