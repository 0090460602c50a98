"""All tables in one page of Markdown: one table for each question."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from benchmarks.scoring import FALLING
from benchmarks.tables import readable, summarize, to_markdown
from harmony_app.imaging.profile import TISSUES


@dataclass(frozen=True)
class Question:
    """One table of the report.

    Parameters
    ----------
    title : str
        What is asked.
    metrics : tuple of str
        What answers it.
    told : str
        How to read it.
    """

    title: str
    metrics: tuple[str, ...]
    told: str


def _each(name: str) -> tuple[str, ...]:
    return tuple(f'{name}_{tissue}' for tissue in TISSUES)


PAIRS = (
    Question('SSIM', ('ssim',), 'Structural similarity to the truth. Higher is better.'),
    Question('PSNR', ('psnr',), 'Peak signal-to-noise ratio to the truth, dB. Higher is better.'),
    Question('RMSE', ('rmse',), 'In units of the white-matter peak. Lower is better.'),
    Question('Correlation', ('pcc',), 'Pearson correlation with the truth. Higher is better.'),
    Question(
        'GM-WM contrast',
        ('gm_wm_auroc',),
        'Area under the ROC curve that tells true WM from true GM by intensity (whichever is '
        'brighter, but for T1w). Higher is better; no map of intensities alone can raise it.',
    ),
    Question(
        'Tissue histograms: Wasserstein',
        _each('wasserstein'),
        'Distance of the intensities of the true tissues to the truth, in units of the '
        'white-matter peak. Lower is better.',
    ),
    Question(
        'Tissue histograms: Kullback-Leibler',
        _each('kl'),
        'Divergence of the same from the truth, nats. Lower is better.',
    ),
    Question(
        'Lesions',
        ('lesion_error',),
        'Error of the ratio of the medians of lesions and normal white matter, percent of the '
        "truth's. Lower is better.",
    ),
    Question(
        'Structure kept: edge agreement',
        ('edge_agreement',),
        'Correlation of the gradient magnitudes with those of the scan itself. The limit is what '
        'a perfect change of contrast keeps: more is no better.',
    ),
    Question(
        'Structure kept: edges',
        ('edges_appeared', 'edges_vanished'),
        'Share of the strong edges that the scan does not show, and that the result does not '
        'show. Lower is better, down to the limit.',
    ),
)
"""Tables of the first part."""

SITE = (
    Question(
        'Segmentation: Dice',
        _each('dice'),
        'Atropos on each scan of another site than the reference, and the true labels. The '
        "ceiling is the person's own scan at the reference site. Higher is better.",
    ),
    Question('Segmentation: Jaccard', _each('jaccard'), 'The same. Higher is better.'),
    Question(
        'Segmentation: volume',
        _each('volume_error'),
        'Difference from the true volume without its sign, percent. Lower is better.',
    ),
    Question(
        'Volumes over sites',
        _each('volume_cv'),
        'Coefficient of variation over the sites of a person, percent. Lower is better.',
    ),
    Question(
        'Domain shift',
        _each('network_dice'),
        'Dice of a network that was trained on the other people at the reference site only. '
        "The ceiling is the person's own scan there. Higher is better.",
    ),
    Question(
        'Tissues between sites',
        _each('between_sites'),
        "Wasserstein distance between the true tissues of a person's scans at different sites, "
        'mean over pairs of sites. Lower is better.',
    ),
)
"""Tables of the second part."""


def answer(rows: pd.DataFrame, questions: Sequence[Question], seed: int) -> pd.DataFrame:
    """Summaries of all questions that the rows answer; p-values are corrected within each."""
    tables = []
    for question in questions:
        own = rows[rows.metric.isin(question.metrics)] if len(rows) else rows
        if len(own):
            table = _in_order(summarize(own, FALLING, seed), question.metrics)
            table.insert(0, 'question', question.title)
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _in_order(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Methods below each other, for each contrast, grid and metric."""
    places = [list(dict.fromkeys(table[key])) for key in ('contrast', 'grid')]
    keys = zip(table.contrast, table.grid, table.metric, strict=True)
    order = [(places[0].index(c), places[1].index(g), metrics.index(m)) for c, g, m in keys]
    return table.iloc[sorted(range(len(table)), key=order.__getitem__)]


def write_page(
    intro: Sequence[str],
    table: pd.DataFrame,
    volumes: pd.DataFrame,
    sites: pd.DataFrame,
    costs: pd.DataFrame,
    notes: Sequence[str],
) -> str:
    """The report in Markdown.

    Parameters
    ----------
    intro : sequence of str
        Paragraphs about the study and its settings.
    table : DataFrame
        Of :func:`answer`, both parts.
    volumes, sites, costs : DataFrame
        Tables of the study, empty where it does not allow them.
    notes : sequence of str
        What was left out, and why.
    """
    parts = ['# Travelling phantoms', *intro]
    parts += ['## Pairs: to the next site, against the noise-free truth', *_answers(table, PAIRS)]
    parts += ['## All scans to one site', *_answers(table, SITE)]
    parts += _table(
        'Volumes between sites',
        'Bias and RMSD between every two sites (ml, mean over pairs of sites), coefficient of '
        'variation over the sites of a person (percent), ICC and residual variance of the '
        'percentage of the brain over the sessions of a person. combat: the volumes before, '
        'after ComBat; truth: the true labels.',
        volumes,
    )
    parts += _table(
        'Sites told apart',
        'A classifier that has not seen the person tells the site: RBF SVM on radiomic features, '
        "logistic regression on HACA3's theta. Nearer to chance is better.",
        sites,
    )
    parts += _table(
        'Cost',
        'One scan, one thread. Memory is what the call adds to a process that holds the scans and '
        'the method. These numbers differ from run to run.',
        costs,
    )
    parts += ['## Left out', *([f'- {note}' for note in notes] or ['Nothing.'])]
    text = '\n\n'.join(part for part in parts if part)
    return text.replace('\n\n- ', '\n- ').replace('## Left out\n- ', '## Left out\n\n- ') + '\n'


def _answers(table: pd.DataFrame, questions: Sequence[Question]) -> list[str]:
    parts = []
    for question in questions:
        own = table[table.question == question.title] if len(table) else table
        if len(own):
            parts += [f'### {question.title}', question.told, to_markdown(readable(own))]
    return parts or ['Nothing could be measured.']


def _table(title: str, told: str, table: pd.DataFrame) -> list[str]:
    if table.empty:
        return []
    return [f'### {title}', told, to_markdown(table.dropna(axis='columns', how='all'))]
