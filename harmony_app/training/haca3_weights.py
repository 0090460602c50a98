"""From checkpoints to a model folder: ``python -m harmony_app.training.haca3_weights``."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.haca3 import Haca3
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import VARIANTS, Haca3Nets
from harmony_app.training.checkpoint import load_averaged, read_facts


def read_averaged(path: Path) -> tuple[Haca3Nets, dict]:
    """Averaged networks of a checkpoint or of the best weights, and what is said of them.

    Returns
    -------
    nets : Haca3Nets
        In evaluation mode.
    facts : dict
        ``progress``, ``loop`` and ``training`` of :class:`harmony_app.training.loop.Loop`.

    Raises
    ------
    InputError
        Where it is absent or no checkpoint of HACA3.
    """
    facts = read_facts(path)
    try:
        nets = Haca3Nets(VARIANTS[facts['training']['variant']])
    except (KeyError, TypeError) as error:
        raise InputError(f'{path} is no checkpoint of HACA3') from error
    load_averaged(path, nets)
    return nets.eval(), facts


def read_fusion(path: Path, width: int) -> tuple[FusionNet, dict]:
    """Fusion network that :mod:`harmony_app.training.fusion` wrote, and what it measured."""
    header, tensors = _read(path)
    fusion = FusionNet(width)
    try:
        fusion.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f'{path} holds no fusion network of width {width}') from error
    return fusion.eval(), {key: float(value) for key, value in header.items() if key != 'format'}


def pack(checkpoint: Path, out: Path, card: Mapping, fusion: Path | None = None) -> None:
    """Write a model folder.

    Parameters
    ----------
    checkpoint : Path
        Checkpoint or best weights.
    out : Path
        Model folder.
    card : mapping
        What ``model.json`` is to say; steps, minutes, seed and settings are added to ``training``.
    fusion : Path, optional
        Weights of :mod:`harmony_app.training.fusion`.
    """
    nets, facts = read_averaged(checkpoint)
    training = dict(card.get('training', {})) | told_cost(facts)
    network = None
    if fusion:
        network, measured = read_fusion(fusion, nets.config.fusion_width)
        training['fusion'] = measured
    Haca3(nets, network, {**card, 'training': training}).save(out)


def told_cost(facts: Mapping) -> dict:
    """Steps, minutes, seed and settings, for ``model.json``, of what a checkpoint says."""
    return {
        'steps': facts['progress']['step'],
        'minutes': round(facts['progress']['seconds'] / 60, 1),
        'seed': facts['loop']['seed'],
        'settings': facts['loop'] | facts['training'],
    }


def _read(path: Path) -> tuple[dict, dict]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            return stream.metadata() or {}, {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} cannot be read: {error}') from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: pack averaged weights, fusion weights and a card into a model folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('checkpoint', type=Path, help='checkpoint or best weights')
    parser.add_argument('out', type=Path, help='model folder')
    parser.add_argument('--fusion', type=Path, help='weights of harmony_app.training.fusion')
    parser.add_argument('--card', type=Path, help='JSON whose fields go into model.json')
    options = parser.parse_args(arguments)
    card = json.loads(options.card.read_text(encoding='utf-8')) if options.card else {}
    pack(options.checkpoint, options.out, card, options.fusion)


if __name__ == '__main__':
    main()
