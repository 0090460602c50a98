"""How well a classifier tells the site of a scan: before and after harmonization.

What harmonization leaves of the scanner can be learned. ImUnity (section 2.4.2) trains an SVM
on radiomic features, DLEST (section 4.2.2, task 2) a network on the scans; the nearer the
classifier comes to chance, the less is left. It is trained anew on the scans it is tested
with, harmonized or not, and never sees the people it is tested on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SVM_GRID = tuple(
    {'C': penalty, 'gamma': gamma} for penalty in (1, 10, 0.1, 100) for gamma in (1, 0.1, 10, 0.01)
)
"""Settings of the SVM; gamma in units of one over the number of features. The usual ones come
first: of settings that do as well, the first is taken."""

LINEAR_GRID = tuple({'C': penalty} for penalty in (1, 0.1, 10, 0.01, 100, 0.001))
"""Settings of the logistic regression."""

CLASSIFIERS = {'svm': SVM_GRID, 'linear': LINEAR_GRID}
"""Classifiers by name: radial basis function SVM, and logistic regression."""

INNER_FOLDS = 3
"""Most folds of the people in training that choose the settings."""

FEWEST_SUBJECTS = 3
"""Fewest people of a site: one to test on, one to train on and one to choose settings by."""


@dataclass(frozen=True)
class FoldScore:
    """What a classifier reached on the people of one fold.

    Parameters
    ----------
    subjects : tuple of str
        People it was tested on.
    scans : int
        Their scans.
    balanced_accuracy, f1 : float
        Recall and F1, each averaged over the sites of the fold, 0 to 1.
    auc : float or None
        Area under the ROC curve, averaged over the sites against the rest; None where
        the fold has one site only.
    settings : dict
        Settings chosen on the other people.
    """

    subjects: tuple[str, ...]
    scans: int
    balanced_accuracy: float
    f1: float
    auc: float | None
    settings: dict[str, float]


@dataclass(frozen=True)
class SiteClassification:
    """How well the site of a scan is told, over all folds.

    Parameters
    ----------
    classifier : str
        One of :data:`CLASSIFIERS`.
    sites : tuple of str
        Sites, sorted.
    balanced_accuracy, f1 : float
        Recall and F1 of all scans, each averaged over the sites, 0 to 1.
    auc : float or None
        Area under the ROC curve of a site against the rest, averaged over the sites:
        the share of pairs of scans of one fold that their scores order rightly. None
        where no fold has scans of two sites.
    chance : float
        Balanced accuracy of guessing: one over the number of sites.
    predicted : tuple of str
        Site of each scan, by the classifier that has not seen its person.
    folds : tuple of FoldScore
    permutation_p : float or None
        Share of shuffled sites that are told as well; None where none were shuffled.
    """

    classifier: str
    sites: tuple[str, ...]
    balanced_accuracy: float
    auc: float | None
    f1: float
    chance: float
    predicted: tuple[str, ...]
    folds: tuple[FoldScore, ...]
    permutation_p: float | None = None


def classify_sites(
    features: np.ndarray,
    sites: Sequence[str],
    subjects: Sequence[str],
    *,
    classifier: str = 'svm',
    folds: int = 5,
    permutations: int = 0,
    seed: int = 0,
) -> SiteClassification:
    """Tell the site of scans from their features, by nested cross-validation over people.

    People are split in folds with the sites spread evenly. The classifier of a fold is
    trained on the people outside it, with settings chosen by a second split of these;
    features are scaled to mean 0 and standard deviation 1 of the people in training.
    Every site weighs the same, however many scans it has.

    ImUnity takes only features that correlate with the site in all scans; that looks at
    the scans of the test, so here all features are used.

    Parameters
    ----------
    features : ndarray, shape (N, P)
        A row for each scan: radiomic features, or those of a network.
    sites : sequence of N str
        Site of each scan.
    subjects : sequence of N str
        Person of each scan; a person may have been at several sites.
    classifier : {'svm', 'linear'}
        SVM with a radial basis function, for radiomic features, or logistic
        regression, for features of a network.
    folds : int
        Folds of people, 2 at least.
    permutations : int
        How often sites are shuffled for the p-value: within people who were at several
        sites or, where everybody was at one site only, between people.
    seed : int
        Of the folds and of the shuffles.

    Returns
    -------
    SiteClassification
        Equal for equal input and seed.

    Raises
    ------
    ValueError
        For an unknown classifier, a table that is no (N, P) or not finite, a scan without
        site or subject, one site only, fewer people than folds, or a site of fewer people than
        folds (or than :data:`FEWEST_SUBJECTS`).

    References
    ----------
    Cackowski et al. 2023 (ImUnity), section 2.4.2; Wu et al. 2024 (DLEST), section 4.2.2.
    Phipson and Smyth 2010, doi:10.2202/1544-6115.1585, for the p-value.

    Examples
    --------
    >>> people = [person for person in 'abcd' for site in range(2)]
    >>> result = classify_sites(
    ...     [[0.1], [5.0], [0.2], [5.1], [0.0], [5.2], [0.1], [5.1]],
    ...     ['A', 'B'] * 4,
    ...     people,
    ...     folds=4,
    ... )
    >>> result.balanced_accuracy, result.auc, result.chance
    (1.0, 1.0, 0.5)
    """
    if classifier not in CLASSIFIERS:
        raise ValueError(f'no classifier {classifier!r}: choose one of {", ".join(CLASSIFIERS)}')
    table = np.asarray(features, np.float64)
    if table.ndim != 2 or not len(table) == len(sites) == len(subjects) or not table.size:
        raise ValueError(
            f'a row of features, a site and a subject are needed for each scan, not '
            f'{table.shape} features, {len(sites)} sites and {len(subjects)} subjects'
        )
    if not np.isfinite(table).all():
        raise ValueError('features are not finite: leave out the scans they were not measured in')
    if any(name in (None, '') for name in (*sites, *subjects)):
        raise ValueError('a scan has no site or no subject: name it, or leave the scan out')
    names, codes = np.unique(np.asarray(sites, str), return_inverse=True)
    people = np.asarray(subjects, str)
    _check_design(names, codes, people, folds)

    scores, tested = _cross_validate(table, codes, people, classifier, folds, seed)
    predicted = scores.argmax(axis=1)
    reached = _balanced_accuracy(codes, predicted)
    p_value = None
    if permutations:
        generator = np.random.default_rng(seed)
        better = 0
        for _ in range(permutations):
            shuffled = _shuffle_sites(codes, people, generator)
            guess, _ = _cross_validate(table, shuffled, people, classifier, folds, seed)
            better += _balanced_accuracy(shuffled, guess.argmax(axis=1)) >= reached - 1e-12
        p_value = (better + 1) / (permutations + 1)
    return SiteClassification(
        classifier=classifier,
        sites=tuple(names.tolist()),
        balanced_accuracy=reached,
        auc=_auc(codes, scores, [test for test, _ in tested]),
        f1=_macro_f1(codes, predicted),
        chance=1 / len(names),
        predicted=tuple(names[predicted].tolist()),
        folds=tuple(
            FoldScore(
                subjects=tuple(np.unique(people[test]).tolist()),
                scans=len(test),
                balanced_accuracy=_balanced_accuracy(codes[test], predicted[test]),
                f1=_macro_f1(codes[test], predicted[test]),
                auc=_auc(codes, scores, [test]),
                settings=settings,
            )
            for test, settings in tested
        ),
        permutation_p=p_value,
    )


def _check_design(names: np.ndarray, codes: np.ndarray, people: np.ndarray, folds: int) -> None:
    if len(names) < 2:
        raise ValueError(f'all scans are of one site, {names[0]}: there is nothing to tell apart')
    if folds < 2:
        raise ValueError(f'cross-validation needs 2 folds at least, not {folds}')
    count = len(np.unique(people))
    if count < folds:
        raise ValueError(f'{count} subjects cannot fill {folds} folds: ask for fewer folds')
    needed = max(folds, FEWEST_SUBJECTS)
    for code, name in enumerate(names):
        there = len(np.unique(people[codes == code]))
        if there < needed:
            raise ValueError(
                f'site {name} has {there} subjects, {needed} are needed for {folds} folds: '
                f'leave the site out or ask for fewer folds'
            )


def _cross_validate(
    table: np.ndarray, codes: np.ndarray, people: np.ndarray, classifier: str, folds: int, seed: int
) -> tuple[np.ndarray, list[tuple[np.ndarray, dict]]]:
    """Scores (N, sites) of every scan by a classifier without its person; folds and settings."""
    scores = np.empty((len(codes), codes.max() + 1))
    tested = []
    for train, test in _splits(codes, people, folds, seed):
        settings = _choose(table[train], codes[train], people[train], classifier, seed)
        (scores[test],) = _scores(classifier, table[train], codes[train], table[test], [settings])
        tested.append((test, settings))
    return scores, tested


def _choose(
    table: np.ndarray, codes: np.ndarray, people: np.ndarray, classifier: str, seed: int
) -> dict[str, float]:
    """Settings that tell the sites best in a split of the people in training."""
    fewest = min(len(np.unique(people[codes == code])) for code in np.unique(codes))
    grid = CLASSIFIERS[classifier]
    guesses = np.empty((len(grid), len(codes)), int)
    for train, test in _splits(codes, people, min(INNER_FOLDS, fewest), seed):
        scored = _scores(classifier, table[train], codes[train], table[test], grid)
        for row, scores in enumerate(scored):
            guesses[row, test] = scores.argmax(axis=1)
    return grid[int(np.argmax([_balanced_accuracy(codes, guess) for guess in guesses]))]


def _splits(
    codes: np.ndarray, people: np.ndarray, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places of the scans to train and to test on; a person is in one of them only."""
    from sklearn.model_selection import StratifiedGroupKFold

    splits = []
    if folds > 1:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        splits = list(splitter.split(codes, codes, people))
    sites = len(np.unique(codes))
    if not splits or any(len(np.unique(codes[a])) < sites or not len(b) for a, b in splits):
        raise ValueError('people cannot be split so that every site is trained on: use fewer folds')
    return splits


def _scores(
    classifier: str,
    train: np.ndarray,
    codes: np.ndarray,
    test: np.ndarray,
    grid: Sequence[dict[str, float]],
) -> Iterator[np.ndarray]:
    """Scores (N, sites) of the scans of the test, for one setting after the other."""
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    train, test = _standardize(train, test)
    # Checks of the library take longer than its fits here; the table was checked before.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        distances = [_squared_distances(other, train) for other in (train, test)]
        for settings in grid:
            if classifier == 'svm':
                gamma = settings['gamma'] / train.shape[1]
                fit_on, tell_from = (np.exp(-gamma * distance) for distance in distances)
                model = SVC(C=settings['C'], kernel='precomputed', class_weight='balanced')
            else:
                fit_on, tell_from = train, test
                model = LogisticRegression(
                    C=settings['C'], class_weight='balanced', max_iter=1000, tol=1e-4
                )
            decision = model.fit(fit_on, codes).decision_function(tell_from)
            # Of two sites the library scores the second only.
            yield np.stack([-decision, decision], axis=1) if decision.ndim == 1 else decision


def _standardize(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in units of the training, without the features that are constant there."""
    mean, spread = train.mean(axis=0), train.std(axis=0)
    varies = spread > 1e-9 * np.abs(mean)
    if not varies.any():
        raise ValueError('all features are constant: measure some that differ between scans')
    return tuple((rows - mean)[:, varies] / spread[varies] for rows in (train, test))


def _squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(first, second, 'sqeuclidean')


def _shuffle_sites(
    codes: np.ndarray, people: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Sites in another order, as it could be if they had nothing to do with the features."""
    shuffled = codes.copy()
    _, first, person = np.unique(people, return_index=True, return_inverse=True)
    if np.array_equal(codes, codes[first][person]):
        return generator.permutation(codes[first])[person]
    for number in range(len(first)):
        own = np.flatnonzero(person == number)
        shuffled[own] = generator.permutation(codes[own])
    return shuffled


def _balanced_accuracy(codes: np.ndarray, predicted: np.ndarray) -> float:
    """Recall, averaged over the sites that are there."""
    return float(np.mean([(predicted[codes == code] == code).mean() for code in np.unique(codes)]))


def _macro_f1(codes: np.ndarray, predicted: np.ndarray) -> float:
    """F1 = 2 hits / (scans of the site + scans said to be), averaged over the sites there."""
    parts = []
    for code in np.unique(codes):
        there, said = codes == code, predicted == code
        parts.append(2 * (there & said).sum() / (there.sum() + said.sum()))
    return float(np.mean(parts))


def _auc(codes: np.ndarray, scores: np.ndarray, tests: list[np.ndarray]) -> float | None:
    """Area under the ROC curve of pairs within folds, averaged over sites; None without pairs.

    Scores of two folds come from two classifiers and are not compared.
    """
    areas = []
    for code in np.unique(codes):
        ordered, pairs = 0.0, 0
        for test in tests:
            there = codes[test] == code
            mine, others = scores[test, code][there, None], scores[test, code][None, ~there]
            ordered += (mine > others).sum() + 0.5 * (mine == others).sum()
            pairs += mine.size * others.size
        if pairs:
            areas.append(ordered / pairs)
    return float(np.mean(areas)) if areas else None
