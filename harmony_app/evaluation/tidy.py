"""Tables of volumes with one measurement in a row, checked before anything is made of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def volume_table(
    volumes: 'pd.DataFrame | Mapping[tuple, float]', keys: Sequence[str], numbers: Sequence[str]
) -> 'pd.DataFrame':
    """Tidy table of volumes, with its columns in a given order and nothing missing.

    Parameters
    ----------
    volumes : DataFrame or mapping
        A table with the columns ``keys`` and ``numbers``, or a mapping of the keys, a tuple
        in the order of ``keys``, to the only number.
    keys : sequence of str
        Columns that say what was measured.
    numbers : sequence of str
        Columns of measured numbers, made float64.

    Returns
    -------
    DataFrame
        Columns ``keys`` and ``numbers``, in the order of the rows given.

    Raises
    ------
    ValueError
        For no rows, columns that are absent, keys that are missing, or numbers that are not
        finite.

    Examples
    --------
    >>> volume_table({('01', 'GM'): 600}, ('subject', 'tissue'), ('volume',)).values.tolist()
    [['01', 'GM', 600.0]]
    """
    import numpy as np
    import pandas as pd

    keys, numbers = list(keys), list(numbers)
    if isinstance(volumes, Mapping):
        if len(numbers) != 1 or any(len(key) != len(keys) for key in volumes):
            raise ValueError(f'a mapping gives one number to each ({", ".join(keys)})')
        volumes = pd.DataFrame([(*key, n) for key, n in volumes.items()], columns=keys + numbers)
    absent = [name for name in keys + numbers if name not in volumes.columns]
    if absent:
        raise ValueError(f'the table of volumes has no column {", ".join(absent)}')
    if volumes.empty:
        raise ValueError('the table of volumes is empty')
    table = volumes[keys + numbers].reset_index(drop=True)
    if table[keys].isna().any(axis=None):
        raise ValueError(f'a row does not say its {" or its ".join(keys)}: leave it out')
    try:
        table = table.astype(dict.fromkeys(numbers, float))
    except (TypeError, ValueError) as error:
        raise ValueError(f'{" or ".join(numbers)} holds what is no number: {error}') from error
    if not np.isfinite(table[numbers].to_numpy()).all():
        raise ValueError(f'{" or ".join(numbers)} is not finite in some rows: leave them out')
    return table
