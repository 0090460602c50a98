"""How the group level trains HACA3."""

from collections.abc import Mapping
from dataclasses import replace

from harmony_app.methods.haca3 import Haca3
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.haca3 import Haca3Training
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.material import Material
from harmony_app.training.session_slices import has_pairs
from harmony_app.training.slice_recipe import SliceRecipe
from harmony_app.training.slice_settings import LOOP


class Haca3Recipe(SliceRecipe):
    """HACA3, then its fusion network.

    Fitted to a new site are the parts that CALAMITI names (section 2.4; HACA3's paper names
    none): the output block of the anatomy encoder and the fully connected layers of theta's.
    The decoder stays, so what the encoders learn has to lie where the old sites put it, and
    styles of old sites stay valid.
    """

    method = 'haca3'
    loop = LOOP
    adapted = ('beta.up.0.', 'beta.head.', 'theta.head.')
    decoder = Haca3
    trainer = Haca3Training
    settings = Settings()
    fuse = staticmethod(fuse_trained)

    def settings_for(self, settings: Settings, material: Material, begun: bool) -> Settings:
        """No warm-up where there is no truth for it or no need; no pairs, no loss of anatomy."""
        if begun:
            settings = replace(settings, eta_first=0.0)  # it is learned already
        if begun or not material.heads:
            settings = replace(settings, warm=0.0)
        if not material.heads and not has_pairs(material.training):
            settings = replace(settings, anatomy=0.0)
        return settings

    def adapted_settings(self, settings: Settings, metadata: Mapping) -> Settings:
        """Reconstruction, cycle and KL; the helpers of the other losses are not in a model."""
        off = dict.fromkeys(('anatomy', 'artifact', 'tissue', 'levels', 'attention'), 0.0)
        return replace(settings, eta_first=0.0, warm=0.0, **off)
