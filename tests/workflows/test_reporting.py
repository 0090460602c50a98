"""Pages made at the end of a run or again later, and the page of the group."""

import shutil

import pytest

from harmony_app import app
from harmony_app.cli import main
from harmony_app.workflows import reporting
from harmony_app.workflows.evaluation_inputs import result_scans
from harmony_app.workflows.group import gather
from harmony_app.workflows.group_page import scan_link
from harmony_app.workflows.results import quality_rows


@pytest.fixture
def study(results_tree, tmp_path):
    shutil.copytree(results_tree, tmp_path / 'out')
    return tmp_path


def again(study, *arguments):
    """``--reports-only`` without an input; the exit code."""
    folders = [str(study / 'gone'), str(study / 'out'), 'participant']
    return main([*folders, '--reports-only', '-w', str(study / 'work'), *arguments])


def pages(study):
    return sorted(path.name for path in (study / 'out').glob('*.html'))


def test_pages_are_made_from_the_results_alone(study, capsys):
    assert again(study) == 0
    assert pages(study) == ['sub-01.html', 'sub-02.html']
    assert f'reports in {study / "out"}: sub-01.html, sub-02.html' in capsys.readouterr().out
    first = (study / 'out/sub-02.html').read_bytes()
    (study / 'out/sub-01.html').unlink()
    assert again(study, '--participant-label', '02') == 0
    assert pages(study) == ['sub-02.html']
    # Equal results give an equal page.
    assert (study / 'out/sub-02.html').read_bytes() == first


def test_sessions_are_split_when_they_are_many(study):
    assert again(study, '--participant-label', '01', '--aggregate-session-reports', '1') == 0
    assert pages(study) == ['sub-01.html', 'sub-01_ses-a.html', 'sub-01_ses-b.html']


def test_volumes_are_put_in_on_request(study):
    assert again(study, '--participant-label', '02', '--report-3d') == 0
    assert 'id="volume-0-after"' in (study / 'out/sub-02.html').read_text()


def test_a_dry_run_writes_no_page(study, capsys):
    assert again(study, '--dry-run') == 0
    assert 'would write sub-01.html' in capsys.readouterr().out
    assert pages(study) == []


@pytest.mark.parametrize(
    'label, told', [('09', 'has no results'), (None, 'holds no results of the participant level')]
)
def test_nothing_to_report_is_an_error(study, capsys, label, told):
    if label is None:
        shutil.rmtree(study / 'out')
        (study / 'out').mkdir()
    assert again(study, *(['--participant-label', label] if label else [])) == 66
    assert told in capsys.readouterr().err


def test_a_page_that_fails_costs_that_page_only(study, monkeypatch, capsys):
    write_report = reporting.write_report

    def fail(root, label, *arguments):
        if label == '01':
            raise RuntimeError('no ink')
        return write_report(root, label, *arguments)

    monkeypatch.setattr(reporting, 'write_report', fail)
    assert again(study) == 1
    assert 'failed report of sub-01: RuntimeError: no ink' in capsys.readouterr().out
    assert pages(study) == ['sub-02.html']
    assert (study / 'out/logs/CITATION.md').is_file()


def test_a_run_reports_whom_it_worked_on_and_who_has_no_page(monkeypatch, study):
    from types import SimpleNamespace

    asked = []
    monkeypatch.setattr(reporting, 'report_run', lambda config, labels: asked.append(labels))
    config = SimpleNamespace(output_dir=study / 'out')
    (study / 'out/sub-03.html').touch()
    (study / 'out/sub-04.html').touch()
    worked = SimpleNamespace(scans=[SimpleNamespace(subject='03')])
    inventory = SimpleNamespace(sessions={('01', None): (), ('03', None): (), ('04', 'a'): ()})
    app._report(config, SimpleNamespace(sessions=[worked], inventory=inventory))
    assert asked == [['01', '03']]


def test_the_page_of_the_group_leads_to_the_participants(study):
    out = study / 'out'
    rows = quality_rows(out)
    scans = {scan.name: scan for scan in result_scans(out, rows)}
    assert scan_link(out, scans['sub-01_ses-a_T1w']) is None
    again(study)
    lines = gather(out, rows)
    assert lines[-1].endswith('group_summary.tsv, group_report.html')
    page = (out / 'group_report.html').read_text()
    assert '<a href="sub-01.html#sub-01_ses-a_T1w">sub-01_ses-a_T1w</a>' in page
    assert '<div id="sub-01_ses-a_T1w"></div>' in (out / 'sub-01.html').read_text()
    assert 'check 1</strong> with artifacts: sub-01_ses-a_acq-2d_FLAIR' in page
    assert '<script' not in page
    again(study, '--aggregate-session-reports', '1')
    assert scan_link(out, scans['sub-01_ses-a_T1w']).path == 'sub-01_ses-a.html'
