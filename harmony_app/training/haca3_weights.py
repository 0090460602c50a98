"""From checkpoints to a model folder: ``python -m harmony_app.training.haca3_weights``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.haca3 import Haca3
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import VARIANTS, Haca3Nets
from harmony_app.training.script import run_script
from harmony_app.training.slice_weights import (
    pack_networks,
    read_card,
    read_networks,
    weights_parser,
)


def read_averaged(path: Path) -> tuple[Haca3Nets, dict]:
    """See :func:`harmony_app.training.slice_weights.read_networks`."""
    return read_networks(path, lambda variant: Haca3Nets(VARIANTS[variant]), 'HACA3')


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
    out, card
        As for :func:`harmony_app.training.slice_weights.pack_networks`.
    fusion : Path, optional
        Weights of :mod:`harmony_app.training.fusion`.
    """
    nets, facts = read_averaged(checkpoint)
    network = fused = None
    if fusion:
        network, fused = read_fusion(fusion, nets.config.fusion_width)
    pack_networks(Haca3, nets, facts, card, out, network, fused)


def _read(path: Path) -> tuple[dict, dict]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            return stream.metadata() or {}, {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} cannot be read: {error}') from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: pack averaged weights, fusion weights and a card into a model folder."""
    parser = weights_parser(main.__doc__)
    parser.add_argument('--fusion', type=Path, help='weights of harmony_app.training.fusion')
    options = parser.parse_args(arguments)
    pack(options.checkpoint, options.out, read_card(options.card), options.fusion)


if __name__ == '__main__':
    run_script(main)
