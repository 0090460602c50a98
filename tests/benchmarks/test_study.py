"""Studies that can be and that cannot."""

from pathlib import Path

import pytest

from benchmarks.study import Study
from harmony_app.errors import InputError, OptionError


@pytest.mark.parametrize(
    ('text', 'error'),
    [
        ('subjects: 1', OptionError),
        ('sites: [siteA]', OptionError),
        ('pairs: some', OptionError),
        ('contrasts: [bold]', OptionError),
        ('reference: nowhere', OptionError),
        ('people: 3', OptionError),
        ('- 3', OptionError),
        ('a: [', InputError),
    ],
)
def test_a_study_that_cannot_be_is_refused(tmp_path, text, error):
    path = tmp_path / 'study.yaml'
    path.write_text(text)
    with pytest.raises(error):
        Study.read(path)


def test_a_study_of_ones_own(tmp_path):
    path = tmp_path / 'study.yaml'
    path.write_text(
        'sites: [siteB, mine, ge-signa]\nsite_file: sites.yaml\nsubjects: 3\nreference: ge-signa\n'
    )
    study = Study.read(path)
    assert study.sites == ('siteB', 'mine', 'ge-signa')
    assert study.site_file == str(tmp_path / 'sites.yaml')
    assert study.reference_session == 'gesigna'
    assert study.quick().subjects == 2
    assert study.quick().reference_session == 'siteB'


def test_the_example_is_the_default_study_with_all_contrasts():
    example = Study.read(Path(__file__).parents[2] / 'benchmarks' / 'study.yaml')
    assert example == Study(contrasts=('T1w', 'T2w', 'PDw', 'FLAIR'), reference='siteA')


def test_a_study_interrupted_is_begun_again_and_another_is_refused(tmp_path, monkeypatch):
    def write(out, settings):
        out.mkdir()
        (out / 'half').touch()
        calls.append(settings)
        if len(calls) == 1:
            raise KeyboardInterrupt

    calls = []
    monkeypatch.setattr('benchmarks.study.write_dataset', write)
    with pytest.raises(KeyboardInterrupt):
        Study().make(tmp_path)
    assert not (tmp_path / 'bids').exists()
    assert Study().make(tmp_path) == tmp_path / 'bids'
    assert Study(reference='siteC').make(tmp_path) == tmp_path / 'bids'
    with pytest.raises(OptionError, match='another study'):
        Study(seed=8).make(tmp_path)
    (tmp_path / 'study.json').unlink()
    with pytest.raises(OptionError, match='not of a study'):
        Study().make(tmp_path)
