"""How the group level trains ImUnity and fits it to a new site."""

from collections.abc import Mapping
from dataclasses import replace

from harmony_app.methods.imunity import ImUnity
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.imunity import ImUnityTraining
from harmony_app.training.imunity_draws import SessionPairs, training_sites
from harmony_app.training.imunity_settings import LOOP, Settings
from harmony_app.training.material import Material
from harmony_app.training.session_slices import SessionSlices
from harmony_app.training.slice_recipe import SliceRecipe


class ImUnityRecipe(SliceRecipe):
    """ImUnity, then a network that fuses the three orientations.

    The paper harmonizes new sites without any fitting. Where it is asked for, the dense layers
    of the contrast encoder and the last block of the decoder move: how a contrast is read and
    how it is drawn, not what anatomy is.
    """

    method = 'imunity'
    loop = LOOP
    adapted = ('theta.head.', 'decoder.last.', 'decoder.head.')
    keeps_biology = True
    decoder = ImUnity
    trainer = ImUnityTraining
    settings = Settings()
    pairs = False
    fuse = staticmethod(fuse_trained)

    def settings_for(self, settings: Settings, material: Material, begun: bool) -> Settings:
        """Modules of a model that has learned need no start of their own."""
        features = len(material.biology.features) if material.biology else 0
        return replace(settings, features=features, warm=0.0 if begun else settings.warm)

    def adapted_settings(self, settings: Settings, metadata: Mapping) -> Settings:
        """Its self-supervised part alone: there is no other site to unlearn."""
        off = ('adversarial', 'discriminator', 'confusion', 'sites', 'tissue', 'levels')
        return replace(settings, **dict.fromkeys(off, 0.0))

    def drawn(self, slices: SessionSlices, material: Material | None) -> SessionPairs:
        """Pairs of slices of each scan, with its site and what is known of the person."""
        numbers = {name: number for number, name in enumerate(sites_of(material))}
        biology = material.biology if material is not None else None
        return SessionPairs(slices, self.settings, numbers, biology)

    def made(self, settings, source, check, device, seed, material) -> ImUnityTraining:
        """The training with its sites and features."""
        features = material.biology.features if material and material.biology else ()
        return ImUnityTraining(
            settings, source, check, device, seed, sites=sites_of(material), features=features
        )


def sites_of(material: Material | None) -> list[str]:
    """Names of the sites that are unlearned: those of the phantom, then those of the sessions.

    Parameters
    ----------
    material : Material or None
        None for a site to be fitted to, of which there is but one.
    """
    if material is None:
        return []
    phantom = list(training_sites()) if material.heads else []
    real = {scan.site for session in material.training for scan in session.scans if scan.site}
    return phantom + sorted(real - set(phantom))
