"""The documentation builds as a site without a warning, and explains what it should."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [
        '-m',
        'sphinx',
        '-W',
        '--keep-going',
        '-q',
        '-b',
        'html',
        '-d',
        str(tmp_path / 'tmp'),
    ]
    done = subprocess.run(
        [sys.executable, *command, str(DOCS), str(tmp_path / 'site')],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'site' / 'index.html').read_text()
    assert 'src="http' not in page
    assert 'href="http' not in page.partition('<body')[0]


def test_every_page_is_in_the_contents():
    contents = (DOCS / 'index.md').read_text().splitlines()
    pages = {path.stem for path in DOCS.glob('*.md')} - {'index'}
    assert pages <= set(contents)
