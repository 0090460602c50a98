"""For tests that run harmony-app in processes of their own: registration is given, not found.

With this folder on PYTHONPATH a scan lies on the template as its transform says, and the
template is not deformed to it: what takes most of the time of a small scan.
"""

import importlib.abc
import importlib.util
import sys

MODULE = 'harmony_app.imaging.registration'


def register_template(volume, contrast=None, given=None):
    import numpy as np

    from harmony_app.imaging.registration import TemplateRegistration
    from harmony_app.imaging.template import load_template

    template = load_template()
    tissues = np.rint(template.tissues * 255).astype(np.uint8)
    return TemplateRegistration(given, given, template.brain, tissues, 0.9)


class _Given(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.register_template = register_template

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Given())
