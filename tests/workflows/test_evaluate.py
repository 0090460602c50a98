import hashlib
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest

from harmony_app.app import run
from harmony_app.bids.atomic import read_table, write_table
from harmony_app.config import RunConfig
from harmony_app.errors import ExitCode, HarmonyError, InputError, ScanError
from harmony_app.evaluation import segmentation, site_classification
from harmony_app.imaging import registration
from harmony_app.imaging.io import read_scan, write_volume
from harmony_app.imaging.volume import Volume
from harmony_app.workflows import evaluate as evaluate_module
from harmony_app.workflows import evaluation_measures, evaluation_study
from harmony_app.workflows.evaluation_inputs import (
    find_pairs,
    result_scans,
    session_ages,
    travelling_subjects,
)
from harmony_app.workflows.evaluation_tables import TABLES, table_path
from harmony_app.workflows.results import quality_rows
from harmony_app.workflows.writing import QC_COLUMNS

SHAPE = (30, 32, 28)
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
GM_OF_SITE = {'A': 0.8, 'B': 0.6, 'C': 0.7, None: 0.75}
TARGET_GM = 0.65


def make_tissues(radius):
    """A ball of CSF in white matter in grey matter, as maps of 0 and 1."""
    grid = np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2
    distance = np.linalg.norm(grid, axis=-1).T
    inner = (3.5, radius - 3, radius)
    csf, wm, gm = (
        (distance >= low) & (distance < high)
        for low, high in zip((0, *inner[:2]), inner, strict=True)
    )
    return np.stack([gm, wm, csf]).astype(np.float32)


def make_image(tissues, gm, seed):
    generator = np.random.default_rng(seed)
    data = np.tensordot((gm, 1.0, 0.3), tissues, 1) + 0.4 * (tissues.sum(axis=0) == 0)
    return (data + generator.normal(0, 0.02, SHAPE)).clip(0.01).astype(np.float32)


def write_results(root, sessions, contrast='T1w', theta=False, quality=1.0, artifacts=None):
    """Outputs of (subject, session or None, site or None); after is twice the unit of before."""
    for number, (subject, session, site) in enumerate(sessions):
        stem = f'sub-{subject}_ses-{session}' if session else f'sub-{subject}'
        folder = root / f'sub-{subject}' / (f'ses-{session}' if session else '') / 'anat'
        folder.mkdir(parents=True, exist_ok=True)
        figures = root / f'sub-{subject}' / 'figures'
        figures.mkdir(exist_ok=True)
        (figures / f'{stem}_desc-harmonized_{contrast}.png').touch()
        radius = 11 + 0.3 * (sum(subject.encode()) % 3)
        tissues = make_tissues(radius)
        mni = f'{stem}_space-MNI152NLin2009aSym_res-1'
        images = {
            f'{mni}_desc-preproc_{contrast}': make_image(tissues, GM_OF_SITE[site], number),
            f'{mni}_desc-harmonized_{contrast}': 2 * make_image(tissues, TARGET_GM, number),
            f'{mni}_desc-brain_mask': tissues.sum(axis=0),
            **{
                f'{mni}_label-{name}_probseg': tissue
                for name, tissue in zip(('GM', 'WM', 'CSF'), tissues, strict=True)
            },
        }
        for name, data in images.items():
            write_volume(folder / f'{name}.nii.gz', Volume(data, AFFINE))
        scan = f'{stem}_{contrast}'
        row = {'scan': scan, 'contrast': contrast, 'site': site, 'method': 'made', 'target': 't'}
        row |= {'distance_before': 0.2 + 0.01 * number, 'distance_after': 0.1 + 0.01 * number}
        row |= {'registration_quality': quality, 'edge_agreement': 0.9}
        if artifacts:
            row |= dict(zip(('artifact_level', 'artifact_flag'), artifacts, strict=True))
        write_table(folder / f'{stem}_desc-harmonized_qc.tsv', list(QC_COLUMNS), [row])
        if theta:
            columns = ['result', 'scan', 'attention', 'theta_1', 'theta_2']
            rows = [
                {'result': scan, 'scan': scan, 'theta_1': float(number), 'theta_2': -1.0},
                {'result': scan, 'scan': 'target', 'theta_1': 0.5, 'theta_2': 2.0},
            ]
            write_table(folder / f'{stem}_desc-style_qc.tsv', columns, rows)
    return root


def count_tissues(volumes, brain, tissues, step=1):
    """In place of the segmentation: what the intensities say, noise included, without a model."""
    data = volumes[0][brain]
    counts = np.bincount(np.digitize(data, (0.5, 0.9)), weights=data, minlength=3) / 1000
    found = dict(zip(('CSF', 'GM', 'WM'), counts.tolist(), strict=True))
    return segmentation.Segmentation(np.zeros(brain.shape, np.uint8), found)


@pytest.fixture
def quick(monkeypatch):
    """Leave out what is slow and tested elsewhere."""
    monkeypatch.setattr(registration, 'register_rigid', lambda *a, **k: np.eye(4))
    monkeypatch.setattr(segmentation, 'segment_tissues', count_tissues)
    monkeypatch.setattr(evaluation_study, 'PERMUTATIONS', {'svm': 2})
    grids = {name: grid[:1] for name, grid in site_classification.CLASSIFIERS.items()}
    monkeypatch.setattr(site_classification, 'CLASSIFIERS', grids)


def evaluate(bids, out, **settings):
    bids.mkdir(exist_ok=True)
    settings = {'nprocs': 1, 'work_dir': out.parent / 'work'} | settings
    return run(RunConfig(bids, out, 'group', 'evaluate', **settings))


def rows_of(out, name):
    return read_table(table_path(out, name))


def assert_plain(out):
    """Tables with a dictionary each, no NaN anywhere, and a page that stands alone."""
    for path in out.glob('group_evaluation_*.tsv'):
        columns = path.read_text().splitlines()[0].split('\t')
        assert set(json.loads(path.with_suffix('.json').read_text())) == set(columns)
    for path in (*out.glob('group_evaluation_*.tsv'), out / 'group.html'):
        # Words, not the letters of a picture.
        text = re.sub(r'base64,[A-Za-z0-9+/=]+', '', path.read_text())
        assert not re.search(r'\b(nan|inf|NaN|None)\b', text), path.name
    page = (out / 'group.html').read_text()
    assert '://' not in page
    assert not re.search(r'<(script|link|iframe|object)\b', page)
    for source in re.findall(r'src="([^"]{0,30})', page):
        assert source.startswith('data:image/png;base64,')
    for link in re.findall(r'href="([^"]*)"', page):
        assert link.startswith('#') or (out / link).is_file(), link


@pytest.fixture
def travellers(tmp_path):
    """Three people at two sites, the first of them twice at the first site."""
    sessions = [(who, f'{site}{visit}', site) for who in ('01', '02', '03')
                for site in 'AB' for visit in ((1, 2) if (who, site) == ('01', 'A') else (1,))]  # fmt: skip
    return write_results(tmp_path / 'out', sessions, theta=True)


def test_travelling_subjects_from_first_to_last(travellers, tmp_path, quick, capsys):
    assert evaluate(tmp_path / 'raw', travellers) == ExitCode.SUCCESS
    told = capsys.readouterr().out
    assert '7 scans of 3 participants evaluated, 3 travelling, 5 pairs of scans' in told
    assert re.search(r'site told with a balanced accuracy of [0-9.]+ .*, AUC [0-9.]+ and', told)
    assert_plain(travellers)
    assert {path.name for path in travellers.glob('group_evaluation_*.tsv')} == {
        f'group_evaluation_{name}.tsv' for name in TABLES
    }

    scans = {row['scan']: row for row in rows_of(travellers, 'scans')}
    assert len(scans) == 7
    first = scans['sub-02_ses-A1_T1w']
    assert first['travelling'] == 'yes'
    assert first['reference'] == 'partner'
    # GM at 0.8 against 0.6 of the same person, then both at the target's.
    assert float(first['gm_site_distance_before']) == pytest.approx(0.2, abs=0.01)
    assert float(first['gm_site_distance_after']) < 0.02
    assert float(first['gm_wm_auroc_after']) > 0.99
    assert float(first['edge_agreement']) > 0.5

    pairs = rows_of(travellers, 'pairs')
    assert sorted(row['kind'] for row in pairs) == ['rescan'] + 4 * ['sites']
    for row in pairs:
        if row['kind'] == 'sites':
            assert float(row['rmse_after']) < float(row['rmse_before'])
            assert float(row['ssim_ceiling']) > float(row['ssim_before'])
            assert float(row['rmse_gap_closed']) > 0.8
        else:
            assert 'ssim_ceiling' not in row

    tests = {row['measure']: row for row in rows_of(travellers, 'statistics')}
    assert tests['rmse']['subjects'] == '3'
    assert float(tests['rmse']['interval_high']) < 0
    assert float(tests['rmse']['p_holm']) >= float(tests['rmse']['p_value'])
    sites = rows_of(travellers, 'sites')
    assert {(row['stage'], row['classifier']) for row in sites} == {
        (stage, name) for stage in ('before', 'after') for name in ('svm', 'linear')
    }
    told_before = next(
        row for row in sites if (row['stage'], row['classifier']) == ('before', 'linear')
    )
    assert float(told_before['balanced_accuracy']) == 1
    volumes = rows_of(travellers, 'volumes')
    assert {row['analysis'] for row in volumes} == {'sites', 'longitudinal'}
    assert {row['method'] for row in rows_of(travellers, 'embedding')} == {'pca', 'tsne'}

    page = (travellers / 'group.html').read_text()
    assert 'href="sub-01/figures/sub-01_ses-A1_desc-harmonized_T1w.png"' in page
    assert page.count('<img') == 4  # densities, strips, plane, theta
    assert 'no paired test can reach p &lt; 0.05' in page
    assert 'T1w: SSIM of one person at two sites' in page.split('Outliers</h2>')[0]


def test_a_second_evaluation_gives_the_same_bytes(travellers, tmp_path, quick):
    def digests():
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in travellers.glob('g*')}

    evaluate(tmp_path / 'raw', travellers)
    first = digests()
    evaluate(tmp_path / 'raw', travellers)
    assert digests() == first


def test_a_pair_takes_the_transform_of_the_preprocessed_scans(tmp_path, monkeypatch):
    """The second scan lies 2 mm aside, in all of its images: found once, undone in both stages."""
    out = write_results(tmp_path / 'out', [('01', 'a', 'A'), ('01', 'b', 'B')])
    for path in (out / 'sub-01/ses-b/anat').glob('*.nii.gz'):
        write_volume(path, Volume(np.roll(read_scan(path).volume.data, 2, axis=0), AFFINE))
    asked = []

    def known(moving, fixed, seed):
        asked.append((float(np.median(moving.data[moving.data > 0.9])), seed))
        matrix = np.eye(4)
        matrix[0, 3] = -2.0
        return matrix

    monkeypatch.setattr(registration, 'register_rigid', known)
    scans = result_scans(out, quality_rows(out))
    (pair,) = find_pairs(scans, {'01'})
    found = evaluation_measures.measure_pair(out, pair, seed=5)
    assert not found.notes
    assert len(asked) == 1
    assert asked[0] == (pytest.approx(1.0, abs=0.02), 5)
    # Noise only is left, of 0.02 in each.
    assert found.values['rmse_after'] < 0.05
    assert found.values['pcc_after'] > 0.98
    monkeypatch.setattr(registration, 'register_rigid', lambda *a, **k: np.eye(4))
    assert evaluation_measures.measure_pair(out, pair, seed=5).values['pcc_after'] < 0.9


def test_nothing_to_evaluate(tmp_path):
    (tmp_path / 'out').mkdir()
    with pytest.raises(InputError, match='participant level'):
        evaluate(tmp_path, tmp_path / 'out')


@pytest.mark.parametrize(
    'sessions, told',
    [
        ([('01', None, None)], ['site of 1 of 1 scans is not known', 'no pairs: nobody', 'no pca']),
        (
            [('01', None, 'A'), ('02', None, 'A'), ('03', None, 'A')],
            ['two are needed, 1 is known', 'no site classification', 'no tsne'],
        ),
        (
            [('01', 'a', 'A'), ('01', 'b', 'B')],
            ['no paired test of', '1 person has values', 'no ceiling', 'no volumes between sites'],
        ),
        (
            [('01', None, 'A'), ('02', None, 'B')],
            ['no pairs: nobody', 'no longitudinal reliability', 'two sites of 3 people'],
        ),
    ],
    ids=['one scan', 'one site', 'one traveller', 'two people'],
)
def test_what_cannot_be_computed_is_told(tmp_path, quick, capsys, sessions, told):
    out = write_results(tmp_path / 'out', sessions)
    assert evaluate(tmp_path / 'raw', out) == ExitCode.SUCCESS
    said = capsys.readouterr().out
    page = (out / 'group.html').read_text()
    for words in told:
        lines = [line for line in said.splitlines() if words in line]
        assert lines
        assert lines[0].startswith('note: ')
        assert words in page
    assert_plain(out)
    assert len(rows_of(out, 'scans')) == len(sessions)


def test_other_sites_are_the_reference_of_who_did_not_travel(tmp_path, quick):
    out = write_results(tmp_path / 'out', [('01', None, 'A'), ('02', None, 'B'), ('03', None, 'C')])
    evaluate(tmp_path / 'raw', out)
    row = rows_of(out, 'scans')[0]
    assert row['reference'] == 'sites'
    # 0.8 against the mean of 0.6 and 0.7
    assert float(row['gm_site_distance_before']) == pytest.approx(0.15, abs=0.01)
    assert not table_path(out, 'pairs').exists()


def test_a_table_of_an_earlier_evaluation_does_not_stay(travellers, tmp_path, quick):
    evaluate(tmp_path / 'raw', travellers)
    assert table_path(travellers, 'pairs').exists()
    for path in travellers.glob('sub-*/ses-*/anat/*_qc.tsv'):
        if 'ses-A1' not in path.name:
            path.unlink()
    evaluate(tmp_path / 'raw', travellers)
    assert not table_path(travellers, 'pairs').exists()
    assert not table_path(travellers, 'pairs').with_suffix('.json').exists()
    assert len(rows_of(travellers, 'scans')) == 3


def test_a_scan_that_cannot_be_read_is_left_out(travellers, tmp_path, quick, capsys):
    (image,) = travellers.glob('sub-03/ses-A1/anat/*desc-harmonized_T1w.nii.gz')
    image.write_bytes(image.read_bytes()[:500])
    assert evaluate(tmp_path / 'raw', travellers) == ExitCode.SUCCESS
    said = capsys.readouterr().out
    assert re.search(r'note: sub-03_ses-A1_T1w: left out, .*corrupt or truncated', said)
    rows = {row['scan']: row for row in rows_of(travellers, 'scans')}
    assert 'gm_ml_before' not in rows['sub-03_ses-A1_T1w']
    assert 'gm_ml_before' in rows['sub-03_ses-B1_T1w']
    assert_plain(travellers)


def test_lesions_are_measured_where_a_mask_is_there(tmp_path, quick, capsys):
    out = write_results(tmp_path / 'out', [('01', 'a', 'A'), ('02', 'a', 'A'), ('03', 'a', 'B')])
    masks = tmp_path / 'masks'
    for subject, empty in (('01', False), ('02', True)):
        folder = out / f'sub-{subject}/ses-a/anat'
        mni = f'sub-{subject}_ses-a_space-MNI152NLin2009aSym_res-1'
        white = read_scan(folder / f'{mni}_label-WM_probseg.nii.gz').volume.data
        lesions = np.zeros(SHAPE, np.float32)
        lesions[:14] = white[:14]
        for desc, level in (('preproc', 0.7), ('harmonized', 1.8)):
            path = folder / f'{mni}_desc-{desc}_T1w.nii.gz'
            data = read_scan(path).volume.data
            write_volume(path, Volume(np.where(lesions > 0, level * data, data), AFFINE))
        target = masks / f'sub-{subject}/ses-a/anat'
        target.mkdir(parents=True)
        lesions *= not empty
        write_volume(target / f'{mni}_label-lesion_mask.nii.gz', Volume(lesions, AFFINE))
    evaluate(tmp_path / 'raw', out, derivatives={'masks': masks})
    first, second, third = rows_of(out, 'scans')
    assert float(first['lesion_wm_ratio_before']) == pytest.approx(0.7, abs=0.01)
    assert float(first['lesion_wm_ratio_after']) == pytest.approx(1.8, abs=0.01)
    assert not {'lesion_wm_ratio_before', 'lesion_wm_ratio_after'} & {*second, *third}
    told = capsys.readouterr().out
    assert re.search(r'note: sub-02_ses-a_T1w, lesions: left out, .*all voxels are zero', told)
    assert 'sub-03_ses-a_T1w, lesions' not in told
    assert_plain(out)


def write_constant(path, level):
    write_volume(path, Volume(np.full(SHAPE, level, np.float32), AFFINE))


def write_few_values(path, level):
    """All but one voxel alike, which a reader of scans does not refuse."""
    data = np.full(SHAPE, level, np.float32)
    data[0, 0, 0] = 2 * level + 1
    write_volume(path, Volume(data, AFFINE))


@pytest.mark.parametrize(
    'kind, spoil, words',
    [
        ('desc-preproc_T1w', lambda path: path.write_bytes(b''), 'left out, .*corrupt'),
        ('desc-preproc_T1w', lambda path: path.unlink(), 'left out, .*no such file'),
        ('desc-preproc_T1w', lambda path: write_constant(path, 5), 'left out, .*the same value'),
        ('desc-harmonized_T1w', lambda path: write_constant(path, 0), 'left out, .*are zero'),
        ('desc-harmonized_T1w', lambda path: write_few_values(path, 5), 'after, GM-WM.*: left out'),
        ('desc-brain_mask', lambda path: path.write_bytes(b''), 'left out, .*corrupt'),
        ('desc-brain_mask', lambda path: write_constant(path, 0), 'left out, .*are zero'),
        ('label-WM_probseg', lambda path: write_few_values(path, 0), 'left out, .*white matter'),
    ],
)
def test_a_file_that_tells_nothing_is_told(tmp_path, quick, capsys, kind, spoil, words):
    out = write_results(tmp_path / 'out', [('01', None, 'A'), ('02', None, 'B')])
    (path,) = out.glob(f'sub-02/anat/*_{kind}.nii.gz')
    spoil(path)
    assert evaluate(tmp_path / 'raw', out) == ExitCode.SUCCESS
    assert re.search(f'^note: sub-02_T1w.*{words}', capsys.readouterr().out, re.MULTILINE)
    assert 'sub-02_T1w' in (out / 'group.html').read_text().split('Notes</h2>')[1]
    assert len(rows_of(out, 'scans')) == 2
    assert_plain(out)


def test_where_no_scan_can_be_measured_nothing_is_written(tmp_path, quick):
    out = write_results(tmp_path / 'out', [('01', None, 'A'), ('02', None, 'B')])
    for path in out.glob('sub-*/anat/*_mask.nii.gz'):
        path.write_bytes(b'')
    with pytest.raises(ScanError, match='none of 2 scans could be measured; .*corrupt'):
        evaluate(tmp_path / 'raw', out)
    assert not list(out.glob('group*'))


def test_results_of_several_methods_and_targets_are_told(tmp_path, quick, capsys):
    out = write_results(tmp_path / 'out', [('01', None, 'A'), ('02', None, 'B')])
    (path,) = out.glob('sub-02/anat/*_desc-harmonized_qc.tsv')
    path.write_text(path.read_text().replace('\tmade\t', '\tother\t'))
    assert evaluate(tmp_path / 'raw', out) == ExitCode.SUCCESS
    told = capsys.readouterr().out
    assert 'note: T1w: the results are of 2 methods (made, other)' in told
    assert ' targets (' not in told
    assert 'the results are of 2 methods' in (out / 'group.html').read_text()
    path.write_text(path.read_text().replace('\tother\tt\t', '\tmade\tu\t'))
    evaluate(tmp_path / 'raw', out)
    assert 'note: T1w: the results are of 2 targets (t, u)' in capsys.readouterr().out


def test_the_evaluation_of_a_choice_knows_nothing_else(travellers, tmp_path, quick, capsys):
    evaluate(tmp_path / 'raw', travellers, participants=('01',), sessions=('A1', 'B1'))
    assert '2 scans of 1 participant evaluated' in capsys.readouterr().out
    (pair,) = rows_of(travellers, 'pairs')
    assert (pair['scan'], pair['other_scan']) == ('sub-01_ses-A1_T1w', 'sub-01_ses-B1_T1w')
    page = (travellers / 'group.html').read_text()
    assert 'sub-03' not in page
    assert 'ses-A2' not in page


def test_doubtful_registrations_are_listed_with_their_figure(tmp_path, quick):
    site = 'A & <B>'
    GM_OF_SITE[site] = 0.7
    out = write_results(tmp_path / 'out', [('01', None, site)], quality=0.3)
    evaluate(tmp_path / 'raw', out)
    page = (out / 'group.html').read_text()
    outliers = page[page.index('<h2>Outliers') : page.index('<h2>Distributions')]
    assert 'registration quality below 0.5' in outliers
    assert 'href="sub-01/figures/sub-01_desc-harmonized_T1w.png"' in outliers
    assert site not in page
    assert 'A &amp; &lt;B&gt;' in page


@pytest.mark.parametrize('flag', ['poor', 'doubtful'])
def test_scans_with_many_artifacts_are_listed(tmp_path, quick, flag):
    out = write_results(tmp_path / 'out', [('01', None, 'A')], artifacts=(0.7, flag))
    evaluate(tmp_path / 'raw', out)
    (row,) = rows_of(out, 'scans')
    assert (float(row['artifact_level']), row['artifact_flag']) == (0.7, flag)
    page = (out / 'group.html').read_text()
    outliers = page[page.index('<h2>Outliers') : page.index('<h2>Distributions')]
    assert ('artifacts of the scan: poor' in outliers) == (flag == 'poor')


def test_who_travelled_is_told_by_the_table_or_by_the_sites(tmp_path):
    out = write_results(
        tmp_path / 'out',
        [('01', 'a', 'A'), ('01', 'b', 'B'), ('02', 'a', 'A'), ('03', 'a', 'A'), ('04', 'a', None)],
    )
    scans = result_scans(out, quality_rows(out))
    raw = tmp_path / 'raw'
    raw.mkdir()
    assert travelling_subjects(scans, raw) == {'01'}
    (raw / 'participants.tsv').write_text(
        'participant_id\ttraveling_subject\nsub-02\tTrue\nsub-03\tno\nsub-04\t1\nsub-09\tyes\n'
    )
    assert travelling_subjects(scans, raw) == {'01', '02', '04'}


def test_pairs_are_two_sites_or_a_rescan(tmp_path):
    out = tmp_path / 'out'
    write_results(out, [('01', 'a', 'A'), ('01', 'b', 'B'), ('01', 'c', 'A'), ('01', 'd', None)])
    write_results(out / 'other', [('01', 'a', 'A')], contrast='T2w')
    rows = quality_rows(out) + quality_rows(out / 'other')
    pairs = find_pairs(result_scans(out, rows), {'01'})
    assert [(p.first.session, p.second.session, p.rescan) for p in pairs] == [
        ('a', 'b', False),
        ('a', 'c', True),
        ('b', 'c', False),
    ]
    assert find_pairs(result_scans(out, rows), set()) == []


def test_runs_of_a_session_are_rescans_and_other_protocols_are_not():
    names = ['sub-1_acq-x_run-1_T1w', 'sub-1_acq-x_run-2_T1w', 'sub-1_acq-y_T1w']
    rows = [{'scan': name, 'contrast': 'T1w', 'site': 'A'} for name in names]
    pairs = find_pairs(result_scans(Path('nowhere'), rows), {'1'})
    assert [(p.first.name, p.second.name) for p in pairs] == [(names[0], names[1])]


def test_ages_come_from_the_sessions_tables(tmp_path):
    (tmp_path / 'sub-1').mkdir()
    table = 'session_id\tage\nses-a\t30.5\nses-b\tn/a\nses-c\told\n'
    (tmp_path / 'sub-1' / 'sub-1_sessions.tsv').write_text(table)
    rows = [{'scan': f'sub-1_ses-{s}_T1w', 'contrast': 'T1w'} for s in 'abc']
    assert session_ages(result_scans(tmp_path, rows), tmp_path) == {'sub-1_ses-a': 30.5}


def test_several_processes_keep_the_order():
    assert evaluate_module._each(math.sqrt, [9.0, 4.0, 1.0], 2, 'scan') == [3.0, 2.0, 1.0]


def test_a_process_that_is_killed_is_told():
    with pytest.raises(HarmonyError, match='--nprocs 1'):
        evaluate_module._each(os._exit, [1, 1], 2, 'scan')


@pytest.mark.parametrize('memory, workers', [(None, 8), (5.0, 2), (0.5, 1)])
def test_processes_fit_into_the_memory(memory, workers):
    config = RunConfig(Path('in'), Path('out'), 'group', nprocs=8, memory_gb=memory)
    assert evaluate_module._workers(config) == workers


def test_images_between_the_thetas_stand_on_the_page(travellers, tmp_path, quick, monkeypatch):
    def walks(config, scans):
        assert len(scans) == 7
        return [(b'\x89PNG', 'a walk of seven scans')], ['no images between others']

    monkeypatch.setattr('harmony_app.workflows.evaluation_theta.theta_walks', walks)
    assert evaluate(tmp_path / 'raw', travellers) == ExitCode.SUCCESS
    page = (travellers / 'group.html').read_text()
    assert page.count('<img') == 5
    assert 'a walk of seven scans' in page.split('Contrast representations</h2>')[1]
    assert 'no images between others' in page
