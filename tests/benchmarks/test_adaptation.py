"""By whom an adapted model is judged."""

import pytest

from benchmarks.adaptation import unseen
from harmony_app.errors import OptionError

ADAPTED = {'lineage': [{'task': 'adapt', 'subjects': ['01'], 'validation_subjects': ['02']}]}


def test_nobody_the_model_has_seen_judges_it():
    assert unseen(['01', '02', '03'], ADAPTED, False) == ['03']


def test_labels_that_are_other_people_by_word_count():
    with pytest.raises(OptionError, match='--other-people'):
        unseen(['01', '02'], ADAPTED, False)
    assert unseen(['01', '02'], ADAPTED, True) == ['01', '02']


def test_a_model_that_was_not_adapted_is_told():
    with pytest.raises(OptionError, match='group --task adapt'):
        unseen(['01'], {'lineage': [{'task': 'styles'}]}, True)
