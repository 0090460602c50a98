"""Weights of networks on slices: from a model folder, from a checkpoint, to a model folder."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from harmony_app.errors import InputError
from harmony_app.methods.decoder_model import DecoderModel
from harmony_app.methods.registry import get_method
from harmony_app.nets.contrast import ContrastNets
from harmony_app.training.checkpoint import load_averaged, read_facts


def fill_from_model(nets: ContrastNets, method: str, folder: Path, device: str = 'cpu') -> None:
    """Fill networks from a model folder of their method.

    Raises
    ------
    InputError
        Where the widths of the model are others.
    """
    known = get_method(method, folder, device).nets
    if known.config != nets.config:
        raise InputError(f'{folder} has other widths than the variant {nets.config.variant}')
    nets.load_state_dict(known.state_dict())


def read_networks(
    path: Path, build: Callable[[str], ContrastNets], name: str
) -> tuple[ContrastNets, dict]:
    """Averaged networks of a checkpoint or of the best weights, and what is said of them.

    Parameters
    ----------
    path : Path
        Written by :class:`harmony_app.training.loop.Loop`.
    build : callable
        Gives the networks of a variant; KeyError for an unknown one.
    name : str
        Of the method, for messages.

    Returns
    -------
    nets : ContrastNets
        In evaluation mode.
    facts : dict
        ``progress``, ``loop`` and ``training`` of the loop.

    Raises
    ------
    InputError
        Where it is absent or no checkpoint of the method.
    """
    facts = read_facts(path)
    try:
        nets = build(facts['training']['variant'])
    except (KeyError, TypeError) as error:
        raise InputError(f'{path} is no checkpoint of {name}') from error
    load_averaged(path, nets)
    return nets.eval(), facts


def told_cost(facts: Mapping) -> dict:
    """Steps, minutes, seed and settings, for ``model.json``, of what a checkpoint says."""
    return {
        'steps': facts['progress']['step'],
        'minutes': round(facts['progress']['seconds'] / 60, 1),
        'seed': facts['loop']['seed'],
        'settings': facts['loop'] | facts['training'],
    }


def pack_networks(
    method: type[DecoderModel],
    nets: ContrastNets,
    facts: Mapping,
    card: Mapping,
    out: Path,
    fusion: nn.Module | None = None,
    fused: Mapping | None = None,
) -> None:
    """Write a model folder.

    Parameters
    ----------
    method : type of DecoderModel
    nets, facts
        Of :func:`read_networks`.
    card : mapping
        What ``model.json`` is to say; steps, minutes, seed and settings are added to ``training``.
    out : Path
        Model folder.
    fusion : Module, optional
        Trained fusion; the median without.
    fused : mapping, optional
        What was measured of the fusion.
    """
    training = dict(card.get('training', {})) | told_cost(facts)
    if fused is not None:
        training['fusion'] = fused
    method(nets, fusion, {**card, 'training': training}).save(out)


def weights_parser(description: str) -> argparse.ArgumentParser:
    """Command line of what packs a model: ``checkpoint``, ``out`` and ``--card``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('checkpoint', type=Path, help='checkpoint or best weights')
    parser.add_argument('out', type=Path, help='model folder')
    parser.add_argument('--card', type=Path, help='JSON whose fields go into model.json')
    return parser


def read_card(path: Path | None) -> dict:
    """Fields of the file of ``--card``; none without."""
    return json.loads(path.read_text(encoding='utf-8')) if path else {}
