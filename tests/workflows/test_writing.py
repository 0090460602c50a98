"""What the tables and the end of a session say of the artifacts of its scans."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from harmony_app.bids.atomic import read_table
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.volume import Volume
from harmony_app.workflows.outputs import SessionOutputs
from harmony_app.workflows.writing import _note_artifacts, _write_tables

T1W, T2W = 'sub-01_T1w', 'sub-01_T2w'


def made(source, artifacts):
    """What a network says of a result of two scans."""
    return {
        'source': source,
        'theta': {T1W: [0.0, 1.0], T2W: [1.0, 1.0], 'target': [0.5, 0.5]},
        'eta': {T1W: [0.6, 0.8], T2W: [0.0, 0.1], 'target': [0.0, 0.0]},
        'artifacts': artifacts,
        'attention': {T1W: 0.25, T2W: 0.75},
    }


@pytest.fixture
def outputs(tmp_path):
    return SessionOutputs(tmp_path, tmp_path, {}, {'sub': '01'}, {}, None, [], tmp_path)


def test_the_table_of_styles_tells_level_and_flag(outputs, tmp_path):
    outputs._tabulate_style(T1W, made(T1W, {T1W: [0.9, 'poor'], T2W: [0.05, 'good']}))
    _write_tables(outputs, tmp_path / 'root', [T1W])
    path = tmp_path / 'sub-01' / 'anat' / 'sub-01_desc-style_qc.tsv'
    rows = {row['scan']: row for row in read_table(path)}
    assert (rows[T1W]['artifact_level'], rows[T1W]['artifact_flag']) == ('0.9', 'poor')
    assert (rows[T2W]['artifact_level'], rows[T2W]['artifact_flag']) == ('0.05', 'good')
    assert 'artifact_flag' not in rows['target']
    told = json.loads(path.with_suffix('.json').read_text())
    assert 'doubtful' in told['artifact_flag']['Description']


def test_a_model_without_a_scale_has_no_such_columns(outputs, tmp_path):
    outputs._tabulate_style(T1W, made(T1W, {}))
    _write_tables(outputs, tmp_path / 'root', [T1W])
    path = tmp_path / 'sub-01' / 'anat' / 'sub-01_desc-style_qc.tsv'
    assert 'artifact' not in path.read_text().splitlines()[0]
    assert 'eta_2' in path.read_text().splitlines()[0]


def test_the_end_of_a_poor_scan_says_so():
    states = {
        T1W: {'status': 'done', 'message': ''},
        T2W: {'status': 'done', 'message': 'the registration is doubtful'},
    }
    fine = {T1W: [0.3, 'doubtful'], T2W: [0.0, 'good']}
    _note_artifacts(states, [made(T1W, fine), made(T2W, fine), made(None, fine)])
    assert states[T1W]['message'] == ''
    bad = {T1W: [0.876, 'poor'], T2W: [0.9, 'poor']}
    _note_artifacts(states, [made(T1W, bad), made(T2W, bad)])
    assert states[T1W]['message'] == (
        'the scan has artifacts (level 0.88, poor): look at the figure'
    )
    assert states[T2W]['message'].startswith('the registration is doubtful; the scan has artifacts')


def test_images_are_written_on_the_grids_that_were_asked_for(tmp_path):
    """What is not wanted is not even read: there are no records here to read it from."""
    volume = Volume(np.ones((4, 4, 4), np.float32), np.eye(4))

    def write(*spaces):
        outputs = SessionOutputs(
            tmp_path, tmp_path, {}, {'sub': '01'}, {}, None, [], tmp_path, spaces
        )
        return outputs

    write('native')._image('', 'T1w', 'preproc', volume, None)
    write('native').write_session_maps()
    write(SPACE)._write_native(None, None, {})
    write(SPACE)._write_native_mask(None, None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AttributeError):
        write('native', SPACE).write_session_maps()


@pytest.mark.parametrize('factor, words', [(5, 'super-resolution'), (None, 'cubic')])
def test_a_sidecar_tells_how_slices_were_divided(tmp_path, factor, words):
    scan = tmp_path / 'sub-01' / 'anat' / f'{T2W}.nii.gz'
    facts = {'name': T2W, 'path': str(scan), 'volume': None, 'skull_stripped': False}
    facts |= {'zooms': [1.0, 1.0, 5.0], 'axes': 'RAS', 'thick': True, 'thin_factor': factor}
    facts |= {'bias_corrected': True, 'notes': ['a note'], 'transform': None}
    session = SimpleNamespace(facts={'skull_stripped': False, 'doubtful': False})
    outputs = SessionOutputs(tmp_path, tmp_path, {}, {'sub': '01'}, {}, session, [], tmp_path)
    for space in ('MNI152NLin2009aSym', None):
        image = tmp_path / f'{space}_T2w.nii.gz'
        outputs._sidecar(T2W, image, 'harmonized', SimpleNamespace(facts=facts), space, {})
        told = json.loads((tmp_path / f'{space}_T2w.json').read_text())
        assert told['SourceScan'].get('SuperResolutionFactor') == factor
        assert ('Interpolation' in told) is (space is not None)
        assert told.get('Interpolation', words).startswith(words)
