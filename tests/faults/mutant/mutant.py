"""Breaks one line of harmony-app while it is imported: a plugin of pytest, see ``test_mutations.py``.

``HARMONY_MUTANT`` holds JSON with ``module``, the text ``old`` of it, and ``new``.
"""

import importlib.abc
import importlib.util
import json
import os
import sys

MUTANT = json.loads(os.environ['HARMONY_MUTANT'])


class _Breaking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != MUTANT['module']:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)

        def exec_module(module):
            source = spec.loader.get_source(name)
            if source.count(MUTANT['old']) != 1:
                raise SystemExit(f'{name} does not hold the line once: {MUTANT["old"]}')
            broken = source.replace(MUTANT['old'], MUTANT['new'])
            exec(compile(broken, spec.origin, 'exec'), module.__dict__)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Breaking())
