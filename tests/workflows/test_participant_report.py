"""Pages of participants: everything that happened is there, and nothing that could harm."""

import base64
import re
import shutil
from html.parser import HTMLParser

import pytest

from harmony_app.workflows import participant_report
from harmony_app.workflows.participant_report import LARGEST, write_report
from harmony_app.workflows.report_inputs import gather_subject, list_subjects, read_runs
from harmony_app.workflows.reporting import write_citation, write_reports


class Parsed(HTMLParser):
    """Elements of a page, and what they refer to."""

    VOID = ('meta', 'img', 'input', 'br')

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.links, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.sources += [values[key] for key in ('src', 'xlink:href', 'data') if key in values]
        if 'href' in values:
            self.links.append(values['href'])
        if 'id' in values:
            self.ids.append(values['id'])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


@pytest.fixture(scope='module')
def pages(results_tree, tmp_path_factory):
    root = tmp_path_factory.mktemp('pages') / 'out'
    shutil.copytree(results_tree, root)
    written, failures = write_reports(root)
    assert failures == []
    assert [path.name for path in written] == ['sub-01.html', 'sub-02.html']
    return {path.stem: path.read_text() for path in written} | {'root': root}


def test_a_page_stands_alone_and_is_well_formed(pages):
    for label in ('sub-01', 'sub-02'):
        parsed = Parsed(pages[label])
        assert parsed.open == []
        assert len(parsed.ids) == len(set(parsed.ids))
        assert parsed.sources
        assert all(source.startswith('data:image/png;base64,') for source in parsed.sources)
        outside = [to for to in parsed.links if not to.startswith(('#', 'logs/', 'sub-'))]
        assert outside == []
        assert len(pages[label].encode()) <= LARGEST
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', pages[label])
        assert "default-src 'none'" in policy[1]
        assert "connect-src 'none'" in policy[1]
        assert "script-src 'sha256-" in policy[1]
        assert 'unsafe-eval' not in policy[1]


def test_every_scan_is_there_in_one_window(pages):
    page = pages['sub-01']
    for name in ('sub-01_ses-a_T1w', 'sub-01_ses-a_acq-2d_FLAIR', 'sub-01_ses-b_T1w'):
        part = page.split(f'<div id="{name}"></div>')[1].split('<section')[0]
        assert part.count('One intensity window for all') == 1
        assert re.findall('data-stage="([a-z]+)"', part) == ['before', 'after', 'target']
        sizes = set(re.findall(r'base64,(.{28})', part.split('Difference</h3>')[0]))
        # width and height stand in the first bytes of a PNG: one size, so that they can be swiped
        assert len(sizes) == 1
        assert 'class="outlines"' in part
        for region in ('brain', 'GM', 'WM', 'CSF'):
            assert f'<text class="title" x="14" y="15">{region}</text>' in part
        assert part.count('class="level target"') == 3
        assert part.count('class="line target"') == 1
        assert 'Euclidean distance of the GM, WM and CSF levels to those of the target' in part


def test_what_failed_and_what_is_doubtful_is_told_first(pages):
    top = pages['sub-01'].split('<nav>')[0]
    assert 'failed sub-01_ses-a_T2w' in top
    assert 'check sub-01_ses-b_T1w</strong> registration to the template is doubtful' in top
    assert 'check sub-01_ses-a_acq-2d_FLAIR</strong> the scan may have artifacts (level 0.2' in top
    assert '3 of 4 scans harmonized.' in top
    assert 'all well' not in top
    errors = pages['sub-01'].split('<h2>Errors</h2>')[1]
    assert (
        'href="logs/20260101-120000_0a1b2c3d/crash-20260101-120100-user-harmonize-0.txt"' in errors
    )
    assert 'RuntimeError: the &lt;power&gt; failed' in errors


def test_attention_and_theta_stand_where_the_method_has_them(pages):
    part = pages['sub-01'].split('<div id="sub-01_ses-a_T1w"></div>')[1].split('<section')[0]
    assert '<td class="number">70 %</td>' in part
    assert 'sub-01_ses-a_T1w: 0.1, 0.2</title>' in part
    assert 'target: 0.5, 0.5</title>' in part
    assert '(theta)' not in pages['sub-02']


def test_words_of_a_dataset_stay_words(pages):
    page = pages['sub-02']
    assert 'alert("a' not in page
    assert page.count('&lt;script&gt;alert(') >= 2
    assert Parsed(page).tags.count('script') == 1


def test_a_scan_of_the_target_is_shown_where_there_is_one(pages):
    assert 'sub-01_ses-a, a scan of it: compare tissues, not places' in pages['sub-02']
    assert 'a drawing, no scan: the levels of mprage-3t' in pages['sub-01']


def test_the_inventory_says_what_was_skipped_and_seen(pages):
    found = pages['sub-01'].split('<h2>What was found</h2>')[1].split('<section')[0]
    assert '5 images in the anat folders, 4 used.' in found
    assert 'sub-01_ses-a_UNIT1.nii.gz' in found
    assert 'thick slices were brought to 1 mm by cubic B-splines' in found


def test_methods_are_those_that_were_used(pages):
    text = (pages['root'] / 'logs' / 'CITATION.md').read_text()
    assert 'HACA3 (Zuo et al., 2023)' in text
    assert 'landmarks (Nyúl et al., 2000)' in text
    assert 'CALAMITI' not in text
    assert 'Thick slices (FLAIR)' in text
    bib = (pages['root'] / 'logs' / 'CITATION.bib').read_text()
    assert '@article{zuo2023,' in bib
    assert 'nyul2000' in bib
    assert 'zuo2021' not in bib
    assert 'Zuo et al., 2023' not in pages['sub-02']


def test_many_sessions_have_a_page_each(pages, tmp_path):
    root = tmp_path / 'out'
    shutil.copytree(pages['root'], root)
    written = write_report(root, '01', aggregate=1)
    names = {'sub-01.html', 'sub-01_ses-a.html', 'sub-01_ses-b.html'}
    assert {path.name for path in written} == names
    overview = (root / 'sub-01.html').read_text()
    assert 'href="sub-01_ses-b.html"' in overview
    assert '<img' not in overview
    assert 'failed sub-01_ses-a_T2w' in overview
    page = (root / 'sub-01_ses-b.html').read_text()
    assert 'id="sub-01_ses-b_T1w"' in page
    assert 'id="sub-01_ses-a_T1w"' not in page
    assert 'sub-01_ses-a_UNIT1' not in page
    write_report(root, '01', aggregate=2)
    assert not (root / 'sub-01_ses-a.html').exists()


def test_a_page_that_would_be_too_large_shows_less(pages, monkeypatch):
    whole = len(pages['sub-01'].encode())
    monkeypatch.setattr(participant_report, 'LARGEST', whole - 1)
    write_report(pages['root'], '01')
    smaller = (pages['root'] / 'sub-01.html').read_text()
    assert smaller.count('data-stage="before"') == 3
    assert len(smaller.encode()) < whole
    monkeypatch.setattr(participant_report, 'LARGEST', len(smaller.encode()) - 1)
    write_report(pages['root'], '01')
    bare = (pages['root'] / 'sub-01.html').read_text()
    assert 'The page has no room for its pictures' in bare
    assert '<img' not in bare


def test_volumes_take_what_room_there_is(pages, monkeypatch):
    write_report(pages['root'], '02', view_3d=True)
    page = (pages['root'] / 'sub-02.html').read_text()
    assert 'id="volume-0-before"' in page
    assert 'id="volume-0-after"' in page
    assert len(page.encode()) <= LARGEST
    monkeypatch.setattr(participant_report, 'LARGEST', 1_000_000)
    write_report(pages['root'], '02', view_3d=True)
    assert 'id="volume-0-before"' not in (pages['root'] / 'sub-02.html').read_text()


def test_where_an_image_is_missing_the_figure_of_the_run_stands(pages, tmp_path):
    root = tmp_path / 'out'
    shutil.copytree(pages['root'], root)
    figure = root / 'sub-01/figures/sub-01_ses-a_desc-harmonized_T1w.png'
    figure.parent.mkdir()
    figure.write_bytes(b'figure of the run')
    for image in root.glob('sub-01/ses-a/anat/*desc-harmonized_T1w.nii.gz'):
        image.unlink()
    write_report(root, '01')
    page = (root / 'sub-01.html').read_text()
    assert page.count('data-stage="before"') == 2
    assert 'no images to compare</strong>' in page
    assert base64.b64encode(b'figure of the run').decode() in page


def test_the_newest_run_says_how_a_scan_ended(pages, tmp_path):
    root = tmp_path / 'out'
    shutil.copytree(pages['root'], root)
    later = root / 'logs' / '20260102-120000_00000000'
    later.mkdir()
    (later / 'outcomes.tsv').write_text(
        'scan\tsession\tstatus\tmessage\texit_code\tcrash\n'
        'sub-01_ses-a_T2w\tsub-01_ses-a\tdone\tn/a\t0\tn/a\n'
        'sub-01_ses-b_T1w\tsub-01_ses-b\tbefore\tn/a\t0\tn/a\n'
        'sub-07_T1w\tsub-07\tfailed\tstopped\t1\tn/a\n'
    )
    runs = read_runs(root)
    scans = {scan.name: scan for scan in gather_subject(root, '01', runs).scans}
    assert scans['sub-01_ses-a_T2w'].status == 'done'
    assert scans['sub-01_ses-b_T1w'].run == '20260101-120000_0a1b2c3d'
    assert list_subjects(root, runs) == ['01', '02', '07']
    write_report(root, '07')
    assert 'failed sub-07_T1w' in (root / 'sub-07.html').read_text()


def test_no_text_where_nothing_was_harmonized(tmp_path):
    (tmp_path / 'sub-01').mkdir()
    assert write_citation(tmp_path, []) == []
