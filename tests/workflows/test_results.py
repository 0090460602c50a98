"""What the group level takes of the results, and what it says before it begins."""

import json
import logging

import pytest

from harmony_app.app import run
from harmony_app.bids.atomic import read_table, write_table
from harmony_app.config import RunConfig
from harmony_app.errors import ExitCode, HarmonyError, InputError, ScanError, SelectionError
from harmony_app.workflows.results import quality_rows, without_effect
from harmony_app.workflows.writing import QC_COLUMNS

SCANS = (
    'sub-01_ses-a_T1w',
    'sub-01_ses-a_T2w',
    'sub-01_ses-b_acq-3d_T1w',
    'sub-02_ses-a_T1w',
    'sub-03_T1w',
)


@pytest.fixture
def study(tmp_path):
    """An empty input and quality tables of five scans."""
    (tmp_path / 'raw').mkdir()
    for scan in SCANS:
        write_row(tmp_path / 'out', scan)
    return tmp_path


def write_row(out, scan, **cells):
    subject, *rest = scan.split('_')
    session = rest[0] if rest[0].startswith('ses-') else ''
    folder = out / subject / session / 'anat'
    stem = f'{subject}_{session}' if session else subject
    path = folder / f'{stem}_desc-harmonized_qc.tsv'
    rows = read_table(path) if path.is_file() else []
    row = {'scan': scan, 'contrast': rest[-1], 'site': 'A', 'distance_before': 0.2}
    write_table(path, list(QC_COLUMNS), [*rows, row | cells])


def run_group(study, task='report', **settings):
    settings = {'work_dir': study / 'work'} | settings
    return run(RunConfig(study / 'raw', study / 'out', 'group', task, **settings))


def gathered(study):
    return [
        row['scan']
        for path in sorted((study / 'out').glob('group_T*.tsv'))
        for row in read_table(path)
    ]


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(
    'settings, kept',
    [
        ({}, {0, 1, 2, 3, 4}),
        ({'participants': ('01',)}, {0, 1, 2}),
        # Scans without a session pass, as at the participant level.
        ({'sessions': ('a',)}, {0, 1, 3, 4}),
        ({'modalities': ('T2w', 'FLAIR')}, {1}),
        ({'participants': ('01', '02'), 'sessions': ('a',), 'modalities': ('T1w',)}, {0, 3}),
    ],
)
def test_labels_and_contrasts_choose_among_the_results(study, capsys, settings, kept):
    assert run_group(study, **settings) == ExitCode.SUCCESS
    assert set(gathered(study)) == {SCANS[index] for index in kept}
    summary = read_table(study / 'out' / 'group_summary.tsv')
    assert sum(int(row['scans']) for row in summary if row['site'] == 'all') == len(kept)
    assert 'group_summary.tsv' in capsys.readouterr().out


def test_a_filter_file_chooses_among_the_results(study):
    path = study / 'filters.json'
    path.write_text(json.dumps({'t1w': {'acquisition': None}, 't2w': {'run': '1'}}))
    run_group(study, bids_filter_file=path)
    assert set(gathered(study)) == {SCANS[0], SCANS[3], SCANS[4]}


@pytest.mark.parametrize('task', ['report', 'evaluate'])
@pytest.mark.parametrize(
    'settings, words',
    [
        ({'participants': ('01', '99')}, '--participant-label 99 has no results.*01, 02, 03'),
        ({'sessions': ('z',)}, '--session-label z has no results.*there are a, b'),
        ({'modalities': ('FLAIR',)}, r'the filters leave none of the 5 results.*\(T1w, T2w\)'),
        ({'participants': ('02',), 'sessions': ('b',)}, 'the filters leave none'),
    ],
)
def test_a_choice_without_results_is_told(study, task, settings, words):
    before = files_of(study)
    with pytest.raises(SelectionError, match=words):
        run_group(study, task, **settings)
    assert files_of(study) == before


@pytest.mark.parametrize(
    'task, read, written',
    [
        ('report', 'quality tables of', 'group_T1w.tsv, group_summary.tsv, group_report.html'),
        ('evaluate', 'images before and after', 'group.html, group_evaluation_scans.tsv'),
    ],
)
def test_a_dry_run_tells_what_it_would_do_and_writes_nothing(study, capsys, task, read, written):
    before = files_of(study)
    settings = {'dry_run': True, 'modalities': ('T1w',), 'participants': ('01',)}
    assert run_group(study, task, **settings) == ExitCode.SUCCESS
    told = capsys.readouterr().out
    assert f'task {task}, 2 scans in 2 sessions' in told
    for words in (read, written, 'sub-01_ses-a: T1w\n', 'sub-01_ses-b: acq-3d_T1w\n'):
        assert words in told
    assert 'sub-02' not in told
    assert files_of(study) == before
    assert not (study / 'work').exists()


def test_a_table_of_a_contrast_without_results_does_not_stay(study):
    run_group(study)
    assert (study / 'out' / 'group_T2w.json').exists()
    # Not asked for: what is there of it stays.
    run_group(study, modalities=('T1w',))
    assert (study / 'out' / 'group_T2w.tsv').exists()
    run_group(study, participants=('02',))
    assert not (study / 'out' / 'group_T2w.tsv').exists()
    assert not (study / 'out' / 'group_T2w.json').exists()


def test_options_that_nothing_reads_are_told(study, caplog):
    with caplog.at_level(logging.WARNING, 'harmony_app'):
        run_group(study, method='nyul', target=('T1w=x',), overwrite=True)
    (record,) = caplog.records
    assert '--method, --target, --overwrite: without effect' in record.getMessage()
    caplog.clear()
    run_group(study, random_seed=3, nprocs=2, memory_gb=4.0)
    assert not caplog.records


def test_derivatives_are_read_by_the_evaluation_only(tmp_path):
    given = {'derivatives': {'a': tmp_path}}
    assert without_effect(RunConfig(tmp_path, tmp_path, 'group', 'evaluate', **given)) == []
    assert without_effect(RunConfig(tmp_path, tmp_path, 'group', **given)) == ['--derivatives']


@pytest.mark.parametrize('task', ['report', 'evaluate'])
def test_folders_that_cannot_be_used_are_told_before_anything_is_computed(study, task):
    with pytest.raises(InputError, match='is no folder'):
        run(RunConfig(study / 'nowhere', study / 'out', 'group', task))
    with pytest.raises(HarmonyError, match='is the output folder'):
        run_group(study, task, work_dir=study / 'out')


@pytest.mark.parametrize(
    'text', ['', 'scan\tcontrast\nT1w\tT1w\n', 'scan\tcontrast\nsub-01_T1w\tbold\n', 'a\tb\n1\t2\n']
)
def test_a_table_of_another_kind_is_told(study, text):
    (path,) = (study / 'out').glob('sub-02/*/anat/*_qc.tsv')
    path.write_text(text)
    if not text:
        assert len(quality_rows(study / 'out')) == 4
        return
    with pytest.raises(ScanError, match='sub-02.*run its session again'):
        quality_rows(study / 'out')


def test_bytes_that_are_no_table_are_told(study):
    (path,) = (study / 'out').glob('sub-02/*/anat/*_qc.tsv')
    path.write_bytes(b'\xff\xfe\x00\x01')
    with pytest.raises(ScanError, match='it is not text; run its session again'):
        quality_rows(study / 'out')


def test_cells_that_are_no_numbers_are_left_out(study):
    write_row(study / 'out', 'sub-09_T1w', distance_before='inf', distance_after='x')
    row = quality_rows(study / 'out')[-1]
    assert row == {'scan': 'sub-09_T1w', 'contrast': 'T1w', 'site': 'A'}
