"""Print the oldest version of each dependency that pyproject.toml allows, as constraints for pip."""

import re
import sys
import tomllib
from pathlib import Path


def lowest(requirements: list[str]) -> list[str]:
    """Constraints for requirements of the form ``name>=version``.

    Examples
    --------
    >>> lowest(['numpy>=1.26', 'PyYAML>=6.0'])
    ['numpy==1.26', 'PyYAML==6.0']
    """
    found = [re.fullmatch(r'([A-Za-z0-9._-]+)>=([0-9.]+)', text) for text in requirements]
    if not all(found):
        raise SystemExit(f'a requirement has no lower bound: {requirements}')
    return [f'{match[1]}=={match[2]}' for match in found]


if __name__ == '__main__':
    project = tomllib.loads((Path(__file__).parents[1] / 'pyproject.toml').read_text())['project']
    sys.stdout.write('\n'.join(lowest(project['dependencies'])) + '\n')
