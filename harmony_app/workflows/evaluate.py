"""The evaluation of a study: what harmonization did to all of its scans, in tables and a page."""

import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from harmony_app.bids.atomic import write_text
from harmony_app.config import RunConfig
from harmony_app.errors import HarmonyError, ScanError
from harmony_app.methods.base import CONTRASTS
from harmony_app.workflows import evaluation_measures, evaluation_study, evaluation_volumes
from harmony_app.workflows.evaluation_inputs import (
    ResultScan,
    ScanPair,
    find_pairs,
    result_scans,
    session_ages,
    travelling_subjects,
)
from harmony_app.workflows.evaluation_matched import matched_rows
from harmony_app.workflows.evaluation_measures import (
    PAIR_METRICS,
    STAGES,
    Measured,
    PairMeasures,
    ScanMeasures,
)
from harmony_app.workflows.evaluation_tables import TABLES, table_path, write_tables
from harmony_app.workflows.lesions import find_lesions

logger = logging.getLogger('harmony_app')

PROCESS_GB = 2.0
"""Memory in GB that one process takes at most for a scan or a pair on the template's grid."""

_FROM_QUALITY = ('registration_quality', 'edge_agreement', 'artifact_level') + tuple(
    f'{measure}_{stage}' for measure in ('distance', 'level_distance') for stage in STAGES
)
_TOLD = {
    'level_distance': 'distance of the tissue levels to the target',
    'gm_site_distance': 'distance of GM intensities to other sites',
    'ssim': 'SSIM of one person at two sites',
    'gm_volume_variation': 'spread of GM volumes over the sites, in percent,',
}
"""Measures that are told in words, in the terminal and at the top of the page."""

_Item, _Result = TypeVar('_Item'), TypeVar('_Result')


def evaluate(config: RunConfig, selected: Sequence[Mapping[str, str]]) -> list[str]:
    """Evaluate results of the participant level.

    Writes ``group_evaluation_*.tsv``, each with its data dictionary, and ``group.html``. What
    the study does not allow (one site, too few people) is left out and told.

    Parameters
    ----------
    config : RunConfig
        Input, results, derivatives, seed, processes and memory are used.
    selected : sequence of mapping
        Rows of the quality tables of the scans to evaluate.

    Returns
    -------
    list of str
        What was found, left out and written, in words.

    Raises
    ------
    ScanError
        Where not one scan can be measured.
    HarmonyError
        Where a process was ended from outside.
    """
    from harmony_app.workflows.evaluation_report import evaluation_page
    from harmony_app.workflows.evaluation_theta import theta_walks

    # Libraries take no other seeds than those of 32 bits.
    root, seed = config.output_dir, config.random_seed % 2**32
    scans = find_lesions(result_scans(root, selected), [root, *config.derivatives.values()])
    travelling = travelling_subjects(scans, config.bids_dir)
    pairs = find_pairs(scans, travelling)
    workers = _workers(config)
    found = _each(partial(evaluation_measures.measure_scan, root), scans, workers, 'scan')
    if not any(measures.intensities or measures.values for measures in found):
        reason = next((note for measures in found for note in measures.notes), 'no reason is known')
        raise ScanError(f'none of {len(scans)} scans could be measured; the first: {reason}')
    compared = _each(
        partial(evaluation_measures.measure_pair, root, seed=seed), pairs, workers, 'pair'
    )

    notes = _study_notes(scans, travelling, pairs)
    notes += [note for measures in (*found, *compared) for note in measures.notes]
    measured = _scan_rows(scans, found, travelling)
    pair_rows = _pair_rows(pairs, compared)
    tables: dict[str, list[dict]] = {
        'scans': [dict(one.row) for one in measured],
        'pairs': [row for _, row in pair_rows],
    }
    for name, (rows, left_out) in {
        'statistics': evaluation_study.paired_statistics(measured, pair_rows, travelling, seed),
        'volumes': evaluation_volumes.volume_rows(
            measured, travelling, session_ages(scans, config.bids_dir)
        ),
        'sites': evaluation_study.site_rows(measured, seed),
        'embedding': evaluation_study.embedding_rows(measured, seed),
    }.items():
        tables[name] = rows
        notes += left_out
    tables['matched'] = matched_rows(tables['pairs'], tables['scans'], tables['volumes'])
    walks, left_out = theta_walks(config, scans)
    notes = merge_notes([*notes, *left_out])
    intensities = [measures.intensities for measures in found]
    written = write_tables(root, tables)
    results = _results(tables)
    page = evaluation_page(
        root, scans, travelling, tables, intensities, results, notes, seed, walks
    )
    written.append(write_text(root / 'group.html', page))
    lines = [
        f'{_count(len(scans), "scan")} of {_count(len({s.subject for s in scans}), "participant")} '
        f'evaluated, {len(travelling)} travelling, {_count(len(pairs), "pair")} of scans'
    ]
    lines += results
    lines += [f'note: {note}' for note in notes]
    return [*lines, f'written: {", ".join(path.name for path in written)}']


def evaluation_files() -> list[str]:
    """Names of what the evaluation writes at most; a table without rows is not written."""
    return ['group.html', *(table_path(Path(), name).name for name in TABLES)]


def merge_notes(notes: Sequence[str]) -> list[str]:
    """Notes that say the same of several contrasts in one, each once.

    Examples
    --------
    >>> merge_notes(['T1w: too few', 'no pairs', 'T2w: too few', 'no pairs'])
    ['T1w, T2w: too few', 'no pairs']
    """
    found: dict[str, list[str]] = {}
    for note in notes:
        contrast, _, text = note.partition(': ')
        if contrast not in CONTRASTS:
            contrast, text = '', note
        contrasts = found.setdefault(text, [])
        if contrast and contrast not in contrasts:
            contrasts.append(contrast)
    return [f'{", ".join(c)}: {text}' if c else text for text, c in found.items()]


def _scan_rows(
    scans: Sequence[ResultScan], found: Sequence[ScanMeasures], travelling: set[str]
) -> list[Measured]:
    """Rows of the table of scans."""
    rows = []
    distances = {
        stage: evaluation_measures.site_distances(scans, [m.intensities for m in found], stage)
        for stage in STAGES
    }
    for index, (scan, measures) in enumerate(zip(scans, found, strict=True)):
        row: dict = {
            'scan': scan.name,
            'subject': scan.subject,
            'session': scan.session,
            'contrast': scan.contrast,
            'site': scan.site,
            'travelling': 'yes' if scan.subject in travelling else 'no',
            'method': scan.quality.get('method'),
            'target': scan.quality.get('target'),
        }
        for column in _FROM_QUALITY:
            if column in scan.quality:
                row[column] = float(scan.quality[column])
        if 'artifact_flag' in scan.quality:
            row['artifact_flag'] = scan.quality['artifact_flag']
        row |= measures.values
        for stage in STAGES:
            for key, value in distances[stage][index].items():
                if key == 'reference':
                    row[key] = value
                else:
                    row[f'{key.lower()}_site_distance_{stage}'] = value
        rows.append(Measured(scan, row, measures.volumes, measures.features))
    return rows


def _pair_rows(
    pairs: Sequence[ScanPair], compared: Sequence[PairMeasures]
) -> list[tuple[ScanPair, dict]]:
    """Rows of the table of pairs, with the ceiling that rescans give."""
    from harmony_app.evaluation.travelling import gap_closed

    rows = []
    for pair, measures in zip(pairs, compared, strict=True):
        row = {
            'subject': pair.first.subject,
            'contrast': pair.first.contrast,
            'scan': pair.first.name,
            'other_scan': pair.second.name,
            'site': pair.first.site,
            'other_site': pair.second.site,
            'kind': 'rescan' if pair.rescan else 'sites',
            **measures.values,
        }
        rows.append((pair, row))
    for pair, row in rows:
        if pair.rescan:
            continue
        again = [r for p, r in rows if p.rescan and r['contrast'] == row['contrast']]
        again = [r for r in again if r['subject'] == row['subject']] or again
        for metric in PAIR_METRICS:
            values = [r[f'{metric}_before'] for r in again if f'{metric}_before' in r]
            if not values:
                continue
            ceiling = row[f'{metric}_ceiling'] = statistics.fmean(values)
            if f'{metric}_before' in row and f'{metric}_after' in row:
                share = gap_closed(row[f'{metric}_before'], row[f'{metric}_after'], ceiling)
                if math.isfinite(share):
                    row[f'{metric}_gap_closed'] = share
    return rows


def _study_notes(
    scans: Sequence[ResultScan], travelling: set[str], pairs: Sequence[ScanPair]
) -> list[str]:
    """What the study lacks as a whole."""
    notes = []
    unknown = [scan.name for scan in scans if scan.site is None]
    if unknown:
        notes.append(
            f'the site of {len(unknown)} of {len(scans)} scans is not known ({_some(unknown)}): '
            'compared with no other site; add a site column to participants.tsv or sessions.tsv'
        )
    for contrast in dict.fromkeys(scan.contrast for scan in scans):
        own = [scan for scan in scans if scan.contrast == contrast]
        for kind in ('method', 'target'):
            named = sorted({scan.quality[kind] for scan in own if kind in scan.quality})
            if len(named) > 1:
                notes.append(
                    f'{contrast}: the results are of {len(named)} {kind}s ({_some(named)}): after '
                    'mixes them; harmonize all with one, or choose among them with '
                    '--participant-label and --session-label'
                )
    sites = {scan.site for scan in scans} - {None}
    if len(sites) < 2:
        notes.append(f'no distances between sites: two are needed, {len(sites)} is known')
    if not travelling:
        notes.append(
            'no pairs: nobody was scanned at two sites, and participants.tsv names no '
            'traveling_subject'
        )
    elif not any(not pair.rescan for pair in pairs):
        notes.append('no pairs between sites: no travelling subject has one contrast at two sites')
    elif not any(pair.rescan for pair in pairs):
        notes.append('no ceiling: no travelling subject was scanned twice at one site')
    return notes


def _results(tables: dict[str, list[dict]]) -> list[str]:
    """The main figures in words."""
    lines = [
        f'{row["contrast"]}: {_TOLD[row["measure"]]} {row["mean_before"]:.3g} before, '
        f'{row["mean_after"]:.3g} after ({row["better"]} is better, '
        f'{_count(row["subjects"], "person", "people")})'
        for row in tables['statistics']
        if row['measure'] in _TOLD
    ]
    for contrast in dict.fromkeys(row['contrast'] for row in tables['sites']):
        told = {
            row['stage']: row
            for row in tables['sites']
            if row['contrast'] == contrast and row['classifier'] == 'svm'
        }
        if set(told) == set(STAGES):
            before, after = (told[stage]['balanced_accuracy'] for stage in STAGES)
            areas = [told[stage]['auc'] for stage in STAGES]
            lines.append(
                f'{contrast}: site told with a balanced accuracy of {before:.2f} before, '
                f'{after:.2f} after (chance {told["after"]["chance"]:.2f})'
                # scores may still order sites that labels mix up
                + (
                    ', AUC {:.2f} and {:.2f} (chance 0.50)'.format(*areas)
                    if None not in areas
                    else ''
                )
            )
    return lines


def _workers(config: RunConfig) -> int:
    """Processes that the settings and the memory allow."""
    if config.memory_gb is None:
        return max(1, config.nprocs)
    return max(1, min(config.nprocs, int(config.memory_gb / PROCESS_GB)))


def _each(
    measure: Callable[[_Item], _Result], items: Sequence[_Item], workers: int, kind: str
) -> list[_Result]:
    """Measure all items, in their order whatever the number of processes."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    results: list[_Result] = []

    def collect(measures):
        for number, result in enumerate(measures, 1):
            logger.info('[%d/%d] %s evaluated', number, len(items), kind)
            results.append(result)

    workers = min(workers, len(items))
    if workers <= 1:
        collect(map(measure, items))
        return results
    try:
        # A forked process would inherit threads of the libraries in an unknown state.
        with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
            collect(pool.map(measure, items))
    except BrokenProcessPool as error:
        raise HarmonyError(
            f'a process that evaluated a {kind} was ended from outside, perhaps for its memory; '
            'give --nprocs 1 or a smaller --mem'
        ) from error
    return results


def _count(number: int, one: str, several: str = '') -> str:
    """A number and what it counts.

    Examples
    --------
    >>> _count(1, 'scan'), _count(2, 'scan'), _count(2, 'person', 'people')
    ('1 scan', '2 scans', '2 people')
    """
    return f'{number} {one if number == 1 else several or one + "s"}'


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (' ...' if len(names) > 3 else '')
