"""The participant level on small synthetic heads, interrupted, continued, and judged."""

import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from harmony_app import app
from harmony_app.bids.atomic import read_table
from harmony_app.bids.transforms import read_itk_affine
from harmony_app.cli import main
from harmony_app.imaging.grid import SPACE, WORKING_AFFINE, WORKING_SHAPE
from harmony_app.workflows import harmonizing, steps

MNI = f'space-{SPACE}_res-1'
FILES = {
    f'{name}{extension}'
    for name in [
        'desc-harmonized_T1w',
        'desc-harmonized_T2w',
        'desc-brain_mask',
        'desc-brainT2w_mask',
        f'{MNI}_desc-harmonized_T1w',
        f'{MNI}_desc-harmonized_T2w',
        f'{MNI}_desc-preproc_T1w',
        f'{MNI}_desc-preproc_T2w',
        f'{MNI}_desc-brain_mask',
        f'{MNI}_label-GM_probseg',
        f'{MNI}_label-WM_probseg',
        f'{MNI}_label-CSF_probseg',
    ]
    for extension in ('.nii.gz', '.json')
} | {
    f'from-T1w_to-{SPACE}_mode-image_xfm.txt',
    f'from-T2w_to-{SPACE}_mode-image_xfm.txt',
    'from-T2w_to-T1w_mode-image_xfm.txt',
    'desc-harmonized_qc.tsv',
    'desc-harmonized_qc.json',
}
"""What a session of a T1w and a T2w gives, without sub- and ses-: change it knowingly."""


def save_head(path, head, axes='LPS', dtype=np.int16):
    """Write a head as a scanner would: integers, other axes, codes 1 and 1."""
    image = nib.Nifti1Image(np.rint(head.data).astype(dtype), head.affine)
    start = nib.orientations.io_orientation(head.affine)
    end = nib.orientations.axcodes2ornt(axes)
    image = image.as_reoriented(nib.orientations.ornt_transform(start, end))
    image.header.set_xyzt_units('mm')
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def digests(root):
    """Content of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


class Story:
    """A dataset and the folders of its runs; registration is known instead of found."""

    def __init__(self, folder, make_head, make_style):
        self.raw, self.out, self.work = folder / 'raw', folder / 'out', folder / 'work'
        description = {'Name': 'heads', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
        for contrast in ('T1w', 'T2w'):
            head, self.to_working = make_head(contrast)
            save_head(self.raw / f'sub-01/ses-a/anat/sub-01_ses-a_{contrast}.nii.gz', head)
        (self.raw / 'dataset_description.json').write_text(json.dumps(description))
        bad = self.raw / 'sub-02/anat/sub-02_T1w.nii.gz'
        bad.parent.mkdir(parents=True)
        whole = (self.raw / 'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz').read_bytes()
        bad.write_bytes(whole[: len(whole) // 2])
        self.style = folder / 'style.json'
        styles = [make_style(contrast).to_dict() for contrast in ('T1w', 'T2w')]
        self.style.write_text(json.dumps(styles))
        self.input = digests(self.raw)

    def run(self, *arguments):
        common = [self.raw, self.out, 'participant', '--method', 'histogram-matching']
        common += ['--target', self.style, '-w', self.work, '--nprocs', 1]
        return main([str(argument) for argument in (*common, *arguments)])


@pytest.fixture(scope='module')
def story(tmp_path_factory, make_head, make_style, known_template):
    """Run the app three times: a crash in the middle, its continuation, and once more."""
    monkeypatch = pytest.MonkeyPatch()
    told = []
    monkeypatch.setattr(app, '_say', told.append)
    story = Story(tmp_path_factory.mktemp('story'), make_head, make_style)

    module = 'harmony_app.imaging.registration'
    monkeypatch.setattr(f'{module}.register_template', known_template(story.to_working))
    monkeypatch.setattr(f'{module}.register_rigid', lambda *_: np.eye(4))

    def crash(*_, **__):
        raise RuntimeError('the power failed')

    with monkeypatch.context() as patch:
        patch.setattr(harmonizing, 'harmonize_session', crash)
        story.code_crashed = story.run()
    story.told_crashed = told[-1]
    story.after_crash = digests(story.out)

    prepared = []
    prepare_scan = steps.prepare_scan
    monkeypatch.setattr(
        steps, 'prepare_scan', lambda *a, **k: prepared.append(a) or prepare_scan(*a, **k)
    )
    story.code = story.run()
    story.told = told[-1]
    story.prepared_again = len(prepared)
    story.results = digests(story.out)

    story.code_again = story.run('--participant-label', '01', '--export-fmriprep')
    story.told_again = told[-1]
    story.results_again = digests(story.out)
    yield story
    monkeypatch.undo()


@pytest.fixture
def anat(story):
    return story.out / 'sub-01/ses-a/anat'


def image(folder, name):
    return nib.load(folder / f'sub-01_ses-a_{name}.nii.gz')


def test_a_crash_costs_its_session_and_says_where_to_look(story):
    assert story.code_crashed == 1
    assert 'failed sub-01_ses-a_T1w: sub-01_ses-a stopped; see' in story.told_crashed
    assert '0 done, 3 failed, 0 skipped' in story.told_crashed
    crashes = list(story.out.glob('logs/*/crash-*harmonize*.txt'))
    assert len(crashes) == 2
    assert all('the power failed' in crash.read_text() for crash in crashes)
    # Results of a session appear whole or not at all; the pages tell what became of it.
    there = [name for name in story.after_crash if name.startswith('sub-')]
    assert there == ['sub-01.html', 'sub-02.html']
    told = read_table(crashes[0].parent / 'outcomes.tsv')
    assert [row['status'] for row in told] == ['failed'] * 3
    assert {row['crash'] for row in told} == {crash.name for crash in crashes}


def test_an_interrupted_run_continues_where_it_stopped(story):
    assert story.prepared_again == 0
    assert '2 done, 1 failed, 0 skipped' in story.told
    assert story.code == 1


def test_one_bad_scan_costs_that_scan_and_is_named(story):
    assert 'failed sub-02_T1w: ' in story.told
    assert 'corrupt or truncated' in story.told
    marker = json.loads((story.out / 'logs/sessions/sub-02.json').read_text())
    assert marker['scans']['sub-02_T1w']['exit_code'] == 65
    assert not (story.out / 'sub-02').exists()


def test_the_end_says_where_everything_is_and_last_how_many_ended_how(story):
    *_, results, logs, counts = story.told.splitlines()
    assert results == f'results in {story.out}'
    assert logs.startswith(f'settings and logs in {story.out / "logs"}')
    assert counts.startswith('2 done, 1 failed, 0 skipped in ')


def test_a_finished_session_is_not_computed_again(story):
    assert story.code_again == 0
    assert '2 done, 0 failed, 0 skipped (2 were done before)' in story.told_again
    images = {name: value for name, value in story.results.items() if name.startswith('sub-')}
    assert images.items() <= story.results_again.items()


def test_the_input_is_untouched(story):
    assert digests(story.raw) == story.input


def test_the_session_gives_these_files(anat):
    assert {path.name.removeprefix('sub-01_ses-a_') for path in anat.iterdir()} == FILES
    figures = anat.parents[1] / 'figures'
    names = {path.name.removeprefix('sub-01_ses-a_') for path in figures.iterdir()}
    assert names == {'desc-harmonized_T1w.png', 'desc-harmonized_T2w.png'}


def test_the_export_holds_what_fmriprep_asks_for_and_nothing_else(story):
    anat = story.out / 'derivatives/for-fmriprep/sub-01/ses-a/anat'
    names = {path.name.removeprefix('sub-01_ses-a_') for path in anat.iterdir()}
    wanted = ('desc-preproc_T1w', 'desc-preproc_T2w', 'desc-brain_mask')
    assert names == {f'{name}{end}' for name in wanted for end in ('.nii.gz', '.json')}
    assert 'exported sub-01_ses-a: sub-01_ses-a_T1w (the only one)' in story.told_again
    t1w, t2w = (nib.load(anat / f'sub-01_ses-a_desc-preproc_{c}.nii.gz') for c in ('T1w', 'T2w'))
    assert t1w.shape == t2w.shape
    assert np.array_equal(t1w.affine, t2w.affine)


def test_the_run_gives_these_files(story):
    """All of them: change the list knowingly, and say in docs/outputs.md what a new one is."""
    golden = (Path(__file__).parent / 'workflows' / 'golden_outputs.txt').read_text().split()
    found = set()
    for name in story.results:
        name = re.sub(r'logs/\d{8}-\d{6}_[0-9a-f]{8}/', 'logs/RUN/', name)
        found.add(re.sub(r'crash-\d{8}-\d{6}-.*', 'crash-TIME-USER-NODE-ID.txt', name))
    assert sorted(found) == sorted(golden)


def test_the_pages_say_what_happened(story):
    page = (story.out / 'sub-01.html').read_text()
    for name in ('sub-01_ses-a_T1w', 'sub-01_ses-a_T2w'):
        assert f'<div id="{name}"></div>' in page
    assert 'class="message good"' in page
    assert page.count('data-stage="before"') == page.count('data-stage="target"') == 2
    # the target's own curve: its style is kept with the session
    assert page.count('class="line target"') == 2
    assert 'histogram matching' in page
    failed = (story.out / 'sub-02.html').read_text()
    assert 'failed sub-02_T1w' in failed.split('<nav>')[0]
    assert 'corrupt or truncated' in failed
    assert 'No scan was harmonized, so there is nothing to cite.' in failed
    text = (story.out / 'logs/CITATION.md').read_text()
    assert '2 MR scans (T1w and T2w) of 1 session' in text
    assert 'Gorgolewski et al., 2016' in text
    assert '@article{gorgolewski2016,' in (story.out / 'logs/CITATION.bib').read_text()


def test_pages_are_made_again_without_the_input(story, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(story.out, out)
    page = (out / 'sub-01.html').read_text()
    (out / 'sub-01.html').unlink()
    gone = tmp_path / 'gone'
    assert main([str(gone), str(out), 'participant', '--reports-only', '-w', str(tmp_path)]) == 0
    assert (out / 'sub-01.html').read_text() == page
    label = ['--reports-only', '--participant-label', '09', '-w', str(tmp_path)]
    assert main([str(gone), str(out), 'participant', *label]) == 66


def test_a_page_that_fails_costs_no_result_and_is_told(story, tmp_path, monkeypatch):
    from harmony_app.workflows import reporting

    later = copy.copy(story)
    later.out = tmp_path / 'out'
    shutil.copytree(story.out, later.out)
    (later.out / 'sub-01.html').unlink()

    def fail(*_, **__):
        raise RuntimeError('no ink')

    told = []
    monkeypatch.setattr(app, '_say', told.append)
    monkeypatch.setattr(reporting, 'write_report', fail)
    assert later.run('--participant-label', '01') == 1
    assert 'failed report of sub-01: RuntimeError: no ink' in told[-1]
    assert '2 done, 0 failed, 0 skipped (2 were done before)' in told[-1]
    images = {name: value for name, value in story.results.items() if name.startswith('sub-01/')}
    assert images.items() <= digests(later.out).items()
    monkeypatch.undo()
    # The next run makes up for it.
    assert later.run('--participant-label', '01') == 0
    assert (later.out / 'sub-01.html').is_file()


@pytest.mark.parametrize('tree', ['.', 'derivatives/for-fmriprep'])
def test_the_validator_finds_no_error(story, tree):
    validator = shutil.which('bids-validator-deno') or shutil.which(
        'bids-validator-deno', path=Path(sys.executable).parent
    )
    if not validator:
        pytest.skip('bids-validator-deno is not installed')
    done = subprocess.run(
        [validator, str(story.out / tree), '--format', 'json'],
        capture_output=True,
        text=True,
        check=False,
    )
    issues = json.loads(done.stdout)['issues']['issues']
    assert [issue for issue in issues if issue['severity'] == 'error'] == []
    assert done.returncode == 0


@pytest.mark.parametrize('name', ['desc-harmonized_T1w', 'desc-brain_mask'])
def test_native_results_lie_exactly_where_the_scan_lies(story, anat, name):
    source = nib.load(story.raw / 'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz')
    result = image(anat, name)
    assert result.shape == source.shape
    assert np.array_equal(result.affine, source.affine)
    assert result.get_data_dtype() == (np.uint8 if 'mask' in name else np.float32)
    for field in ('pixdim', 'qform_code', 'sform_code', 'srow_x', 'quatern_b', 'qoffset_x'):
        assert np.array_equal(result.header[field], source.header[field]), field


def test_native_and_template_results_show_the_same_head(story, anat):
    native = image(anat, 'desc-harmonized_T1w')
    ras = nib.as_closest_canonical(native)
    template = image(anat, f'{MNI}_desc-harmonized_T1w')
    assert template.shape == WORKING_SHAPE
    assert np.array_equal(template.affine, WORKING_AFFINE)
    matrix = read_itk_affine(anat / f'sub-01_ses-a_from-T1w_to-{SPACE}_mode-image_xfm.txt')
    assert np.allclose(matrix, story.to_working)
    index = np.array([24, 28, 24])
    point = matrix @ ras.affine @ [*index, 1]
    there = np.rint((np.linalg.inv(WORKING_AFFINE) @ point)[:3]).astype(int)
    patch = tuple(slice(i - 8, i + 9) for i in there)
    around = tuple(slice(i - 2, i + 3) for i in index)
    assert np.mean(template.dataobj[patch]) == pytest.approx(np.mean(ras.dataobj[around]), rel=0.1)


def test_intensities_are_those_of_the_target(anat):
    row = next(
        r
        for r in read_table(anat / 'sub-01_ses-a_desc-harmonized_qc.tsv')
        if r['contrast'] == 'T1w'
    )
    assert float(row['distance_after']) < 0.5 * float(row['distance_before'])
    assert float(row['edge_agreement']) > 0.7
    brain = np.asarray(image(anat, f'{MNI}_desc-brain_mask').dataobj) > 0
    white = np.asarray(image(anat, f'{MNI}_label-WM_probseg').dataobj) > 0.95
    harmonized = np.asarray(image(anat, f'{MNI}_desc-harmonized_T1w').dataobj)
    preproc = np.asarray(image(anat, f'{MNI}_desc-preproc_T1w').dataobj)
    assert np.median(harmonized[brain & white]) == pytest.approx(1000, rel=0.1)
    assert np.median(preproc[brain & white]) == pytest.approx(1, rel=0.1)


def test_sidecars_say_how_it_was_made(anat):
    sidecar = json.loads((anat / 'sub-01_ses-a_desc-harmonized_T1w.json').read_text())
    assert sidecar['Sources'] == ['bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz']
    assert sidecar['HarmonizationMethod'] == 'histogram-matching'
    assert sidecar['HarmonizationTarget'] == 'made'
    assert sidecar['SkullStripped'] is False
    assert sidecar['SourceScan']['Orientation'] == 'LPS'
    assert 'SpatialReference' not in sidecar
    thick = json.loads((anat / f'sub-01_ses-a_{MNI}_desc-harmonized_T1w.json').read_text())
    assert thick['SpatialReference'] == SPACE
    assert any('B-spline' in note for note in thick['SourceScan']['Notes'])


def test_settings_and_inputs_stand_beside_the_results(story):
    logs = sorted(story.out.glob('logs/2*'))
    assert len(logs) == 3
    settings = (logs[0] / 'harmony_app.toml').read_text()
    assert 'method = "histogram-matching"' in settings
    assert 'random_seed' in settings
    rows = read_table(logs[0] / 'inputs.tsv')
    assert [row['status'] for row in rows] == ['use'] * 3


def test_scratch_of_what_is_written_is_cleared_away(story):
    # What failed is kept, so that a repaired file is all that is computed again.
    kept = {path.parent.parent.name for path in story.work.rglob('*.zip')}
    assert kept == {'sub_02_prepare_wf', 'sub_02_wf'}


def test_the_group_level_gathers_the_tables(story, capsys):
    main([str(story.raw), str(story.out), 'group'])
    rows = read_table(story.out / 'group_T1w.tsv')
    assert [row['scan'] for row in rows] == ['sub-01_ses-a_T1w']
    dictionary = json.loads((story.out / 'group_T1w.json').read_text())
    assert set(dictionary) >= set(rows[0])
    summary = read_table(story.out / 'group_summary.tsv')
    assert {row['contrast'] for row in summary} == {'T1w', 'T2w'}
    assert float(summary[0]['distance_after']) < float(summary[0]['distance_before'])


@pytest.mark.slow
def test_two_runs_with_nothing_faked_give_the_same_bytes(tmp_path, make_head, make_style):
    """The command itself, in a bare environment: no HOME, registration and all."""
    head, to_working = make_head('T1w', 3.0, (6.0, -4.0, 8.0))
    raw = tmp_path / 'raw'
    save_head(raw / 'sub-01/anat/sub-01_T1w.nii.gz', head, 'PSR')
    description = {'Name': 'head', 'BIDSVersion': '1.10.0'}
    (raw / 'dataset_description.json').write_text(json.dumps(description))
    style = tmp_path / 'style.json'
    style.write_text(json.dumps(make_style('T1w').to_dict()))
    results = []
    for number in ('1', '2'):
        out = tmp_path / f'out{number}'
        arguments = ['run.py', raw, out, 'participant', '--method', 'nyul', '--target', style]
        # The second run with worker processes: the same voxels however it is run.
        arguments += ['-w', tmp_path / f'work{number}', '--nprocs', number, '--mem', '8G']
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[1],
            env=os.environ | {'HOME': '/nonexistent'},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith('1 done, 0 failed, 0 skipped in ')
        results.append({k: v for k, v in digests(out).items() if k.endswith('.nii.gz')})
        # Scratch of a written session is cleared away.
        assert not list((tmp_path / f'work{number}').rglob('*.zip'))
    assert results[0] == results[1]
    assert len(results[0]) == 8
    matrix = read_itk_affine(out / f'sub-01/anat/sub-01_from-T1w_to-{SPACE}_mode-image_xfm.txt')
    # The template itself is registered to the template: centres agree within two voxels.
    centre = np.array([0, -18, 5, 1])
    apart = matrix @ np.linalg.inv(to_working) @ centre - centre
    assert np.linalg.norm(apart[:3]) < 6
