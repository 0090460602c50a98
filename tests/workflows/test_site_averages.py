"""The average of the site that a scan comes from: where it is found, and that it is right."""

import json
from dataclasses import replace

import numpy as np
import pytest

from harmony_app.bids.discovery import discover
from harmony_app.bids.filters import Selection
from harmony_app.imaging.profile import TissueProfile
from harmony_app.workflows.records import write_record
from harmony_app.workflows.site_averages import (
    SiteAverages,
    average_sites,
    find_site_averages,
)
from harmony_app.workflows.targets import resolve_targets


@pytest.fixture
def dataset(make_dataset):
    """Three people at A (one of them twice), two at B, one that nobody knows the site of."""
    people = {'01': 'A', '02': 'A', '03': 'A', '04': 'B', '05': 'B', '06': 'n/a'}
    table = 'participant_id\tsite\n' + ''.join(f'sub-{p}\t{s}\n' for p, s in people.items())
    return make_dataset(
        *[f'sub-{p}/anat/sub-{p}_T1w.nii.gz' for p in people if p != '01'],
        *[f'sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz' for s in 'ab'],
        **{'participants.tsv': table},
    )


@pytest.fixture
def model(tmp_path, make_style):
    """A model that knows site A by five people, and B by one."""
    styles = [replace(make_style('T1w', 'A'), scans=5), replace(make_style('T1w', 'B'), scans=1)]
    folder = tmp_path / 'model'
    folder.mkdir()
    content = {'method': 'transfer', 'styles': [style.to_dict() for style in styles]}
    (folder / 'model.json').write_text(json.dumps(content))
    return folder


def find(choice, dataset, target, model=None, participants=()):
    scans = discover(dataset, Selection(participants=participants)).scans
    targets = resolve_targets([target], dataset, model)
    return find_site_averages(choice, scans, targets, dataset, model)


def test_a_site_target_brings_the_average_of_the_other_sites(dataset):
    found = find('auto', dataset, 'site:B')
    # two people are no average
    assert list(found.scans) == ['A']
    assert [scan.subject for scan in found.scans['A']['T1w']] == ['01', '02', '03']
    assert found.describe() == ['average of A: T1w (3 scans)']


def test_the_average_does_not_depend_on_who_is_harmonized(dataset):
    alone = find('auto', dataset, 'site:B', participants=('02',))
    assert alone == find('auto', dataset, 'site:B')
    assert find('auto', dataset, 'site:B', participants=('04',)) == SiteAverages()


def test_other_targets_take_the_average_where_they_are_told_to(dataset):
    assert find('auto', dataset, 'mprage-3t') == SiteAverages()
    assert list(find('dataset', dataset, 'mprage-3t').scans) == ['A']
    assert find('off', dataset, 'site:B') == SiteAverages()


def test_a_style_of_the_model_with_the_name_of_the_site_comes_first(dataset, model, make_style):
    found = find('auto', dataset, 'A', model)
    assert found.profiles == {'A': {'T1w': make_style('T1w').profile}}
    assert not found.scans
    assert not find('dataset', dataset, 'A', model).scans


def profile(gm):
    return TissueProfile((gm, 1.0, 0.2), (0.1,) * 3, tuple(np.linspace(0, 1, 100)), ())


def records(tmp_path, levels, failed=(), doubtful=()):
    finished, aligned = [], []
    for name, gm in levels.items():
        facts = {'name': name, 'profile': profile(gm).to_dict()}
        if name in failed:
            facts['failure'] = {'message': 'x', 'exit_code': 1}
        finished.append(write_record(tmp_path / f'{name}.zip', facts))
        facts = {'doubtful': name in doubtful}
        aligned.append(write_record(tmp_path / f'{name}_session.zip', facts))
    return finished, aligned


def test_profiles_are_averaged_over_the_scans_that_can_be_used(tmp_path):
    levels = {'a': 0.6, 'b': 0.7, 'c': 0.8, 'd': 5.0, 'e': 9.0}
    paths = records(tmp_path, levels, failed='d', doubtful='e')
    found = average_sites(*paths, {'A': {'T1w': list(levels)}, 'B': {'T1w': ['a', 'b', 'd']}})
    assert list(found) == ['A']
    average = TissueProfile.from_dict(found['A']['T1w'])
    np.testing.assert_allclose(average.levels, profile(0.7).levels)
    np.testing.assert_allclose(average.brain, profile(0.7).brain)
