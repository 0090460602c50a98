"""What fMRIPrep asks of precomputed derivatives, asked of our export with PyBIDS."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from harmony_app.app import make_plan, run_participants
from harmony_app.bids.atomic import write_json, write_table
from harmony_app.bids.derivatives import derivative_path, image_sidecar, sidecar_path
from harmony_app.bids.entities import parse_name
from harmony_app.bids.publish import write_marker
from harmony_app.bids.transforms import write_itk_affine
from harmony_app.config import RunConfig
from harmony_app.errors import OptionError
from harmony_app.imaging.grid import SPACE
from harmony_app.workflows.checks import check_folders
from harmony_app.workflows.fmriprep_export import (
    EXPORT_FOLDER,
    choose,
    export_session,
    write_export_files,
)

QUERIES = {
    't1w_preproc': {'desc': 'preproc', 'suffix': 'T1w'},
    't1w_mask': {'desc': 'brain', 'suffix': 'mask'},
    't2w_preproc': {'desc': 'preproc', 'suffix': 'T2w'},
}
"""What smriprep's io_spec.json asks for, with datatype anat, no space, and .nii.gz or .nii."""

SESSION = 'sub-01_ses-a'


def ask(root, session, query):
    """Files that answer a query of fMRIPrep."""
    from bids.layout import BIDSLayout

    layout = BIDSLayout(root, config=['bids', 'derivatives'], validate=False)
    common = {'datatype': 'anat', 'space': None, 'extension': ['.nii.gz', '.nii']}
    entities = dict(part.split('-', 1) for part in session.split('_'))
    common |= {'subject': entities['sub']}
    common |= {'session': entities['ses']} if 'ses' in entities else {}
    return layout.get(return_type='filename', **(common | query))


def save(path, data, affine=None, codes=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units('mm')
    image.set_qform(image.affine, codes)
    image.set_sform(image.affine, codes)
    nib.save(image, path)


def add_scan(root, name, zoom=1.0, shift=0.0, thick=False, status='done'):
    """Results of one scan, a bright cube off the centre, and its state."""
    entities, contrast, _ = parse_name(name)
    count = int(24 / zoom)
    affine = np.diag([zoom, zoom, zoom, 1.0])
    points = np.argwhere(np.ones((count,) * 3)) * zoom + shift
    inside = (np.abs(points - [10, 12, 14]) < 4).all(1).reshape((count,) * 3)
    data = inside.astype(np.float32) * 1000
    uri = f'bids:raw:sub-{entities["sub"]}/anat/{name}.nii.gz'
    source = {'VoxelSize': [zoom] * 3, 'ThickSlices': thick}
    for space in (None, SPACE):
        added = {'desc': 'harmonized', 'space': space, 'res': space and '1'}
        path = derivative_path(root, entities, contrast, **added)
        save(path, data, affine)
        fields = image_sidecar('harmonized', [uri], False, space, SourceScan=source)
        write_json(sidecar_path(path), fields)
    if contrast == 'T1w':
        save(derivative_path(root, entities, 'mask', desc='brain'), inside.astype('u1'), affine)
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    way = {'from_': contrast, 'to': SPACE, 'mode': 'image'}
    write_itk_affine(derivative_path(root, entities, 'xfm', '.txt', **way), matrix)
    return {'status': status, 'message': '', 'exit_code': 0, 'files': []}


@pytest.fixture
def results(tmp_path):
    """Two runs of a T1w, one of them coarse, a T2w that lies elsewhere, and a FLAIR."""
    root = tmp_path / 'out'
    scans = {
        f'{SESSION}_run-1_T1w': {'zoom': 2.0},
        f'{SESSION}_run-2_T1w': {},
        f'{SESSION}_acq-tse_T2w': {'zoom': 1.5, 'shift': 3.0},
        f'{SESSION}_FLAIR': {},
    }
    states = {name: add_scan(root, name, **how) for name, how in scans.items()}
    write_marker(root, SESSION, {'digest': 'd', 'run': 'r', 'files': [], 'scans': states})
    return root


@pytest.fixture
def export(results, tmp_path):
    folder = results / EXPORT_FOLDER
    write_export_files(folder, results, tmp_path / 'raw', {'Name': 'study'})
    export_session(results, folder, SESSION)
    return folder


@pytest.mark.parametrize('query', QUERIES.values(), ids=QUERIES)
def test_each_question_of_fmriprep_has_one_answer(export, query):
    assert len(ask(export, SESSION, query)) == 1


def test_the_results_themselves_would_give_several(results):
    """Why there is an export: the runs of a session would make a list."""
    asked = {'desc': 'harmonized', 'suffix': 'T1w'}
    assert len(ask(results, SESSION, asked)) == 2


def test_the_nested_export_is_no_part_of_the_results(results, export):
    assert ask(results, SESSION, QUERIES['t1w_preproc']) == []


def test_the_finer_run_is_chosen_and_the_sidecar_says_why(results, export):
    anat = export / 'sub-01/ses-a/anat'
    fields = json.loads((anat / f'{SESSION}_desc-preproc_T1w.json').read_text())
    assert fields['ExportedScan'] == f'{SESSION}_run-2_T1w'
    assert fields['ExportReason'] == f'of 2, finer voxels than {SESSION}_run-1_T1w'
    assert fields['SkullStripped'] is False
    name = f'{SESSION}_run-2_desc-harmonized_T1w.nii.gz'
    assert fields['Sources'] == [f'bids:harmony:sub-01/ses-a/anat/{name}']
    exported = anat / f'{SESSION}_desc-preproc_T1w.nii.gz'
    assert exported.read_bytes() == (results / 'sub-01/ses-a/anat' / name).read_bytes()


def test_the_t2w_lies_on_the_grid_of_the_t1w_where_the_head_is(export):
    anat = export / 'sub-01/ses-a/anat'
    t1w = nib.load(anat / f'{SESSION}_desc-preproc_T1w.nii.gz')
    t2w = nib.load(anat / f'{SESSION}_desc-preproc_T2w.nii.gz')
    mask = nib.load(anat / f'{SESSION}_desc-brain_mask.nii.gz')
    assert t2w.shape == t1w.shape == mask.shape
    assert np.array_equal(t2w.affine, t1w.affine)
    one, two = (np.asarray(image.dataobj) for image in (t1w, t2w))
    centres = [np.argwhere(data > 500).mean(0) for data in (one, two)]
    assert np.abs(centres[0] - centres[1]).max() < 1
    assert two.min() >= 0


@pytest.mark.parametrize(
    'worse, better, reason',
    [
        ('ce-gd_T1w', 'run-2_T1w', 'of 2, without contrast agent, as'),
        ('acq-a_T1w', 'acq-b_T1w', 'of 2, fewer artifacts than'),
    ],
)
def test_what_is_chosen_among_runs(tmp_path, worse, better, reason):
    names = [f'{SESSION}_{worse}', f'{SESSION}_{better}']
    states = {name: add_scan(tmp_path, name) for name in names}
    write_marker(tmp_path, SESSION, {'digest': '', 'run': '', 'files': [], 'scans': states})
    rows = [
        {'scan': name, 'artifact_flag': flag}
        for name, flag in zip(names, ('poor', 'good'), strict=True)
    ]
    table = tmp_path / f'sub-01/ses-a/anat/{SESSION}_desc-harmonized_qc.tsv'
    write_table(table, ['scan', 'artifact_flag'], rows)
    told = export_session(tmp_path, tmp_path / 'export', SESSION)
    assert told.startswith(f'{SESSION}: {names[1]} ({reason}')


def test_equal_runs_are_told_apart_by_name_and_said_so(results):
    from harmony_app.workflows.fmriprep_export import Candidate

    twins = [Candidate(f'sub-1_run-{n}_T1w', Path(), {}, {}) for n in (2, 1)]
    chosen, reason = choose(twins)
    assert chosen.name == 'sub-1_run-1_T1w'
    assert reason == 'of 2, first by name, nothing else tells them apart'


def test_a_session_without_a_t1w_is_not_exported_and_nothing_old_is_left(results, export):
    anat = export / 'sub-01/ses-a/anat'
    states = {f'{SESSION}_acq-tse_T2w': {'status': 'done', 'message': '', 'exit_code': 0}}
    marker = {'digest': 'd', 'run': 'r', 'files': [], 'scans': states}
    write_json(results / f'logs/sessions/{SESSION}.json', marker)
    assert 'not exported, it has no harmonized T1w' in export_session(results, export, SESSION)
    assert list(anat.iterdir()) == []


def test_without_a_mask_fmriprep_extracts_the_brain(results, export):
    export_session(results, export, SESSION, mask=False)
    assert ask(export, SESSION, QUERIES['t1w_mask']) == []
    assert len(ask(export, SESSION, QUERIES['t1w_preproc'])) == 1


def test_what_is_current_is_not_written_again(results, export):
    files = list(export.rglob('*.nii.gz'))
    before = {path: path.stat().st_mtime_ns for path in files}
    export_session(results, export, SESSION)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    source = results / f'sub-01/ses-a/anat/{SESSION}_run-2_desc-harmonized_T1w.nii.gz'
    source.write_bytes(source.read_bytes())
    export_session(results, export, SESSION)
    changed = {path.name for path in files if path.stat().st_mtime_ns != before[path]}
    assert changed == {f'{SESSION}_desc-preproc_{c}.nii.gz' for c in ('T1w', 'T2w')}


def test_the_validator_finds_no_error_in_the_export(export):
    validator = shutil.which('bids-validator-deno') or shutil.which(
        'bids-validator-deno', path=Path(sys.executable).parent
    )
    if not validator:
        pytest.skip('bids-validator-deno is not installed')
    done = subprocess.run([validator, export, '--format', 'json'], capture_output=True, text=True)
    issues = json.loads(done.stdout)['issues']['issues']
    assert [issue for issue in issues if issue['severity'] == 'error'] == []


def test_the_results_are_raw_input_with_the_documented_filter(results):
    """The filter of docs/integration.md picks the harmonized scans on their own grid alone."""
    guide = (Path(__file__).parents[2] / 'docs' / 'integration.md').read_text()
    block = next(part for part in guide.split('```') if part.startswith('json\n'))
    asked = json.loads(block.removeprefix('json\n'))['t1w']
    assert asked == {'desc': 'harmonized', 'space': None}
    found = ask(results, SESSION, asked | {'suffix': 'T1w'})
    assert [Path(path).name for path in found] == [
        f'{SESSION}_run-{n}_desc-harmonized_T1w.nii.gz' for n in (1, 2)
    ]


@pytest.fixture
def config(make_dataset, make_style, results, tmp_path):
    """A run whose one session is finished."""
    raw = make_dataset('sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz')
    style = write_json(tmp_path / 'style.json', make_style('T1w').to_dict())
    common = {'method': 'none', 'target': (str(style),), 'work_dir': tmp_path / 'work'}
    plan = make_plan(RunConfig(raw, results, **common))
    marker = json.loads((results / f'logs/sessions/{SESSION}.json').read_text())
    write_marker(results, SESSION, marker | {'digest': plan.sessions[0].digest})
    return RunConfig(raw, results, **common, export_fmriprep=True)


def test_a_run_exports_what_was_finished_before_too(config, capsys):
    assert run_participants(config) == 0
    told = capsys.readouterr().out
    assert config.export_fmriprep
    assert f'exported {SESSION}: {SESSION}_run-2_T1w (of 2, finer voxels' in told
    folder = config.output_dir / EXPORT_FOLDER
    assert f'fmriprep -d harmony={folder}' in told.replace('for fMRIPrep:', 'fmriprep')
    assert len(ask(folder, SESSION, QUERIES['t1w_preproc'])) == 1


def test_the_export_lies_where_it_is_wanted(config, tmp_path):
    from dataclasses import replace

    assert run_participants(replace(config, export_dir=tmp_path / 'apart')) == 0
    assert len(ask(tmp_path / 'apart', SESSION, QUERIES['t2w_preproc'])) == 1
    assert not (config.output_dir / 'derivatives').exists()
    # Without a mask fMRIPrep extracts the brain.
    assert len(ask(tmp_path / 'apart', SESSION, QUERIES['t1w_mask'])) == 1
    without = replace(config, export_dir=tmp_path / 'apart', ignore=('brain-mask',))
    assert run_participants(without) == 0
    assert ask(tmp_path / 'apart', SESSION, QUERIES['t1w_mask']) == []
    for folder, words in (
        (config.output_dir, 'holds the results'),
        (config.bids_dir / 'x', 'lies'),
    ):
        with pytest.raises(OptionError, match=words):
            check_folders(replace(config, export_dir=folder))


def test_a_session_that_cannot_be_exported_is_a_failure(config, capsys):
    scan = config.output_dir / f'sub-01/ses-a/anat/{SESSION}_acq-tse_desc-harmonized_T2w.nii.gz'
    scan.write_bytes(scan.read_bytes()[:100])
    assert run_participants(config) == 1
    assert f'failed to export {SESSION}: {scan}' in capsys.readouterr().out
