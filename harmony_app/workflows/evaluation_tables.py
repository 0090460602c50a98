"""Columns of the tables of the evaluation, and the files they go to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.registration import GOOD_QUALITY
from harmony_app.workflows.evaluation_measures import PAIR_METRICS, STAGES
from harmony_app.workflows.evaluation_volumes import COMBAT, VOLUME_STAGES
from harmony_app.workflows.group import remove_group_table, write_group_table
from harmony_app.workflows.lesions import MARGIN

_SECONDS = {
    'before': 'before harmonization',
    'after': 'after harmonization',
    COMBAT: 'before harmonization, corrected by ComBat',
}


def _staged(columns: Mapping[str, str], stages: Sequence[str] = STAGES) -> dict[str, str]:
    return {
        f'{name}_{stage}': f'{text}, {_SECONDS[stage]}'
        for name, text in columns.items()
        for stage in stages
    }


SCAN_COLUMNS = {
    'scan': 'Name of the scan: its entities and contrast',
    'subject': 'Participant',
    'session': 'Session',
    'contrast': 'Contrast',
    'site': 'Scanner and protocol, by the site column or the sidecar',
    'travelling': 'yes where the participant was scanned at several sites or participants.tsv says '
    'so, else no',
    'method': 'Harmonization method',
    'target': 'Name of the target style',
    'registration_quality': 'Agreement of the session with the template, 0 to 1; doubtful below '
    f'{GOOD_QUALITY:g}',
    'artifact_level': 'Artifacts of the scan before harmonization, where the method tells; about 1 '
    'for an unusable one',
    'artifact_flag': 'What that level means: good, doubtful or poor',
    'edge_agreement': 'Correlation of the gradient magnitudes before and after, in the brain, '
    '-1 to 1; 1 where all structure is kept',
    'edges_appeared': 'Share of the strong edges of the result that the scan does not show, 0 to 1',
    'edges_vanished': 'Share of the strong edges of the scan that the result does not show, 0 to 1',
    **_staged(
        {
            'gm_wm_auroc': 'Area under the ROC curve that tells WM from GM by intensity, under the '
            'registered maps, 0 to 1; 0.5 where intensities do not tell them apart; T1w: WM is brighter, '
            'the others: whichever is, so 0.5 to 1',
            'distance': 'Euclidean distance of the GM, WM and CSF medians to those of the target, in '
            'units of the white-matter peak',
            'level_distance': 'The same of the three levels, which depend less on the anatomy',
        }
    ),
    'reference': 'What the distances below are to: partner, the same person at other sites; '
    'sites, the mean of the other sites',
    **_staged(
        {
            f'{tissue.lower()}_site_distance': f'Wasserstein distance of the {tissue} intensities '
            'to the reference, in units of the white-matter peak'
            for tissue in TISSUES
        }
    ),
    **_staged(
        {
            'lesion_wm_ratio': 'Median of the lesions over that of normal-appearing white matter '
            f'(more than {MARGIN} mm beside lesions), 1 where they look alike; where the session has a '
            'lesion mask'
        }
    ),
    **_staged(
        {
            f'{tissue.lower()}_ml': f'Volume of {tissue} by a segmentation of this scan, ml'
            for tissue in TISSUES
        }
    ),
}
"""Columns of ``group_evaluation_scans.tsv``."""

_METRICS = {
    'ssim': 'Structural similarity (1 for equal images)',
    'psnr': 'Peak signal-to-noise ratio, dB',
    'rmse': 'Root-mean-square difference, in units of the white-matter peak',
    'pcc': 'Pearson correlation (-1 to 1)',
    'gm_dice': 'Dice coefficient of the GM of a segmentation (0 to 1)',
    'wm_dice': 'Dice coefficient of the WM of a segmentation (0 to 1)',
}

PAIR_COLUMNS = {
    'subject': 'Travelling participant',
    'contrast': 'Contrast',
    'scan': 'First scan',
    'other_scan': 'Second scan, brought onto the first by a rigid transform',
    'site': 'Site of the first scan',
    'other_site': 'Site of the second scan',
    'kind': 'sites: two sites; rescan: one site, what harmonization can reach at best',
    **{
        f'{metric}_{stage}': f'{_METRICS[metric]} of both inside the brain they share, '
        f'{_SECONDS[stage]}'
        for metric in PAIR_METRICS
        for stage in STAGES
    },
    **{
        f'{metric}_ceiling': f'{_METRICS[metric]} of rescans before harmonization, mean over those '
        'of the participant, or else of all participants'
        for metric in PAIR_METRICS
    },
    **{
        f'{metric}_gap_closed': f'Share of the way of {metric} from before to the ceiling that was '
        'gone: 1 is all of it, below 0 is farther away than before'
        for metric in PAIR_METRICS
    },
}
"""Columns of ``group_evaluation_pairs.tsv``."""

STATISTICS_COLUMNS = {
    'contrast': 'Contrast',
    'measure': 'Column of the table of scans or of pairs at two sites, without its stage; '
    '*_volume_variation: spread over sites of the volumes of a travelling subject, percent',
    'better': 'Whether higher or lower is better',
    'subjects': 'Number of people; values of one person are averaged first',
    'mean_before': 'Mean over people before harmonization, in the unit of the measure',
    'mean_after': 'Mean over people after harmonization, in the same unit',
    'difference': 'Mean over people of after less before, in the same unit',
    'interval_low': 'Lower end of its 95 % bootstrap interval',
    'interval_high': 'Upper end of its 95 % bootstrap interval',
    'effect_size': 'Matched-pairs rank-biserial correlation, -1 to 1; above 0 where after is larger',
    'p_value': 'p of the paired Wilcoxon signed-rank test, two-sided, 0 to 1',
    'p_holm': "The same with Holm's correction over all tests of this table",
}
"""Columns of ``group_evaluation_statistics.tsv``."""

VOLUME_COLUMNS = {
    'contrast': 'Contrast of the scans that were segmented',
    'analysis': 'sites: travelling subjects at two sites; longitudinal: all repeated sessions',
    'tissue': 'GM, WM or CSF',
    'site': 'First site',
    'other_site': 'Second site',
    'subjects': 'Number of people',
    'sessions': 'Number of sessions',
    **_staged(
        {
            'bias': 'Mean absolute difference of the volumes of a person, ml',
            'bias_sd': 'Its standard deviation over people, ml',
            'mean_difference': 'Mean of the first site less the second, ml',
            'rmsd': 'Root of the mean squared difference, ml',
            'icc': 'Longitudinal intraclass correlation of the share of GM, WM and CSF together, 0 to 1',
            'residual_variance': 'Variance within people of that share, squared percent',
        },
        VOLUME_STAGES,
    ),
}
"""Columns of ``group_evaluation_volumes.tsv``."""

MATCHED_COLUMNS = {
    'contrast': 'Contrast',
    'site': 'First site',
    'other_site': 'Second site',
    'subjects': 'Number of people who were at both; values of one person are averaged first',
    **_staged(
        {
            'ssim': 'Structural similarity of both scans of a person (1 for equal images)',
            'gm_dice': 'Dice coefficient of their GM (0 to 1)',
            'wm_dice': 'Dice coefficient of their WM (0 to 1)',
            'gm_wm_auroc': 'Area under the ROC curve that tells WM from GM, mean over both sites',
            'gm_bias': 'Mean absolute difference of the GM volumes of a person, ml',
            'wm_bias': 'Mean absolute difference of the WM volumes of a person, ml',
            'gm_rmsd': 'Root of the mean squared difference of the GM volumes, ml',
            'wm_rmsd': 'Root of the mean squared difference of the WM volumes, ml',
        }
    ),
}
"""Columns of ``group_evaluation_matched.tsv``."""

SITE_COLUMNS = {
    'contrast': 'Contrast',
    'stage': 'before or after harmonization',
    'classifier': 'svm: radial basis functions; linear: logistic regression; on radiomic features',
    'sites': 'Number of sites',
    'subjects': 'Number of people',
    'scans': 'Number of scans',
    'balanced_accuracy': 'Recall averaged over the sites, for people not trained on, 0 to 1',
    'chance': 'Balanced accuracy of guessing: one over the number of sites',
    'auc': 'Area under the ROC curve of a site against the rest, averaged over the sites, 0 to 1; 0.5 is '
    'guessing',
    'f1': 'F1 averaged over the sites, 0 to 1',
    'p_value': 'Share of shuffled sites that are told as well or better, the true ones counted among them, '
    '0 to 1; svm only',
}
"""Columns of ``group_evaluation_sites.tsv``."""

EMBEDDING_COLUMNS = {
    'contrast': 'Contrast',
    'stage': 'before or after harmonization; each is laid in the plane for itself',
    'method': 'pca or tsne, of the radiomic features',
    'scan': 'Name of the scan',
    'subject': 'Participant',
    'site': 'Scanner and protocol',
    'x': 'First coordinate, no unit',
    'y': 'Second coordinate, no unit',
    'explained_x': 'Share of the variance along x, 0 to 1 (pca)',
    'explained_y': 'Share of the variance along y, 0 to 1 (pca)',
}
"""Columns of ``group_evaluation_embedding.tsv``."""

TABLES = {
    'scans': SCAN_COLUMNS,
    'pairs': PAIR_COLUMNS,
    'statistics': STATISTICS_COLUMNS,
    'volumes': VOLUME_COLUMNS,
    'matched': MATCHED_COLUMNS,
    'sites': SITE_COLUMNS,
    'embedding': EMBEDDING_COLUMNS,
}
"""Columns by name of the table."""


def table_path(root: Path, name: str) -> Path:
    """File of a table of the evaluation."""
    return Path(root) / f'group_evaluation_{name}.tsv'


def write_tables(root: Path, tables: Mapping[str, Sequence[Mapping]]) -> list[Path]:
    """Write every table that has rows, with its data dictionary.

    A table without rows is not written, and that of an earlier evaluation is removed: it would
    be taken for one of this evaluation.

    Parameters
    ----------
    root : Path
        Output folder.
    tables : mapping of str to sequence of mapping
        Rows by name of the table.

    Returns
    -------
    list of Path
        What was written.
    """
    written = []
    for name, columns in TABLES.items():
        path = table_path(root, name)
        if tables.get(name):
            write_group_table(path, columns, tables[name])
            written.append(path)
        else:
            remove_group_table(path)
    return written
