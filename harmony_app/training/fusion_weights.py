"""Train the fusion of a model that decodes slices, and write the model with it.

``python -m harmony_app.training.fusion_weights MODEL OUT --heads HEADS``. The other networks of the
model stay as they are.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.model_folder import read_metadata
from harmony_app.training.heads import load_heads
from harmony_app.training.recipe import get_recipe
from harmony_app.training.script import run_script
from harmony_app.training.slice_recipe import SliceRecipe


def add_fusion(
    model: Path, out: Path, heads: Path, *, seed: int, minutes: float, steps: int, blocks: int
) -> dict:
    """Train a fusion on heads and write a model folder with it.

    Parameters
    ----------
    model : Path
        Model folder of a method that decodes slices.
    out : Path
        Model folder to write; without a fusion where the median is as good.
    heads : Path
        Cached heads; those kept for tests are left out.
    seed, minutes, steps, blocks
        As for :func:`harmony_app.training.fusion.fuse_trained`.

    Returns
    -------
    dict
        What was measured, as ``model.json`` tells it under ``training.fusion``.

    Raises
    ------
    InputError
        Where the method of the model fuses no orientations.
    """
    name = read_metadata(model)['method']
    recipe = get_recipe(name)
    if not isinstance(recipe, SliceRecipe) or recipe.fuse is None:
        raise InputError(f'{model}: {name} has no network that fuses three orientations')
    decoder = recipe.decoder.load(model)
    fusion, facts = recipe.fuse(
        decoder.nets,
        load_heads(heads),
        [],
        seed=seed,
        minutes=minutes,
        steps=steps,
        blocks=blocks,
    )
    training = dict(decoder.metadata.get('training', {})) | {'fusion': facts}
    recipe.decoder(decoder.nets, fusion, decoder.metadata | {'training': training}).save(out)
    return facts


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', type=Path, help='model folder')
    parser.add_argument('out', type=Path, help='model folder to write')
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--minutes', type=float, default=8.0, help='of all contrasts')
    parser.add_argument('--steps', type=int, default=0, help='of a network, in place of minutes')
    parser.add_argument('--blocks', type=int, default=12, help='of a network')
    parser.add_argument('--seed', type=int, default=1)
    options = parser.parse_args(arguments)
    facts = add_fusion(**vars(options))
    sys.stdout.write(json.dumps(facts, indent=2) + '\n')


if __name__ == '__main__':
    run_script(main)
