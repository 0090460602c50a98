"""Travelling phantoms under every method side by side: all tables by which methods are compared.

``python -m benchmarks.travelling OUT`` scans people that no training has seen at several
sites, preprocesses them by the participant level's own steps and harmonizes each scan with the
style of *other* people's scans: all of them (as ``--target site:NAME`` does), or one
(``--one-person``). It does so twice:

- to the next site, where the result is compared with the noise-free scan by the target's
  protocol on the source's own grid, inside the true brain. The ceiling is the person's own scan
  at the target against its own truth; the limit is the truth with the source's own noise;
- to the reference site, where the volumes of tissues, a segmentation network that knows this
  site only, a classifier of sites and the tissues themselves tell what is left of the sites.

Tables go to OUT as TSV, each with its data dictionary, and to ``OUT/report.md``. Interrupted, it
goes on where it was; the same seed gives the same tables, but for ``cost.tsv``.
"""

import argparse
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks import columns, gathering, report, sites
from benchmarks.compared import METHODS, find_models, ready_methods, weights_of
from benchmarks.costs import method_cost
from benchmarks.parts import code_checksum, open_parts, run_parts
from benchmarks.pictures import draw_contrast
from benchmarks.preprocessed import Preprocessed
from benchmarks.sessions import Setup, arrays_path, measure_session, train
from benchmarks.study import Study
from harmony_app.bids.atomic import write_text
from harmony_app.bids.filters import Selection
from harmony_app.bids.locks import only_one
from harmony_app.errors import OptionError
from harmony_app.evaluation.segmentation_network import STEPS
from harmony_app.methods.base import CONTRASTS
from harmony_app.training.script import run_script
from harmony_app.workflows.records import Record

logger = logging.getLogger(__name__)

SHOWN = 6
"""Sessions of a picture."""

PERMUTATIONS, QUICK_PERMUTATIONS, QUICK_STEPS = 99, 19, 150


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    print(compare(options))


def compare(options: argparse.Namespace) -> str:
    """Run the study; the text of the report.

    Raises
    ------
    BusyError
        Where another process works in the same folder.
    OptionError
        Where a method, contrast or site is not known.
    """
    unknown = sorted(set(options.methods) - set(METHODS))
    if unknown:
        raise OptionError(f'unknown method {", ".join(unknown)}: choose of {", ".join(METHODS)}')
    if strange := sorted(set(options.segment) - set(CONTRASTS)):
        raise OptionError(f'--segment {", ".join(strange)}: choose of {", ".join(CONTRASTS)}')
    options.out.mkdir(parents=True, exist_ok=True)
    busy = f'another benchmark works in {options.out}: wait for its end, or name another folder'
    with only_one(options.out / 'running.lock', busy):
        return _compare(options)


def _compare(options: argparse.Namespace) -> str:
    study, out, models = _study(options), options.out, find_models(options.model)
    bids = options.bids or study.make(out)
    data = Preprocessed(
        bids, out / 'cache', Selection(modalities=list(study.contrasts)), workers=options.workers
    )
    setup = Setup(
        bids=Path(bids).resolve(),
        cache=(out / 'cache').resolve(),
        parts=(out / 'parts').resolve(),
        contrasts=study.contrasts,
        methods=tuple(options.methods),
        models=tuple(models.items()),
        pairs=study.pairs,
        one_person=options.one_person,
        reference=_reference(data, study, bool(options.bids)),
        segmented=_segmented(study, options),
        steps=QUICK_STEPS if options.quick else STEPS,
        seed=study.seed,
        shown=SHOWN,
        pairs_only=options.pairs_only,
    )
    permutations = options.permutations
    if permutations is None:
        permutations = QUICK_PERMUTATIONS if options.quick else PERMUTATIONS
    weights = weights_of(models)
    open_parts(setup.parts, _stamp(setup, data, weights, permutations))
    alone = options.workers if options.quick else min(options.workers, 1)
    return _tables(out, setup, data, permutations, options.workers, alone)


def _tables(
    out: Path,
    setup: Setup,
    data: Preprocessed,
    permutations: int,
    workers: int,
    cost_workers: int,
) -> str:
    """Measure all units, write all tables, and give the report."""

    def run(kind, units, work) -> Iterator[dict]:
        return run_parts(setup.parts, kind, units, work, workers)

    people = sorted({source.subject for source in data.inputs})
    units = sorted({(source.subject, source.session) for source in data.inputs})
    networks = [(contrast, subject) for contrast in setup.segmented for subject in people]
    list(run('network', networks, partial(train, setup)))
    parts = list(run('session', units, partial(measure_session, setup)))
    arrays = [(unit, _arrays(arrays_path(setup.parts, unit))) for unit in units]
    notes = [note for part in parts for note in part['notes']]

    scans = gathering.scan_rows(parts, setup.contrasts)
    quantiles = {
        (*key.split('/')[1:], *unit): data
        for unit, found in arrays
        for key, data in found.items()
        if key.startswith('quantiles/')
    }
    at_site = gathering.site_rows(scans, setup.methods, setup.reference)
    at_site += gathering.distance_rows(quantiles, setup.methods, setup.reference)
    pairs = columns.write_rows(
        out / 'rows.tsv', columns.ROWS, gathering.pair_rows(parts, setup.contrasts)
    )
    at_site = columns.write_rows(out / 'site_rows.tsv', columns.ROWS, at_site)
    measured = columns.write_rows(
        out / 'scans.tsv', columns.SCANS, [scan | scan['values'] for scan in scans]
    )
    names = list(dict.fromkeys(name for scan in scans for name in scan['features']))
    features = columns.write_rows(
        out / 'features.tsv',
        columns.features_columns(names),
        [scan | scan['features'] for scan in scans],
    )

    table = pd.concat(
        [
            report.answer(pairs, report.PAIRS, setup.seed),
            report.answer(at_site, report.SITE, setup.seed),
        ]
    )
    volumes = sites.volume_table(measured, notes)
    told = _classified(out, run, features, permutations, setup.seed, notes)
    # one at a time but in a quick look: what runs beside a method slows it
    priced = [] if setup.pairs_only else [(m, setup.contrasts[0]) for m in setup.methods]
    costs = list(run_parts(setup.parts, 'cost', priced, partial(method_cost, setup), cost_workers))
    notes += [cost['note'] for cost in costs if 'note' in cost]
    notes = list(dict.fromkeys(notes))
    found = {
        'table': (columns.SUMMARY, table.to_dict('records')),
        'volumes': (columns.VOLUMES, volumes.to_dict('records')),
        'sites': (columns.SITES, told),
        'cost': (columns.COSTS, [cost['row'] for cost in costs if 'row' in cost]),
        'notes': ({'note': 'What was left out, and why'}, [{'note': note} for note in notes]),
    }
    written = {
        name: columns.write_rows(out / f'{name}.tsv', dictionary, rows)
        for name, (dictionary, rows) in found.items()
    }
    for contrast in setup.contrasts:
        draw_contrast(out / f'{contrast}.png', arrays, contrast, setup.methods, SHOWN)
    text = report.write_page(
        _intro(setup, data, permutations, cost_workers),
        written['table'],
        written['volumes'],
        written['sites'],
        written['cost'],
        notes,
    )
    write_text(out / 'report.md', text)
    return text


def _classified(out, run, features, permutations, seed, notes) -> list[dict]:
    """Rows of the site classification; methods whose features are equal are told once."""
    jobs = sites.site_jobs(features)
    work = partial(classify_file, out / 'features.tsv', permutations, seed)
    answers = dict(zip(jobs, run('sites', jobs, work), strict=True))
    notes += [found['note'] for found in answers.values() if 'note' in found]
    rows = []
    for contrast, kind in dict.fromkeys((contrast, kind) for contrast, kind, _ in jobs):
        for method, first in sites.same_features(features, contrast, kind).items():
            if 'row' in answers[contrast, kind, first]:
                rows.append(answers[contrast, kind, first]['row'] | {'method': method})
    return rows


def classify_file(path: Path, permutations: int, seed: int, job: tuple[str, str, str]) -> dict:
    """One classification, from the file of the features."""
    return sites.classify(columns.read_rows(path), job, permutations, seed)


def _intro(setup: Setup, data: Preprocessed, permutations: int, cost_workers: int) -> list[str]:
    people = len({source.subject for source in data.inputs})
    sessions = sorted({source.session for source in data.inputs})
    style = "one other person's scan" if setup.one_person else "all other people's scans"
    segmented = ', '.join(setup.segmented) or 'no contrast'
    return [
        f'{people} people at {", ".join(sessions)}; {", ".join(setup.contrasts)}; the style is '
        f'that of {style} at the target. Seed {setup.seed}.',
        "before: the scan as preprocessed; after: harmonized; ceiling: the person's own scan at "
        "the target; limit: the truth at the target with the source's noise; no gap: the ceiling "
        'is no better than before. Intervals are 95 % bootstrap intervals of the mean change '
        "for the better; p is Wilcoxon's, corrected by "
        'Holm over the tests of the table. Pairs of one person are not independent, so that p '
        'and the intervals are narrower than new people would make them.',
        'Only the first part was measured.'
        if setup.pairs_only
        else f'Reference site of the second part: {setup.reference}. Tissues of {segmented} are '
        f'segmented; networks are trained for {setup.steps} steps; sites are shuffled '
        f'{permutations} times; costs are measured {max(1, cost_workers)} at a time.',
    ]


def _stamp(setup: Setup, data: Preprocessed, weights: dict, permutations: int) -> dict:
    """All that the parts depend on, but for where they lie."""
    told = {k: v for k, v in vars(setup).items() if k not in ('bids', 'cache', 'parts', 'models')}
    described = (setup.bids / 'dataset_description.json').read_text(encoding='utf-8')
    scans = {scan.name: data.facts(scan) for scan in data.inputs}
    return told | {
        'weights': weights,
        'permutations': permutations,
        'dataset': described,
        'scans': scans,
        'code': code_checksum(),
    }


def _reference(data: Preprocessed, study: Study, foreign: bool) -> str:
    """Session of the reference site; the first of a dataset that is not of this study."""
    sessions = sorted({source.session for source in data.inputs})
    if len({source.subject for source in data.inputs}) < 2 or len(sessions) < 2:
        raise OptionError('two people at two sites at least can be used in a study')
    if study.reference_session in sessions:
        return study.reference_session
    if foreign and study.reference is None:
        return sessions[0]
    raise OptionError(f'nobody was scanned at the reference site {study.reference_session}')


def _segmented(study: Study, options: argparse.Namespace) -> tuple[str, ...]:
    if options.pairs_only:
        return ()
    return tuple(c for c in study.contrasts if c in options.segment)


def _arrays(path: Path) -> dict:
    record = Record(path)
    return {name: record.array(name) for name in record.facts['arrays']}


def _study(options: argparse.Namespace) -> Study:
    study = Study.read(options.config) if options.config else Study()
    if options.label_maps:
        study = replace(study, label_maps=str(options.label_maps.resolve()))
    if options.contrasts:
        study = replace(study, contrasts=tuple(options.contrasts))
    return study.quick() if options.quick else study


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder of dataset, cache, tables and pictures')
    parser.add_argument('--config', type=Path, help='YAML of the study (see benchmarks/study.yaml)')
    parser.add_argument('--bids', type=Path, help='dataset of harmony-phantom to take instead')
    parser.add_argument('--label-maps', type=Path, help='folder of whole-head label maps')
    parser.add_argument('--contrasts', nargs='+', help='instead of those of the study')
    parser.add_argument('--methods', nargs='+', default=list(ready_methods()), metavar='METHOD')
    parser.add_argument(
        '--model', type=Path, action='append', default=[], help='model folder of a trained method'
    )
    parser.add_argument('--one-person', action='store_true', help="a style is one other's scan")
    parser.add_argument(
        '--segment',
        nargs='*',
        default=['T1w'],
        metavar='CONTRAST',
        help='contrasts whose tissues are segmented (T1w)',
    )
    parser.add_argument(
        '--permutations',
        type=int,
        metavar='N',
        help=f'shuffles of the sites for a p-value ({PERMUTATIONS})',
    )
    parser.add_argument(
        '--pairs-only',
        action='store_true',
        help='neither the tables of all scans at one site nor the costs, which take the longest',
    )
    parser.add_argument('--quick', action='store_true', help='two people, two sites, one contrast')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
    return parser


if __name__ == '__main__':
    run_script(main)
