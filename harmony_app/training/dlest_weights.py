"""From a checkpoint to a model folder: ``python -m harmony_app.training.dlest_weights``."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import VARIANTS, DlestNets
from harmony_app.training.dlest_recipe import standard_energies
from harmony_app.training.dlest_settings import ENERGY_LOOP, EnergySettings
from harmony_app.training.heads import split_heads
from harmony_app.training.script import run_script
from harmony_app.training.slice_weights import (
    pack_networks,
    read_card,
    read_networks,
    weights_parser,
)


def read_averaged(path: Path) -> tuple[DlestNets, dict]:
    """See :func:`harmony_app.training.slice_weights.read_networks`; without any energy."""
    return read_networks(path, lambda variant: DlestNets(VARIANTS[variant]), 'DLEST')


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: fit the energies of the standard T1w protocols, and write a model folder.

    Its metrics are those of the last validation of the autoencoder, unless the card tells others.
    """
    parser = weights_parser(__doc__)
    parser.add_argument('--heads', type=Path, required=True, help='folder of heads')
    parser.add_argument('--energy-minutes', type=float, default=16.0, help='of all energies')
    parser.add_argument('--energy-steps', type=int, default=0, help='budget of steps instead')
    parser.add_argument('--size', type=int, default=EnergySettings.size, help='edge of the crops')
    parser.add_argument('--seed', type=int, default=1, help='of the energies')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    nets, facts = read_averaged(options.checkpoint)
    loop = replace(
        ENERGY_LOOP,
        minutes=options.energy_minutes,
        steps=options.energy_steps,
        seed=options.seed,
    )
    heads, held_out = split_heads(options.heads, options.seed)
    settings = replace(EnergySettings(), size=options.size)
    fitted = standard_energies(nets, heads, held_out, loop, settings)
    card = {'metrics': facts['progress']['metrics']} | read_card(options.card)
    card['training'] = dict(card.get('training', {})) | {'energies_fitted': fitted}
    pack_networks(Dlest, nets, facts, card, options.out)


if __name__ == '__main__':
    run_script(main)
