"""Sites that differ are told apart, sites that do not are not, and no person leaks."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from harmony_app.evaluation import site_classification
from harmony_app.evaluation.site_classification import (
    CLASSIFIERS,
    LINEAR_GRID,
    SVM_GRID,
    classify_sites,
)


def travelling(subjects=10, sites=3, effect=0.0, features=8, seed=2):
    """Every person at every site: person, site and noise in every feature."""
    generator = np.random.default_rng(seed)
    person = generator.normal(size=(subjects, 1, features))
    site = effect * generator.normal(size=(1, sites, features))
    table = person + site + 0.5 * generator.normal(size=(subjects, sites, features))
    names = [f'site{s}' for _ in range(subjects) for s in range(sites)]
    people = [f'{p:02}' for p in range(subjects) for _ in range(sites)]
    return table.reshape(-1, features), names, people


@pytest.fixture
def few_settings(monkeypatch):
    """A grid of two settings, where the choice is not what is tested."""
    monkeypatch.setitem(CLASSIFIERS, 'svm', SVM_GRID[:2])
    monkeypatch.setitem(CLASSIFIERS, 'linear', LINEAR_GRID[:2])


@pytest.mark.parametrize('classifier', CLASSIFIERS)
def test_sites_that_differ_are_told_apart(classifier):
    result = classify_sites(*travelling(effect=3.0), classifier=classifier)
    assert result.balanced_accuracy > 0.9
    assert result.auc > 0.95
    assert result.f1 > 0.9
    assert result.chance == 1 / 3
    assert result.sites == ('site0', 'site1', 'site2')


@pytest.mark.parametrize('classifier', CLASSIFIERS)
def test_sites_that_do_not_differ_are_at_chance(classifier, few_settings):
    reached = [
        classify_sites(*travelling(effect=0, seed=seed), classifier=classifier) for seed in range(3)
    ]
    assert np.mean([r.balanced_accuracy for r in reached]) == pytest.approx(1 / 3, abs=0.12)
    assert np.mean([r.auc for r in reached]) == pytest.approx(0.5, abs=0.12)


def test_only_the_svm_tells_a_site_around_another(few_settings):
    generator = np.random.default_rng(4)
    angle = generator.uniform(0, 2 * np.pi, 60)
    radius = np.tile([0.3, 2.0], 30) + 0.1 * generator.normal(size=60)
    table = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    design = ['inner', 'outer'] * 30, np.repeat(np.arange(30), 2).astype(str)
    assert classify_sites(table, *design).balanced_accuracy > 0.9
    assert classify_sites(table, *design, classifier='linear').balanced_accuracy < 0.75


def one_site_each(generator):
    """Twelve people, four scans each at their one site: features tell the person only."""
    person = np.repeat(generator.normal(size=(12, 6)), 4, axis=0)
    table = person + 0.05 * generator.normal(size=person.shape)
    people = np.repeat(np.arange(12), 4)
    return table, np.where(people % 2, 'A', 'B'), people.astype(str)


def test_a_person_is_never_known_from_training(few_settings):
    """Scans of one person in training and test would tell the site without fail."""
    grouped = []
    for seed in range(3):
        table, sites, people = one_site_each(np.random.default_rng(seed))
        leaking = cross_val_score(
            make_pipeline(StandardScaler(), SVC(C=10)),
            table,
            sites,
            cv=KFold(4, shuffle=True, random_state=0),
        )
        assert leaking.mean() == 1.0
        grouped.append(classify_sites(table, sites, people, folds=4).balanced_accuracy)
    assert np.mean(grouped) < 0.7


def test_no_classifier_is_told_of_a_person_it_is_tested_on(monkeypatch):
    """Watched where classifiers are trained, for the folds and for the choice of settings."""
    table, sites, people = travelling(subjects=6)
    table[:, 0] = np.array(people, float)  # the person can be read off
    trainings = []
    scores = site_classification._scores

    def watched(classifier, train, codes, test, grid):
        trainings.append((set(train[:, 0]), set(test[:, 0])))
        return scores(classifier, train, codes, test, grid)

    monkeypatch.setattr(site_classification, '_scores', watched)
    result = classify_sites(table, sites, people, folds=3)
    assert len(trainings) == 3 * (1 + 3)  # a test, and the inner folds
    assert all(train and test and not train & test for train, test in trainings)
    tested = [subject for fold in result.folds for subject in fold.subjects]
    assert sorted(tested) == sorted(set(people))
    # The people of the outer test take no part in the choice of the settings.
    for start in range(0, len(trainings), 4):
        *inner, (_, outside) = trainings[start : start + 4]
        assert not any(outside & (train | test) for train, test in inner)


def test_scores_are_those_of_scikit_learn(few_settings):
    table, sites, people = travelling(effect=0.4)
    result = classify_sites(table, sites, people)
    assert 0.4 < result.balanced_accuracy < 0.95
    assert result.balanced_accuracy == pytest.approx(
        balanced_accuracy_score(sites, result.predicted)
    )
    assert result.f1 == pytest.approx(f1_score(sites, result.predicted, average='macro'))
    assert sum(fold.scans for fold in result.folds) == len(sites)


def test_the_area_is_that_of_scikit_learn_within_a_fold():
    generator = np.random.default_rng(6)
    codes = generator.integers(0, 3, 40)
    scores = np.round(generator.normal(size=(40, 3)) + np.eye(3)[codes], 1)  # with ties
    expected = np.mean([roc_auc_score(codes == c, scores[:, c]) for c in range(3)])
    assert site_classification._auc(codes, scores, [np.arange(40)]) == pytest.approx(expected)
    # What one fold's classifier adds to all its scores changes nothing.
    folds = [np.arange(20), np.arange(20, 40)]
    within = site_classification._auc(codes, scores, folds)
    scores[20:] += 10
    assert site_classification._auc(codes, scores, folds) == pytest.approx(within)
    assert site_classification._auc(np.zeros(4, int), scores[:4], [np.arange(4)]) is None


def test_equal_seeds_give_equal_results(few_settings):
    table, sites, people = travelling(effect=0.5, subjects=6)
    first = classify_sites(table, sites, people, permutations=3, seed=7)
    assert first == classify_sites(table, sites, people, permutations=3, seed=7)


def test_units_and_constant_features_do_not_count(few_settings):
    table, sites, people = travelling(effect=0.5)
    scaled = np.column_stack([table * np.logspace(-6, 6, table.shape[1]), np.full(len(table), 0.1)])
    assert classify_sites(scaled, sites, people) == classify_sites(table, sites, people)


def test_the_permutation_test_tells_an_effect_from_none(few_settings):
    real = classify_sites(*travelling(effect=3.0, subjects=5), permutations=9)
    none = classify_sites(*travelling(effect=0.0, subjects=5), permutations=9)
    assert real.permutation_p == 1 / 10
    assert none.permutation_p > 0.1
    assert classify_sites(*travelling(subjects=5)).permutation_p is None


def test_sites_are_shuffled_within_travelling_people():
    _, sites, people = travelling()
    codes = np.unique(sites, return_inverse=True)[1]
    shuffled = site_classification._shuffle_sites(codes, np.array(people), np.random.default_rng(1))
    assert (shuffled != codes).any()
    np.testing.assert_array_equal(np.sort(shuffled.reshape(10, 3), axis=1), codes.reshape(10, 3))


def test_sites_are_shuffled_between_people_who_did_not_travel():
    people = np.repeat(np.arange(8), 3).astype(str)
    codes = np.repeat([0, 0, 0, 0, 0, 1, 1, 1], 3)
    shuffled = site_classification._shuffle_sites(codes, people, np.random.default_rng(1))
    assert (shuffled != codes).any()
    blocks = shuffled.reshape(8, 3)
    assert (blocks == blocks[:, :1]).all()
    assert sorted(blocks[:, 0]) == sorted(codes[::3])


def test_rare_sites_weigh_as_much(few_settings):
    """A majority vote would be right in most scans and at chance in the balanced accuracy."""
    generator = np.random.default_rng(3)
    sites = np.array(['large'] * 40 + ['small'] * 8)
    result = classify_sites(generator.normal(size=(48, 5)), sites, np.arange(48).astype(str))
    assert result.balanced_accuracy == pytest.approx(0.5, abs=0.2)
    assert result.chance == 0.5


@pytest.mark.parametrize(
    'change, message',
    (
        ({'classifier': 'forest'}, 'no classifier'),
        ({'folds': 1}, '2 folds at least'),
        ({'folds': 7}, '6 subjects cannot fill 7 folds'),
        ({'sites': ['A'] * 18}, 'one site, A'),
        ({'sites': ['A'] * 12 + ['B'] * 6}, 'site B has 2 subjects, 3 are needed'),
        ({'sites': [None] + ['A', 'B'] * 8 + ['A']}, 'no site'),
        ({'sites': ['A', 'B']}, 'a row of features'),
        ({'features': np.ones(18)}, 'a row of features'),
        ({'features': np.full((18, 2), np.nan)}, 'not finite'),
        ({'features': np.ones((18, 2))}, 'all features are constant'),
    ),
)
def test_what_cannot_be_classified_is_refused(change, message):
    table, sites, people = travelling(subjects=6)
    arguments = {'features': table, 'sites': sites, 'subjects': people, 'folds': 3} | change
    with pytest.raises(ValueError, match=message):
        classify_sites(**arguments)
