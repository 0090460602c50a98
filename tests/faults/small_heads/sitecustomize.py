"""For tests that run harmony-app hundreds of times: everything is small, and its place is known.

With this folder on PYTHONPATH the working grid has voxels of 4 mm, the template is a head of
ellipsoids, and every scan lies on it as its header says. All the rest is the program itself.
"""

import importlib.abc
import importlib.util
import os
import sys

PREFIX = 'harmony_app.imaging.'
STEP = 4


def make_grid_small(module):
    """Cubes of the working grid become its voxels."""
    shape, affine = module.coarse_grid(STEP)
    module.WORKING_SHAPE, module.WORKING_AFFINE = shape, affine


def make_template_small(module):
    """Fluid in white matter in grey matter, and a scalp with a gap beneath."""
    from functools import lru_cache

    @lru_cache(maxsize=1)
    def load_template():
        import numpy as np

        tissues, brain, scalp = ellipsoids(module.WORKING_SHAPE, module.WORKING_AFFINE)
        t1 = np.tensordot([0.6, 1.0, 0.2], tissues, 1).astype(np.float32)
        return module.Template(t1, tissues, brain)

    module.load_template = load_template


def ellipsoids(shape, affine):
    """GM, WM and CSF maps, brain and scalp on a grid of MNI space."""
    import numpy as np

    index = np.indices(shape).reshape(3, -1)
    mm = affine[:3, :3] @ index + affine[:3, 3:]
    centre, radii = np.array([[0.0], [-18.0], [12.0]]), np.array([[66.0], [82.0], [62.0]])
    radius = np.sqrt((((mm - centre) / radii) ** 2).sum(0)).reshape(shape)
    csf, wm, gm = radius < 0.35, (radius >= 0.35) & (radius < 0.8), (radius >= 0.8) & (radius < 1)
    scalp = (radius > 1.1) & (radius < 1.25)
    return np.stack([gm, wm, csf]).astype(np.float32), radius < 1, scalp


def place_by_header(module):
    """Scans lie on the template as their headers, or the transforms that are given, say."""
    import numpy as np

    def register_template(volume, contrast=None, given=None, **_):
        from harmony_app.imaging.template import load_template

        template = load_template()
        matrix = np.eye(4) if given is None else np.asarray(given)
        tissues = np.rint(template.tissues * 255).astype(np.uint8)
        return module.TemplateRegistration(matrix, matrix, template.brain, tissues, 0.9)

    module.register_template = register_template
    module.register_rigid = lambda *_: np.eye(4)


CHANGES = {
    f'{PREFIX}grid': make_grid_small,
    f'{PREFIX}template': make_template_small,
    f'{PREFIX}registration': place_by_header,
}


class _Small(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in CHANGES:
            return None
        change = CHANGES.pop(name)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Small())
if 'HARMONY_MUTANT' in os.environ:
    # after the hook above, so that it is asked first
    import mutant  # noqa: F401
