"""From checkpoints to a model folder: ``python -m harmony_app.training.haca3_weights``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.haca3 import Haca3
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import VARIANTS, Haca3Nets


def read_averaged(checkpoint: Path) -> tuple[Haca3Nets, dict]:
    """Averaged networks of a checkpoint, and its progress.

    Raises
    ------
    InputError
        Where it is absent or no checkpoint of HACA3.
    """
    header, tensors = _read(checkpoint)
    start = 'averaged.'
    try:
        progress = json.loads(header['progress'])
        nets = Haca3Nets(VARIANTS[progress['settings']['variant']])
        nets.load_state_dict(
            {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
        )
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f'{checkpoint} is no checkpoint of HACA3') from error
    return nets.eval(), progress


def read_fusion(path: Path, width: int) -> tuple[FusionNet, dict]:
    """Fusion network that :mod:`harmony_app.training.fusion` wrote, and what it measured."""
    header, tensors = _read(path)
    fusion = FusionNet(width)
    try:
        fusion.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f'{path} holds no fusion network of width {width}') from error
    return fusion.eval(), {key: float(value) for key, value in header.items() if key != 'format'}


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
    parser.add_argument('checkpoint', type=Path, help='of harmony_app.training.haca3')
    parser.add_argument('out', type=Path, help='model folder')
    parser.add_argument('--fusion', type=Path, help='weights of harmony_app.training.fusion')
    parser.add_argument('--card', type=Path, help='JSON whose fields go into model.json')
    options = parser.parse_args(arguments)
    nets, progress = read_averaged(options.checkpoint)
    card = json.loads(options.card.read_text(encoding='utf-8')) if options.card else {}
    training = card.setdefault('training', {})
    training |= {
        'steps': progress['step'],
        'minutes': round(progress['seconds'] / 60, 1),
        'seed': progress['settings']['seed'],
        'settings': progress['settings'],
    }
    fusion = None
    if options.fusion:
        fusion, facts = read_fusion(options.fusion, nets.config.fusion_width)
        training['fusion'] = facts
    Haca3(nets, fusion, card).save(options.out)


if __name__ == '__main__':
    main()
