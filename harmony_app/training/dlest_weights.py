"""From a checkpoint to a model folder: ``python -m harmony_app.training.dlest_weights``."""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import VARIANTS, DlestNets
from harmony_app.training.checkpoint import load_averaged, read_facts
from harmony_app.training.dlest_recipe import standard_energies
from harmony_app.training.dlest_settings import ENERGY_LOOP, EnergySettings
from harmony_app.training.haca3_weights import told_cost
from harmony_app.training.heads import split_heads


def read_averaged(path: Path) -> tuple[DlestNets, dict]:
    """Averaged networks of a checkpoint or of the best weights, and what is said of them.

    Raises
    ------
    InputError
        Where it is absent or no checkpoint of DLEST's autoencoder.
    """
    facts = read_facts(path)
    try:
        nets = DlestNets(VARIANTS[facts['training']['variant']])
        load_averaged(path, nets)
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f'{path} is no checkpoint of DLEST') from error
    return nets.eval(), facts


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: fit the energies of the standard T1w protocols, and write a model folder.

    Its metrics are those of the last validation of the autoencoder, unless the card tells others.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, help='checkpoint or best weights')
    parser.add_argument('out', type=Path, help='model folder')
    parser.add_argument('--card', type=Path, help='JSON whose fields go into model.json')
    parser.add_argument('--heads', type=Path, required=True, help='folder of heads')
    parser.add_argument('--energy-minutes', type=float, default=16.0, help='of all energies')
    parser.add_argument('--energy-steps', type=int, default=0, help='budget of steps instead')
    parser.add_argument('--size', type=int, default=EnergySettings.size, help='edge of the crops')
    parser.add_argument('--seed', type=int, default=1, help='of the energies')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    card = json.loads(options.card.read_text(encoding='utf-8')) if options.card else {}
    nets, facts = read_averaged(options.checkpoint)
    training = dict(card.get('training', {})) | told_cost(facts)
    loop = replace(
        ENERGY_LOOP,
        minutes=options.energy_minutes,
        steps=options.energy_steps,
        seed=options.seed,
    )
    heads, held_out = split_heads(options.heads, options.seed)
    settings = replace(EnergySettings(), size=options.size)
    training['energies_fitted'] = standard_energies(nets, heads, held_out, loop, settings)
    known = {'metrics': facts['progress']['metrics']}
    Dlest(nets, None, known | card | {'training': training}).save(options.out)


if __name__ == '__main__':
    main()
