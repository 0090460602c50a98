"""What HACA3 does with what is spoiled, missing or already right.

``python -m benchmarks.robustness OUT --study FOLDER`` takes the people and sites that
``benchmarks.travelling FOLDER`` has prepared and asks of the decoder, of eta and of theta:

- corruption: does the attention leave a spoiled scan of the wanted contrast, and is the image of
  all scans better than that of the spoiled one alone, and of the others alone?
- subsets: does every choice of the contrasts give an image, and how good is it?
- imputation: how good is a contrast made of the others?
- identity: does a scan stay itself when it is brought to its own site?
- eta: does its length order artifacts by severity? (rank correlation)
- theta: are two scans by one protocol nearer than two by different ones?

Styles are those of other people's scans; the truth is the noise-free scan of the head by the
target's protocol. Tables go to OUT as TSV, each with its data dictionary, and to
``OUT/report.md``. Interrupted, it goes on where it was.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import trials
from benchmarks.columns import write_rows
from benchmarks.compared import find_models, weights_of
from benchmarks.parts import code_checksum, open_parts, run_parts
from benchmarks.preprocessed import Preprocessed
from benchmarks.sessions import slice_volume
from benchmarks.tables import to_markdown
from harmony_app.bids.atomic import write_text
from harmony_app.methods.base import CONTRASTS
from harmony_app.reports.figure import mosaic
from harmony_app.training.script import run_script
from harmony_app.workflows.records import Record

_WHERE = {
    'contrast': 'Contrast of the image',
    'subject': 'Person',
    'source': 'Session of the scans',
    'target': 'Session of the site that they are brought to',
}
_LIKE = {
    'ssim': 'Structural similarity to the truth, inside the brain',
    'psnr': 'Peak signal-to-noise ratio to the truth, dB, inside the brain',
}
_FROM = {
    'clean': 'all scans, none spoiled',
    'all': 'all scans, one spoiled',
    'alone': 'the spoiled scan alone',
    'others': 'the others alone',
}
_ARTIFACT = {'kind': 'Artifact', 'severity': 'Its severity, 0 to 1'}

COLUMNS = {
    'corruption': _WHERE
    | _ARTIFACT
    | {
        'attention_before': 'Weight of the scan before it was spoiled',
        'attention_after': 'Weight of the spoiled scan',
        'eta_before': 'Length of eta of the scan before it was spoiled',
        'eta_after': 'Length of eta of the spoiled scan',
    }
    | {f'{k}_{name}': f'{v}: {told}' for k, v in _LIKE.items() for name, told in _FROM.items()},
    'subsets': _WHERE
    | {'sources': 'Contrasts given', 'works': '1 where there is an image'}
    | _LIKE,
    'imputation': _WHERE | {'sources': 'Contrasts given'} | _LIKE,
    'identity': _WHERE
    | {'method': 'Method'}
    | {k: v.replace('the truth', 'the scan itself') for k, v in _LIKE.items()},
    'eta': _WHERE | _ARTIFACT | {'eta': 'Length of eta'},
    'theta': _WHERE,
}
"""Columns of the tables by name."""

WORK = {
    'corruption': trials.corruption,
    'subsets': trials.subsets,
    'imputation': trials.imputation,
    'identity': trials.identity,
    'eta': trials.severity,
    'theta': trials.contrast_code,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder of tables and pictures')
    parser.add_argument('--study', type=Path, required=True, help='OUT of benchmarks.travelling')
    parser.add_argument(
        '--model', type=Path, action='append', default=[], help='model folder of a trained method'
    )
    parser.add_argument('--sessions', type=int, default=4, help='sessions that are decoded')
    parser.add_argument('--wanted', choices=CONTRASTS, default='T1w', help='contrast to spoil')
    parser.add_argument('--only', nargs='+', choices=list(WORK), default=list(WORK))
    parser.add_argument('--seed', type=int, default=1, help='of the artifacts')
    parser.add_argument('--quick', action='store_true', help='one session, few severities')
    parser.add_argument('--workers', type=int, default=0, help='processes beside this one')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    print(measure(options))


def measure(options: argparse.Namespace) -> str:
    """Run all trials; the text of the report."""
    data = Preprocessed.of_study(options.study)
    bids, cache = (options.study / name for name in ('bids', 'cache'))
    models = find_models(options.model)
    setup = trials.Setup(
        bids=bids.resolve(),
        cache=cache.resolve(),
        parts=(options.out / 'parts').resolve(),
        models=tuple(models.items()),
        wanted=options.wanted,
        imputed=CONTRASTS,
        severities=(0.25, 0.5, 0.75, 1.0),
        decoded=CONTRASTS,
        seed=options.seed,
    )
    if options.quick:
        setup = replace(
            setup, imputed=('T2w', 'FLAIR'), severities=(0.3, 0.65, 1.0), decoded=('T1w',)
        )
    chosen = choose(data.inputs, 1 if options.quick else options.sessions)
    stamp = {k: v for k, v in vars(setup).items() if k not in ('bids', 'cache', 'parts', 'models')}
    stamp |= {'weights': weights_of(models), 'code': code_checksum(), 'study': str(setup.bids)}
    open_parts(setup.parts, stamp)
    tables, notes = {}, []
    for name in options.only:
        work = partial(WORK[name], setup)
        parts = list(run_parts(setup.parts, name, chosen[name], work, options.workers))
        rows = [row for part in parts for row in part['rows']]
        notes += [note for part in parts for note in part['notes']]
        told = COLUMNS[name]
        if name == 'theta' and rows:
            told = told | {k: 'Theta of the scan' for k in rows[0] if k.startswith('theta_')}
        tables[name] = write_rows(options.out / f'{name}.tsv', told, rows)
    for name in ('corruption', 'imputation'):
        if name in tables:
            draw(options.out / f'{name}.png', setup.parts, name, chosen[name])
    text = write_page(setup, tables, notes)
    write_text(options.out / 'report.md', text)
    return text


def choose(inputs: Sequence, count: int) -> dict[str, list[tuple[str, ...]]]:
    """Units of every trial: another person at another site each, eta of another contrast each.

    Theta is cheap, and asked of every scan.
    """
    people, sites = (sorted({getattr(s, k) for s in inputs}) for k in ('subject', 'session'))
    known = {(s.subject, s.session) for s in inputs}
    # people and sites side by side, then shifted against each other
    order = [
        (person, sites[(i + shift) % len(sites)])
        for shift in range(len(sites))
        for i, person in enumerate(people)
    ]
    decoded = [unit for unit in order if unit in known][:count]
    scans = {(s.subject, s.session, s.contrast) for s in inputs}
    etas = []
    for turn in range(count):
        for i, contrast in enumerate(CONTRASTS):
            found = [(*unit, contrast) for unit in order if (*unit, contrast) in scans]
            etas += found[(turn + i) % len(found) :][:1] if found else []
    units = dict.fromkeys(('corruption', 'subsets', 'imputation', 'identity'), decoded)
    return units | {'eta': list(dict.fromkeys(etas)), 'theta': sorted(scans)}


def write_page(setup: trials.Setup, tables: Mapping[str, pd.DataFrame], notes: list[str]) -> str:
    """The report in Markdown."""
    parts = ['# Robustness of HACA3']
    told = {
        'corruption': f'The {setup.wanted} scan of a session with an artifact of severity 0.7 to '
        '1, brought to the next site by the decoder: of all scans before it was spoiled (clean), '
        'of all with the spoiled one, of the spoiled one alone, and of the others.',
        'subsets': f'{setup.wanted} at the next site by the decoder, of every choice of contrasts.',
        'imputation': 'A contrast at the next site by the decoder, of the other contrasts.',
        'identity': "Each scan to the style of other people's scans at its own site, compared with "
        'itself inside its brain mask.',
        'eta': 'Rank correlation (Spearman) of the length of eta with the severity; a scan without '
        'an artifact counts as severity 0.',
        'theta': 'Mean distance of theta of two scans of a contrast: of one protocol (different '
        'people), and of two.',
    }
    summaries = {
        'corruption': summarize_corruption,
        'subsets': partial(means, keys=['sources']),
        'imputation': partial(means, keys=['contrast', 'sources']),
        'identity': partial(means, keys=['method', 'contrast']),
        'eta': summarize_eta,
        'theta': summarize_theta,
    }
    for name, table in tables.items():
        parts.append(f'## {name.capitalize()}')
        if table.empty:
            parts.append('Nothing could be measured.')
            continue
        people, sessions = (table[key].nunique() for key in ('subject', 'source'))
        parts.append(f'{told[name]} People: {people}; sites: {sessions}; rows: {len(table)}.')
        parts.append(to_markdown(summaries[name](table)))
    parts.append('## Left out')
    parts.append('\n'.join(f'- {note}' for note in dict.fromkeys(notes)) or 'Nothing.')
    return '\n\n'.join(parts) + '\n'


def means(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Means of all measures by some columns, in the order of the table."""
    measures = [name for name in ('works', 'ssim', 'psnr') if name in table]
    grouped = table.groupby(list(keys), sort=False)
    found = grouped[measures].mean()
    return found.assign(scans=grouped.size()).reset_index()


def summarize_corruption(table: pd.DataFrame) -> pd.DataFrame:
    """By artifact: mean weights and likeness, and the share of cases that are as they should."""
    rows = []
    for kind, group in [*table.groupby('kind', sort=False), ('all of them', table)]:
        row = {
            'artifact': kind,
            'attention': f'{group.attention_before.mean():.3f} to '
            f'{group.attention_after.mean():.3f}',
            'moved away': f'{(group.attention_after < group.attention_before).sum()} '
            f'of {len(group)}',
        }
        for measure in ('ssim', 'psnr'):
            for name in _FROM:
                row[f'{measure} {name}'] = group[f'{measure}_{name}'].mean()
        rows.append(
            row
            | {'all beats alone': f'{(group.ssim_all > group.ssim_alone).sum()} of {len(group)}'}
        )
    return pd.DataFrame(rows)


def summarize_eta(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation over all artifacts and within each, with the clean scans."""
    from scipy.stats import spearmanr

    clean = table[table.kind == 'none']
    kinds = [kind for kind in dict.fromkeys(table.kind) if kind != 'none']
    rows = []
    for name, group in [('all', table), *((k, table[table.kind == k]) for k in kinds)]:
        if name != 'all':
            group = pd.concat([group, clean])
        worst = group[group.severity == group.severity.max()]
        rank = spearmanr(group.severity, group.eta).statistic if group.eta.nunique() > 1 else 0.0
        rows.append(
            {
                'artifact': name,
                'spearman': float(rank),
                'eta clean': clean.eta.mean(),
                'eta worst': worst.eta.mean(),
                'images': len(group),
            }
        )
    return pd.DataFrame(rows)


def summarize_theta(table: pd.DataFrame) -> pd.DataFrame:
    """By contrast: mean distances within and between protocols."""
    columns = [name for name in table if name.startswith('theta_')]
    rows = []
    for contrast, group in table.groupby('contrast', sort=False):
        theta, site = group[columns].to_numpy(), group.source.to_numpy()
        first, second = np.triu_indices(len(group), 1)
        distance = np.linalg.norm(theta[first] - theta[second], axis=1)
        same = site[first] == site[second]
        if same.any() and (~same).any():
            one, two = distance[same].mean(), distance[~same].mean()
            nearer = np.mean(distance[same][:, None] < distance[~same][None])
            rows.append(
                {
                    'contrast': contrast,
                    'one protocol': one,
                    'two protocols': two,
                    'nearer (share of pairs of pairs)': nearer,
                }
            )
    return pd.DataFrame(rows)


def draw(path: Path, parts: Path, kind: str, units: Sequence[tuple[str, str]]) -> Path | None:
    """Picture of the kept slices of a trial, or None where there are none."""
    rows, titles = [], []
    for unit in units:
        file = trials.picture_path(parts, kind, unit)
        if not file.exists():
            continue
        record = Record(file)
        found: dict[str, dict] = {}
        for key in record.facts['arrays']:
            row, name = key.split('/')
            found.setdefault(row, {})[name] = slice_volume(record.array(key))
        for row, images in found.items():
            titles = titles or list(images)
            rows.append((f'sub-{unit[0]} {unit[1]} {row}', [images[name] for name in titles]))
    return mosaic(path, rows[:6], titles, reference='truth') if rows else None


if __name__ == '__main__':
    run_script(main)
