"""Travelling phantoms under every method side by side: before, after, ceiling, gap closed.

``python -m benchmarks.travelling OUT`` scans people that no training has seen at several
sites, preprocesses them by the participant level's own steps and harmonizes each scan to
another site, with the style measured there on *other* people's scans: all of them (as
``--target site:NAME`` does), or one (``--one-person``). The result is compared with the
noise-free scan by the target's protocol on the source's own grid, inside the true brain,
on the native and on the working grid. The ceiling is the person's own scan at the target
against its own truth. Interrupted, it goes on where it was.
"""

import argparse
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.preprocessed import Preprocessed
from benchmarks.scoring import FALLING, GRIDS, Reference
from benchmarks.study import Study, others_than, session_pairs
from benchmarks.tables import summarize, to_markdown
from harmony_app.bids.filters import Selection
from harmony_app.errors import HarmonyError, OptionError
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Method
from harmony_app.methods.registry import METHOD_NAMES, get_method
from harmony_app.reports.figure import mosaic

logger = logging.getLogger(__name__)

ROWS, TABLE, COST = 'rows.tsv', 'table.tsv', 'cost.tsv'
SHOWN = 6
"""Rows of a picture."""


@dataclass
class Results:
    """What a run gathers: scores, costs and pictures by contrast."""

    rows: list[dict] = field(default_factory=list)
    costs: list[dict] = field(default_factory=list)
    shown: dict[str, list[tuple[str, list[Volume]]]] = field(default_factory=dict)


def make_methods(names: list[str], model: Path | None) -> dict[str, Method]:
    """Methods by name; ``haca3-decoder`` is the plain image of HACA3's decoder."""
    methods = {}
    for name in names:
        method, _, detail = name.partition('-') if name.startswith('haca3') else (name, '', '')
        trained = model if method in ('transfer', 'haca3') else None
        methods[name] = get_method(method, trained, **({'detail': detail} if detail else {}))
    return methods


def compare_contrast(
    data: Preprocessed,
    bids: Path,
    contrast: str,
    methods: dict[str, Method],
    pairs: str,
    one_person: bool,
    results: Results,
) -> None:
    """Score every method on every pair of one contrast."""
    by_key = {(s.subject, s.session): s for s in data.inputs if s.contrast == contrast}
    subjects = sorted({subject for subject, _ in by_key})
    sessions = sorted({session for _, session in by_key})
    styles: dict = {}
    ceilings = {key: _own_score(data, bids, source) for key, source in by_key.items()}
    for subject in subjects:
        others = others_than(subject, subjects, one_person)
        for here, there in session_pairs(sessions, pairs):
            if (subject, here) not in by_key or (subject, there) not in ceilings:
                logger.warning(
                    '%s sub-%s %s to %s: a scan is missing', contrast, subject, here, there
                )
                continue
            source = by_key[subject, here]
            scan = data.load(source)
            reference = Reference(bids, source, scan, there)
            images = {'native': scan.native.data, 'mni': scan.working.data}
            before = {grid: reference.score(images[grid], grid) for grid in GRIDS}
            picture = [scan.working]
            for name, method in methods.items():
                if (name, subject, there) not in styles:
                    shows = [data.load(by_key[o, there]) for o in others if (o, there) in by_key]
                    styles[name, subject, there] = method.encode_target(shows, there)
                wall, cpu = time.perf_counter(), time.process_time()
                (result,) = method.harmonize([scan], styles[name, subject, there])
                results.costs.append(
                    {
                        'contrast': contrast,
                        'method': name,
                        'wall_s': time.perf_counter() - wall,
                        'cpu_s': time.process_time() - cpu,
                    }
                )
                picture.append(result.working)
                for grid, volume in zip(GRIDS, (result.native, result.working), strict=True):
                    for metric, after in reference.score(volume.data, grid).items():
                        results.rows.append(
                            {
                                'contrast': contrast,
                                'grid': grid,
                                'method': name,
                                'metric': metric,
                                'subject': subject,
                                'source': here,
                                'target': there,
                                'before': before[grid][metric],
                                'after': after,
                                'ceiling': ceilings[subject, there][grid][metric],
                            }
                        )
            truth = scan.working.with_data(reference.images['mni'].astype(np.float32))
            results.shown.setdefault(contrast, []).append((f'{here} to {there}', [*picture, truth]))
            del results.shown[contrast][SHOWN:]
            logger.info('%s sub-%s %s to %s', contrast, subject, here, there)


def _own_score(data: Preprocessed, bids: Path, source) -> dict[str, dict[str, float]]:
    """Scores of a scan against its own truth, by grid."""
    scan = data.load(source)
    reference = Reference(bids, source, scan, source.session)
    return {
        'native': reference.score(scan.native.data, 'native'),
        'mni': reference.score(scan.working.data, 'mni'),
    }


def write_results(out: Path, results: Results, methods: list[str], seed: int) -> str:
    """Tables as TSV and Markdown, and a picture of each contrast; the Markdown."""
    rows = pd.DataFrame(results.rows)
    rows.to_csv(out / ROWS, sep='\t', index=False)
    table = summarize(rows, FALLING, seed)
    table.to_csv(out / TABLE, sep='\t', index=False)
    costs = pd.DataFrame(results.costs).groupby(['contrast', 'method'], sort=False).mean()
    costs.reset_index().to_csv(out / COST, sep='\t', index=False)
    for contrast, shown in results.shown.items():
        mosaic(out / f'{contrast}.png', shown, ['before', *methods, 'truth'])
    text = to_markdown(table)
    (out / 'table.md').write_text(text + '\n', encoding='utf-8')
    return text


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder of dataset, cache, tables and pictures')
    parser.add_argument('--config', type=Path, help='YAML of the study (see benchmarks/study.py)')
    parser.add_argument('--bids', type=Path, help='dataset of harmony-phantom to take instead')
    parser.add_argument('--label-maps', type=Path, help='folder of whole-head label maps')
    parser.add_argument('--contrasts', nargs='+', help='instead of those of the study')
    parser.add_argument('--methods', nargs='+', default=list(METHOD_NAMES))
    parser.add_argument('--model', type=Path, help='model folder of the trained methods')
    parser.add_argument('--one-person', action='store_true', help="a style is one other's scan")
    parser.add_argument('--quick', action='store_true', help='two people, two sites, one contrast')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    try:
        study = Study.read(options.config) if options.config else Study()
        changes = {}
        if options.label_maps:
            changes['label_maps'] = str(options.label_maps.resolve())
        if options.contrasts:
            changes['contrasts'] = tuple(options.contrasts)
        study = Study(**{**study.__dict__, **changes})
        study = study.quick() if options.quick else study
        options.out.mkdir(parents=True, exist_ok=True)
        methods = make_methods(options.methods, options.model)
        bids = options.bids or study.make(options.out)
        data = Preprocessed(
            bids,
            options.out / 'cache',
            Selection(modalities=study.contrasts),
            workers=options.workers,
        )
        subjects = {scan.subject for scan in data.inputs}
        if len(subjects) < 2:
            raise OptionError(f'{bids}: two people at least can be used in a study')
        results = Results()
        for contrast in study.contrasts:
            compare_contrast(
                data, bids, contrast, methods, study.pairs, options.one_person, results
            )
        text = write_results(options.out, results, list(methods), study.seed)
    except HarmonyError as error:
        parser.exit(int(error.exit_code), f'travelling: {error}\n')
    print(text)


if __name__ == '__main__':
    main()
