"""From a checkpoint to a model folder: ``python -m harmony_app.training.imunity_weights``."""

from collections.abc import Sequence
from pathlib import Path

from harmony_app.methods.imunity import ImUnity
from harmony_app.nets.imunity import VARIANTS, ImUnityNets
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.heads import load_heads
from harmony_app.training.script import run_script
from harmony_app.training.slice_weights import (
    pack_networks,
    read_card,
    read_networks,
    weights_parser,
)


def read_averaged(path: Path) -> tuple[ImUnityNets, dict]:
    """See :func:`harmony_app.training.slice_weights.read_networks`."""
    return read_networks(path, lambda variant: ImUnityNets(VARIANTS[variant]), 'ImUnity')


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: train the fusion network of averaged weights, and write a model folder.

    Its metrics are those of the last validation, unless the card tells others.
    """
    parser = weights_parser(__doc__)
    parser.add_argument('--heads', type=Path, help='folder of heads; no fusion network without')
    parser.add_argument('--fusion-minutes', type=float, default=4.0, help='budget of the fusion')
    parser.add_argument('--seed', type=int, default=1, help='of the fusion network')
    options = parser.parse_args(arguments)
    nets, facts = read_averaged(options.checkpoint)
    fusion = fused = None
    if options.heads:
        fusion, fused = fuse_trained(
            nets, load_heads(options.heads), [], seed=options.seed, minutes=options.fusion_minutes
        )
    card = {'metrics': facts['progress']['metrics']} | read_card(options.card)
    pack_networks(ImUnity, nets, facts, card, options.out, fusion, fused)


if __name__ == '__main__':
    run_script(main)
