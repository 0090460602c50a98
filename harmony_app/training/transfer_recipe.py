"""How the group level trains the transfer network."""

from collections.abc import Sequence
from pathlib import Path

from harmony_app.methods.base import Method
from harmony_app.methods.transfer import Transfer
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.material import Material
from harmony_app.training.mixture import mixed
from harmony_app.training.recipe import Recipe
from harmony_app.training.sessions import HalvedScans, Session
from harmony_app.training.subjects import draw_pool, plain_subject
from harmony_app.training.transfer import LOOP, TransferTraining
from harmony_app.training.transfer_draws import TransferDraws


class TransferRecipe(Recipe):
    """The learned bilateral grid; its last layers are fitted to a new site."""

    method = 'transfer'
    loop = LOOP
    adapted = ('local.', 'everywhere.')

    def training(
        self, material: Material, device: str, seed: int, begin_from: Path | None
    ) -> Training:
        """Random intensity maps of real scans, and people drawn of the phantom's heads."""
        pool = held_out = None
        if material.heads:
            people = draw_pool(material.heads, material.phantom.subjects_per_head, seed)
            pool = TransferDraws(people)
        if material.held_out:
            held_out = TransferDraws([plain_subject(head) for head in material.held_out])
        source = mixed(_real(material.training), pool, material.shares())
        check = mixed(_real(material.validation), held_out, material.shares())
        return TransferTraining(source, check, device, seed, begin_from=begin_from)

    def adaptation(
        self,
        parent: Path,
        learning: Sequence[Session],
        judged: Sequence[Session],
        device: str,
        seed: int,
        site: str,
    ) -> Training:
        """Random intensity maps of the site's scans."""
        source, check = _real(learning), _real(judged)
        return TransferTraining(source, check, device, seed, begin_from=parent)

    def finish(
        self, network, material: Material, settings: LoopSettings, device: str
    ) -> tuple[Method, dict]:
        """Nothing is left to do."""
        return Transfer(network, {}), {}


def _real(sessions: Sequence[Session]) -> TransferDraws | None:
    scans = HalvedScans(sessions)
    return TransferDraws((), scans, real_share=1.0) if len(scans) else None
