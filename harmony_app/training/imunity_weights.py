"""From a checkpoint to a model folder: ``python -m harmony_app.training.imunity_weights``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.imunity import ImUnity
from harmony_app.nets.imunity import VARIANTS, ImUnityNets
from harmony_app.training.checkpoint import load_averaged, read_facts
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.haca3_weights import told_cost
from harmony_app.training.heads import load_heads


def read_averaged(path: Path) -> tuple[ImUnityNets, dict]:
    """Averaged networks of a checkpoint or of the best weights, and what is said of them.

    Raises
    ------
    InputError
        Where it is absent or no checkpoint of ImUnity.
    """
    facts = read_facts(path)
    try:
        nets = ImUnityNets(VARIANTS[facts['training']['variant']])
    except (KeyError, TypeError) as error:
        raise InputError(f'{path} is no checkpoint of ImUnity') from error
    load_averaged(path, nets)
    return nets.eval(), facts


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: train the fusion network of averaged weights, and write a model folder.

    Its metrics are those of the last validation, unless the card tells others.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, help='checkpoint or best weights')
    parser.add_argument('out', type=Path, help='model folder')
    parser.add_argument('--card', type=Path, help='JSON whose fields go into model.json')
    parser.add_argument('--heads', type=Path, help='folder of heads; no fusion network without')
    parser.add_argument('--fusion-minutes', type=float, default=4.0)
    parser.add_argument('--seed', type=int, default=1, help='of the fusion network')
    options = parser.parse_args(arguments)
    card = json.loads(options.card.read_text(encoding='utf-8')) if options.card else {}
    nets, facts = read_averaged(options.checkpoint)
    training = dict(card.get('training', {})) | told_cost(facts)
    fusion = None
    if options.heads:
        fusion, training['fusion'] = fuse_trained(
            nets, load_heads(options.heads), [], seed=options.seed, minutes=options.fusion_minutes
        )
    known = {'metrics': facts['progress']['metrics']}
    ImUnity(nets, fusion, known | card | {'training': training}).save(options.out)


if __name__ == '__main__':
    main()
