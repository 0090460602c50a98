"""Numbers of a scan for its page: what was measured, what each says, what the network read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harmony_app.bids.derivatives import derivative_path
from harmony_app.imaging.profile import TISSUES
from harmony_app.reports import charts
from harmony_app.reports.html import folded, heading, paragraph, table
from harmony_app.reports.views import weights
from harmony_app.workflows.report_inputs import ReportScan, Subject
from harmony_app.workflows.writing import QC_COLUMNS

STAGES = ('before', 'after', 'target')
"""Stages of a scan, in the order of columns and legends."""

_MEASURES = {
    'artifact_flag': 'Artifacts of the scan',
    'artifact_level': 'Level of artifacts',
    'registration_quality': 'Agreement with the template',
    'edge_agreement': 'Agreement of edges before and after',
    'wm_peak_before': 'White-matter peak before',
    'wm_peak_after': 'White-matter peak after',
    'brain_ml': 'Volume of the brain, ml',
}
"""Names of the measures that are no comparison with the target."""

_COMPARED = {
    **{f'{tissue.lower()}_level': f'Level of {tissue}' for tissue in TISSUES},
    **{f'{tissue.lower()}_median': f'Median of {tissue}' for tissue in TISSUES},
    'level_distance': 'Distance of the levels to the target',
    'distance': 'Distance of the medians to the target',
}
"""Names of the measures that have a stage."""


def representations(subject: Subject, scan: ReportScan) -> list[str]:
    """Attention and theta of a scan, where the method has them, as parts of a page.

    Parameters
    ----------
    subject : Subject
        Of the scan: its other scans show where this one lies.
    scan : ReportScan
    """
    parts = []
    shares = {
        row['scan']: float(row['attention']) for row in scan.styles if _is_number(row, 'attention')
    }
    if shares:
        parts += [
            heading('Attention'),
            paragraph(
                'How much each scan of the session weighs in the anatomy of the result.', note=True
            ),
            weights(shares),
        ]
    own = {row['scan']: row for row in scan.styles}
    keys = sorted(
        (key for key in own.get(scan.name, {}) if key.startswith('theta_')),
        key=lambda key: int(key.partition('_')[2]),
    )
    if len(keys) < 2 or 'target' not in own:
        return parts
    points = [
        ('other', other.name, *other.result.theta[:2])
        for other in subject.scans
        if other.result and other.contrast == scan.contrast and other.name != scan.name
        if len(other.result.theta) > 1 and _alike(other, scan)
    ]
    points += [
        (kind, name, *(float(own[name][key]) for key in keys[:2]))
        for kind, name in (('scan', scan.name), ('target', 'target'))
    ]
    told = 'What the network reads of the contrast: the dot is the scan, the cross the target'
    told += ', rings are other scans of this person.' if len(points) > 2 else '.'
    if len(keys) > 2:
        told += f' The first two of {len(keys)} numbers are drawn.'
    parts += [
        heading('Contrast representation (theta)'),
        '<div class="charts">'
        + charts.plane_chart(
            'theta',
            points,
            ('theta 1', 'theta 2'),
            '; '.join(f'{name} at {x:.2f}, {y:.2f}' for _, name, x, y in points),
        )
        + '</div>',
        paragraph(told, note=True),
    ]
    return parts


def measures(root: Path, scan: ReportScan) -> list[str]:
    """Measures of a scan with what each of them says, and the settings in full, as parts of a page.

    Parameters
    ----------
    root : Path
        Output folder.
    scan : ReportScan
        With results.
    """
    meanings = _meanings(root, scan)
    compared = []
    for key, name in _COMPARED.items():
        row: dict = {'measure': name, 'meaning': _plain_meaning(meanings, key)}
        for stage in STAGES:
            row[stage] = number(scan, f'{key}_{stage}')
        if any(row[stage] is not None for stage in STAGES):
            compared.append(row)
    single = []
    for key, name in _MEASURES.items():
        value = number(scan, key)
        if value is None:
            value = scan.result.quality.get(key)
        if value is not None:
            single.append({'measure': name, 'value': value, 'meaning': meanings.get(key, '')})
    stages = {stage: f'Value {stage} or of the target' for stage in STAGES}
    columns = {'measure': 'Measure'} | stages | {'meaning': 'What it says'}
    single_columns = {'measure': 'Measure', 'value': 'Value', 'meaning': 'What it says'}
    settings = [
        {'setting': key, 'value': _short(value)}
        for key, value in sorted(_flat(scan.sidecar).items())
    ]
    return [
        heading('Measures'),
        table(compared, columns, 'In units of the white-matter peak'),
        table(single, single_columns),
        folded(
            'Settings and facts of the image',
            table(settings, {'setting': 'Field of the sidecar', 'value': 'Value'}),
        ),
    ]


def number(scan: ReportScan, key: str) -> float | None:
    """A number of the quality table; None where it is absent."""
    row = scan.result.quality
    return float(row[key]) if _is_number(row, key) else None


def _is_number(row: Mapping[str, str], key: str) -> bool:
    try:
        return bool(np.isfinite(float(row[key])))
    except (KeyError, ValueError):
        return False


def _meanings(root: Path, scan: ReportScan) -> dict[str, str]:
    """What the columns say, by the dictionary beside the table; ours where it is gone."""
    shared = {k: label for k, label in scan.result.entities if k in ('sub', 'ses')}
    path = derivative_path(root, shared, 'qc', '.json', desc='harmonized')
    try:
        told = json.loads(path.read_text(encoding='utf-8'))
        return {key: str(value['Description']) for key, value in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return dict(QC_COLUMNS)


def _plain_meaning(meanings: Mapping[str, str], key: str) -> str:
    """Meaning of a measure of several stages, without the stage."""
    text = meanings.get(f'{key}_before', '')
    return text.replace(', before harmonization, in units of the white-matter peak', '').replace(
        ', before, in units of the white-matter peak', ''
    )


def _alike(one: ReportScan, other: ReportScan) -> bool:
    """Whether the thetas of two scans are of one model."""
    key = 'HarmonizationModelSHA256'
    return one.sidecar.get(key) == other.sidecar.get(key)


def _flat(fields: Mapping, prefix: str = '') -> dict[str, object]:
    """Fields of fields by one name each.

    Examples
    --------
    >>> _flat({'a': {'b': 1}, 'c': 2})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, object] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = value
    return found


def _short(value: object, longest: int = 300) -> str:
    """A value on one line."""
    parts: Sequence = value if isinstance(value, list) else [value]
    text = ', '.join(f'{p:.4g}' if isinstance(p, float) else str(p) for p in parts)
    return text if len(text) <= longest else f'{text[:longest]} ...'
