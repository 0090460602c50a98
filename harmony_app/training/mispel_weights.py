"""From a checkpoint to a model folder: ``python -m harmony_app.training.mispel_weights``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.mispel import Mispel
from harmony_app.nets.mispel import MispelConfig, MispelNets
from harmony_app.phantom.sites import find_sites, load_sites
from harmony_app.training.checkpoint import load_averaged, read_facts
from harmony_app.training.heads import load_heads
from harmony_app.training.mispel_recipe import middle_scans
from harmony_app.training.script import run_script
from harmony_app.training.slice_weights import read_card, told_cost, weights_parser


def read_averaged(path: Path) -> tuple[MispelNets, dict]:
    """Averaged networks of a checkpoint or of the best weights, and what is said of them.

    Raises
    ------
    InputError
        Where it is absent or no checkpoint of MISPEL.
    """
    facts = read_facts(path)
    try:
        nets = MispelNets(MispelConfig.from_dict(facts['training']['networks']))
    except (KeyError, TypeError) as error:
        raise InputError(f'{path} is no checkpoint of MISPEL') from error
    load_averaged(path, nets)
    return nets.eval(), facts


def pack(checkpoint: Path, out: Path, card: Mapping, heads: Path) -> None:
    """Write a model folder of phantom scanners, its middle ground measured.

    Parameters
    ----------
    checkpoint : Path
        Checkpoint or best weights.
    out : Path
        Model folder.
    card : mapping
        What ``model.json`` is to say; steps, minutes, seed and settings are added to ``training``.
    heads : Path
        Folder of heads, of which some are scanned at the scanners of the model.
    """
    nets, facts = read_averaged(checkpoint)
    training = dict(card.get('training', {})) | told_cost(facts)
    known = {'metrics': facts['progress']['metrics']}
    method = Mispel(nets, known | dict(card) | {'training': training})
    sites = find_sites(nets.config.scanners, load_sites())
    scans = middle_scans(load_heads(heads), sites, nets.config.contrasts)
    styles = [
        method.middle_ground([scan for scan in scans if scan.contrast == contrast])
        for contrast in nets.config.contrasts
    ]
    method.metadata |= {'styles': [style.to_dict() for style in styles]}
    method.save(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: write a model folder of averaged weights.

    Its metrics are those of the last validation, unless the card tells others.
    """
    parser = weights_parser(__doc__)
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    options = parser.parse_args(arguments)
    pack(options.checkpoint, options.out, read_card(options.card), options.heads)


if __name__ == '__main__':
    run_script(main)
