"""From checkpoints to a model folder: ``python -m harmony_app.training.haca3_weights``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app.methods.haca3 import Haca3
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


def pack(checkpoint: Path, out: Path, card: Mapping) -> None:
    """Write a model folder.

    Parameters
    ----------
    checkpoint : Path
        Checkpoint or best weights.
    out, card
        As for :func:`harmony_app.training.slice_weights.pack_networks`.
    """
    nets, facts = read_averaged(checkpoint)
    pack_networks(Haca3, nets, facts, card, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: pack averaged weights and a card into a model folder."""
    options = weights_parser(main.__doc__).parse_args(arguments)
    pack(options.checkpoint, options.out, read_card(options.card))


if __name__ == '__main__':
    run_script(main)
