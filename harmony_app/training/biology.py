"""What is known of people: columns of ``participants.tsv`` as numbers that a network can learn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from harmony_app.errors import InputError

UNKNOWN = frozenset({'', 'n/a', 'nan', 'na', 'none', 'unknown'})
"""Cells, in lower case, that tell nothing."""

FEW = 12
"""Levels above which a column of words is a name and no group."""


@dataclass(frozen=True)
class Feature:
    """One number of a person.

    Parameters
    ----------
    column : str
        Of ``participants.tsv``.
    level : str or None
        The feature is 1 where the column says this and 0 where it says something else; None for
        a column of numbers.
    mean, spread : float
        A number is standardised by them.
    """

    column: str
    level: str | None = None
    mean: float = 0.0
    spread: float = 1.0

    def value(self, cell: str | None) -> float:
        """The feature of a cell; not a number where it tells nothing.

        Examples
        --------
        >>> Feature('sex', 'F').value('M'), Feature('age', None, 40.0, 10.0).value('55')
        (0.0, 1.5)
        """
        cell = (cell or '').strip()
        if cell.lower() in UNKNOWN:
            return math.nan
        if self.level is not None:
            return float(cell == self.level)
        number = _number(cell)
        return math.nan if number is None else (number - self.mean) / self.spread


@dataclass(frozen=True)
class Biology:
    """Features of some people.

    Parameters
    ----------
    features : tuple of Feature
    people : mapping of str to tuple of float
        Features by label; those that are not known are not numbers.
    """

    features: tuple[Feature, ...]
    people: Mapping[str, tuple[float, ...]]

    def of(self, label: str) -> tuple[float, ...]:
        """Features of a person; not numbers for one of whom nothing is known."""
        return self.people.get(label, (math.nan,) * len(self.features))

    def describe(self) -> list[dict]:
        """The features for ``model.json``; nothing of the people."""
        return [asdict(feature) for feature in self.features]


def read_biology(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], people: Sequence[str]
) -> Biology:
    """Features of the people of a training.

    A column of numbers of more than two values is standardised over these people. Another one
    is a feature for each of its levels, and only one where there are two (the sexes, patients
    and controls).

    Parameters
    ----------
    rows : sequence of mapping
        Rows of ``participants.tsv`` by column.
    columns : sequence of str
        Columns to keep.
    people : sequence of str
        Labels, without ``sub-``.

    Raises
    ------
    InputError
        Where a column is absent, or tells these people not apart.

    Examples
    --------
    >>> rows = [{'participant_id': f'sub-{i}', 'sex': s} for i, s in enumerate('MFF')]
    >>> read_biology(rows, ['sex'], ['0', '1']).people
    {'0': (0.0,), '1': (1.0,)}
    """
    by_label = {str(row.get('participant_id', '')).removeprefix('sub-'): row for row in rows}
    own = {label: by_label[label] for label in people if label in by_label}
    features: list[Feature] = []
    for column in columns:
        if not any(column in row for row in rows):
            raise InputError(
                f'participants.tsv has no column {column} (--biology): it has '
                f'{", ".join(list(rows[0]) if rows else []) or "no rows"}'
            )
        cells = [(row.get(column) or '').strip() for row in own.values()]
        features += _features(column, [cell for cell in cells if cell.lower() not in UNKNOWN])
    return Biology(
        tuple(features),
        {label: tuple(f.value(row.get(f.column)) for f in features) for label, row in own.items()},
    )


def _features(column: str, cells: Sequence[str]) -> list[Feature]:
    """Features of a column, of the cells that tell something."""
    levels = sorted(set(cells))
    if len(levels) < 2:
        raise InputError(
            f'column {column} of participants.tsv (--biology) has {len(levels)} values among the '
            'people of this training, and two are needed to tell them apart'
        )
    numbers = [_number(cell) for cell in cells]
    if len(levels) > 2 and None not in numbers:
        mean = sum(numbers) / len(numbers)
        spread = math.sqrt(sum((n - mean) ** 2 for n in numbers) / len(numbers))
        return [Feature(column, None, mean, spread)] if spread else _features(column, cells[:1])
    if len(levels) > FEW:
        raise InputError(
            f'column {column} of participants.tsv (--biology) has {len(levels)} different values '
            'that are not numbers: it is not a group'
        )
    return [Feature(column, level) for level in (levels[:1] if len(levels) == 2 else levels)]


def _number(cell: str) -> float | None:
    """Finite number of a cell, or None."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
