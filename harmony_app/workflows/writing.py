"""Write the results of a session, all at once, and say how each of its scans ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app.bids.atomic import read_table, write_json, write_table
from harmony_app.bids.derivatives import derivative_path
from harmony_app.bids.publish import mark_unfinished, publish, staging, write_marker
from harmony_app.errors import ExitCode
from harmony_app.imaging.grid import SPACES
from harmony_app.imaging.profile import TISSUES
from harmony_app.methods.base import Style
from harmony_app.workflows.outputs import SessionOutputs
from harmony_app.workflows.records import Record

_STAGES = ('before', 'after', 'target')
_KINDS = {'median': 'Median', 'level': 'Level (less dependent on anatomy)'}

QC_COLUMNS = {
    'scan': 'Name of the scan: its entities and contrast',
    'contrast': 'Contrast of the scan',
    'site': 'Scanner and protocol, by the site column or the sidecar',
    'method': 'Harmonization method',
    'target': 'Name of the target style',
    'wm_peak_before': 'White-matter peak of the scan in its own unit, after bias correction',
    'wm_peak_after': 'White-matter peak that the harmonized image is written with',
    **{
        f'{tissue.lower()}_{kind}_{stage}': f'{_KINDS[kind]} of {tissue} under the registered map, '
        f'{stage if stage != "target" else "of the target"}, in units of the white-matter peak'
        for stage in _STAGES
        for kind in _KINDS
        for tissue in TISSUES
    },
    **{
        f'{measure}_{stage}': f'Euclidean distance of the GM, WM and CSF {name} to those of the target, '
        f'{stage} harmonization, in units of the white-matter peak'
        for measure, name in (('distance', 'medians'), ('level_distance', 'levels'))
        for stage in ('before', 'after')
    },
    'edge_agreement': 'Correlation of the gradients of the scan before and after, in the brain, -1 to 1',
    'artifact_level': 'Artifacts of the scan (length of eta above that of an unspoiled scan of the '
    'contrast); about 1 for an unusable one; of methods with a network that tells',
    'artifact_flag': 'What that level means: good, doubtful (above 95 of 100 unspoiled scans) or poor',
    'registration_quality': 'Agreement of the reference scan of the session with the template, 0 to 1',
    'brain_ml': 'Volume of the brain mask on the template grid (rigid registration), ml',
}
"""Columns of ``desc-harmonized_qc.tsv`` and what they say."""


def write_session(
    session: str,
    prepared: Sequence[Path],
    finished: Sequence[Path],
    aligned: Path,
    results: Path | None,
    styles: Mapping[str, Style],
    entities: Mapping[str, Mapping[str, str]],
    raw: Path,
    root: Path,
    settings: Mapping,
    digest: str,
    run: str,
    scratch: Path,
    spaces: Sequence[str] = SPACES,
) -> dict:
    """Write everything of one session, then its marker.

    Parameters
    ----------
    session : str
        Name of the session.
    prepared, finished : sequence of Path
        Records of its scans, in one order.
    aligned, results : Path
        Records of the session.
    styles : mapping of str to Style
        Targets by contrast.
    entities : mapping of str to mapping
        Entities of each scan by its name.
    raw, root : Path
        Input dataset and output folder.
    settings : mapping
        Goes into every sidecar: method, model, seed, device.
    digest : str
        Hash of settings and inputs; tells whether the session is done.
    run : str
        Name of the run.
    scratch : Path
        Folder for temporary files.
    spaces : sequence of str
        Grids that images are written on: ``native`` and that of the template.

    Returns
    -------
    dict
        The marker: for each scan ``status`` (done, failed, skipped), ``message``,
        ``exit_code``, ``files``; and the ``targets`` by contrast.
    """
    first = {r.facts['name']: r for r in map(Record, prepared)}
    second = {r.facts['name']: r for r in map(Record, finished)}
    ready = [name for name in first if not second[name].failure]
    made = Record(results) if results is not None else None
    states = {name: _state(second[name], made, styles) for name in first}
    session_record = Record(aligned)
    if session_record.facts.get('doubtful'):
        quality = session_record.facts['quality']
        for state in states.values():
            if state['status'] == 'done':
                state['message'] = (
                    f'registration to the template is doubtful (quality {quality:.2f}): '
                    'look at the figure'
                )
    _note_artifacts(states, made.facts['results'] if made else ())
    if made and 'Device' in settings:
        # Not what was wanted, where the accelerator had too little memory.
        settings = dict(settings) | {'Device': made.facts['device']}
    marker = {
        'session': session,
        'run': run,
        'digest': digest,
        'scans': {name: state | {'files': []} for name, state in states.items()},
        'files': [],
        # What reports draw: of a target that was measured in the run nothing else is kept.
        'targets': {
            contrast: style.to_dict()
            for contrast, style in styles.items()
            if any(facts.facts['contrast'] == contrast for facts in first.values())
        },
    }
    with staging(root, session) as folder:
        if ready:
            outputs = SessionOutputs(
                staging=folder,
                raw=raw,
                entities={name: dict(e) for name, e in entities.items()},
                shared={k: v for k, v in entities[ready[0]].items() if k in ('sub', 'ses')},
                settings=dict(settings),
                aligned=session_record,
                prepared=[first[name] for name in ready],
                scratch=scratch,
                spaces=tuple(spaces),
            )
            outputs.write_session_maps()
            for name in ready:
                outputs.write_preprocessed(first[name], second[name])
            for index, result in enumerate(made.facts['results'] if made else ()):
                source = result['source']
                outputs.write_result(
                    result,
                    index,
                    made,
                    styles[result['contrast']],
                    first.get(source),
                    second.get(source),
                )
            _write_tables(outputs, root, list(first))
            for name, files in outputs.files.items():
                marker['scans'].get(name, marker)['files'] += files
            mark_unfinished(root, session, [f for files in outputs.files.values() for f in files])
            publish(root, folder)
        write_marker(root, session, marker)
    return marker


def _state(finished: Record, made: Record | None, styles: Mapping[str, Style]) -> dict:
    """How one scan ended."""
    name, contrast = finished.facts['name'], finished.facts['contrast']
    if finished.failure:
        return {'status': 'failed', **finished.failure}
    if contrast not in styles:
        return {'status': 'skipped', 'message': f'the target has no {contrast}', 'exit_code': 0}
    failures = made.facts['failures'] if made else {}
    failure = failures.get(name) or failures.get(contrast)
    if failure:
        return {'status': 'failed', **failure}
    if made and any(result['source'] == name for result in made.facts['results']):
        return {'status': 'done', 'message': '', 'exit_code': 0}
    return {
        'status': 'failed',
        'message': f'{name}: the method gave no result',
        'exit_code': int(ExitCode.FAILURE),
    }


def _note_artifacts(states: dict[str, dict], results: Sequence[Mapping]) -> None:
    """Say of scans with many artifacts that they have them."""
    for result in results:
        level, flag = result['artifacts'].get(result['source'], (None, None))
        if flag == 'poor':
            state = states[result['source']]
            told = f'the scan has artifacts (level {level:.2f}, {flag}): look at the figure'
            state['message'] = f'{state["message"]}; {told}' if state['message'] else told


def _write_tables(outputs: SessionOutputs, root: Path, names: list[str]) -> None:
    """Write the tables of a session; rows of scans that were not asked for this time stay."""
    for desc, rows, key in (
        ('harmonized', outputs.rows, 'scan'),
        ('style', outputs.style_rows, 'result'),
    ):
        within = derivative_path(Path(), outputs.shared, 'qc', '.tsv', desc=desc)
        kept = []
        if (root / within).is_file():
            kept = [row for row in read_table(root / within) if row.get(key) not in names]
            kept = [row for row in kept if row.get(key) not in {r[key] for r in rows}]
        rows = sorted([*kept, *rows], key=lambda row: str(row[key]))
        if not rows:
            continue
        if desc == 'harmonized':
            columns = dict(QC_COLUMNS)
            rows = [{k: v for k, v in row.items() if k in columns} for row in rows]
        else:
            columns = _style_columns(rows)
        path = outputs.staging / within
        write_table(path, list(columns), rows)
        write_json(path.with_suffix('.json'), {k: {'Description': v} for k, v in columns.items()})
        for file in (path, path.with_suffix('.json')):
            outputs.files.setdefault('', []).append(file.relative_to(outputs.staging).as_posix())


def _style_columns(rows: list[dict]) -> dict[str, str]:
    """Columns of ``desc-style_qc.tsv``; networks differ in how many numbers they have."""
    numbers = {key for row in rows for key in row if key.startswith(('theta_', 'eta_'))}
    columns = {
        'result': 'Harmonized scan or imputed contrast',
        'scan': 'Scan that the values are of; target for the target',
        'attention': 'Weight of the scan in the fused anatomy of the result',
    }
    for key in sorted(numbers, key=lambda k: (k.split('_')[0] != 'theta', int(k.split('_')[1]))):
        kind = 'Contrast' if key.startswith('theta') else 'Artifact'
        columns[key] = f'{kind} representation, number {key.split("_")[1]}'
    if any('artifact_level' in row for row in rows):
        columns |= {key: QC_COLUMNS[key] for key in ('artifact_level', 'artifact_flag')}
    return columns
