"""``--task train``: a model of the group's own scans, of the phantom, or of both."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmony_app.config import RunConfig, digest
from harmony_app.errors import InputError, OptionError
from harmony_app.methods.base import Method
from harmony_app.methods.model_folder import common_metadata
from harmony_app.training import distributed
from harmony_app.training.base import LoopSettings, Progress, Training
from harmony_app.training.checkpoint import load_averaged
from harmony_app.training.distributed import Ranks
from harmony_app.training.heads import Head, build_heads, split_heads
from harmony_app.training.loop import BEST, CHECKPOINT, Loop
from harmony_app.training.material import Material, PhantomConfig
from harmony_app.training.recipe import get_recipe
from harmony_app.training.sessions import Session, SessionFiles, cache_sessions, split_subjects
from harmony_app.workflows.checks import check_device
from harmony_app.workflows.model_making import (
    folder_to_write,
    keep_tables,
    parent_model,
    with_lineage,
)
from harmony_app.workflows.model_styles import middle_grounds, nothing_found, site_styles
from harmony_app.workflows.training_inputs import biology_of, find_sessions, read_phantom

WORKERS = 8
"""Processes that draw examples ahead, at most."""

STYLE_HEADS = 2
"""Heads over which the standard styles of a model trained on the phantom are averaged."""


def train(config: RunConfig) -> list[str]:
    """Train a model and write its folder; continues where the same command was stopped.

    Raises
    ------
    InputError
        Where there is nothing to learn from.
    OptionError
        Where the method does not take what is asked for.
    HarmonyError
        Where the training fails.
    """
    if config.biology and not get_recipe(config.method).keeps_biology:
        raise OptionError(
            f'--biology: method {config.method} has no module that keeps it; give --method imunity'
        )
    out = folder_to_write(config, config.method)
    if config.model is not None:
        parent_model(config)
    phantom = read_phantom(config.phantom) if config.phantom else None
    files, notes = find_sessions(config)
    if phantom is not None and phantom.share == 1:
        files = []
    if not files and phantom is None:
        raise InputError(f'{nothing_found(config)}, or give --phantom FILE')
    files = get_recipe(config.method).usable(files)
    device = check_device(config.device)
    ranks = distributed.start(device)
    try:
        material = gather(config, files, phantom, ranks)
        settings = loop_settings(config, phantom, device, get_recipe(config.method).loop)
        training = make_training(config, material, ranks.device(device), settings)
        run = run_folder(config, material)
        loop = Loop(training, settings, run, ranks.device(device), ranks)
        resumed = loop.resume()
        progress = loop.run()
        if not ranks.first:
            return []
        if progress.stopped:
            return [f'stopped at step {progress.step}; the same command continues']
        method, fused = finish(config, material, loop, run)
        told = material.describe() | training_facts(progress, settings, training) | fused
        licence = 'Apache-2.0' if not files else 'as the owners of the scans decide'
        metadata = common_metadata(licence) | {
            'training': told | dataset_facts(config.bids_dir if files else None),
            'metrics': progress.metrics,
        }
        if config.model is not None:
            parent = parent_model(config)[1]
            begun = with_lineage(parent, {'task': 'train', 'begun_from': parent.get('training')})
            metadata['lineage'] = begun['lineage']
        method.metadata = metadata
        styles = make_styles(method, [f for f in files if _learned(f, material)], material)
        method.metadata |= {'styles': [style.to_dict() for style in styles]}
        method.save(out)
        keep_tables(run, out)
        if not config.keep_workdir:
            shutil.rmtree(run, ignore_errors=True)
    finally:
        distributed.finish()
    lines = [f'{"resumed, " * resumed}{progress.step} steps in {progress.seconds / 60:.1f} minutes']
    if progress.best is not None:
        lines.append(f'best at step {progress.best_step}: {training.score} {progress.best:.4g}')
    else:
        lines.append('no validation: three people, or heads to hold out, are needed')
    lines += [f'left out: {note}' for note in notes]
    return [*lines, f'written: {out}; use --method {config.method} --model {out}']


def gather(
    config: RunConfig,
    files: Sequence[SessionFiles],
    phantom: PhantomConfig | None,
    ranks: Ranks,
) -> Material:
    """Fill the cache by the first process, then read it by all."""
    training: list[Session] = []
    validation: list[Session] = []
    heads: list[Head] = []
    held_out: list[Head] = []
    for turn in (ranks.first, not ranks.first):
        if turn and files:
            cached = cache_sessions(files, config.work_dir / 'harmony_app-training-cache')
            training, validation = split_subjects(cached, config.random_seed)
        if turn and phantom is not None:
            folder = phantom.heads or _built_heads(config, phantom, ranks.first)
            heads, held_out = split_heads(folder, config.random_seed)
        ranks.wait()
    biology = None
    if config.biology:
        people = sorted({session.subject for session in (*training, *validation)})
        biology = biology_of(config, people)
    return Material(training, validation, heads, held_out, phantom, biology)


def loop_settings(
    config: RunConfig, phantom: PhantomConfig | None, device: str, loop: LoopSettings
) -> LoopSettings:
    """Settings of the loop: the command line before the phantom's file before the method's."""
    file = phantom or PhantomConfig()
    given = {
        'minutes': config.minutes or file.minutes,
        'steps': config.steps or file.steps,
        'batch': config.batch_size or file.batch,
        'patience': config.patience or file.patience,
    }
    if config.minutes and not config.steps:
        given['steps'] = 0
    # drawing and computing share the processors; an accelerator leaves them all to drawing
    workers = config.nprocs // 2 if device == 'cpu' else config.nprocs - 1
    return replace(
        loop,
        seed=config.random_seed,
        precision=config.precision,
        workers=min(WORKERS, workers),
        **{name: value for name, value in given.items() if value is not None},
    )


def make_training(
    config: RunConfig, material: Material, device: str, settings: LoopSettings
) -> Training:
    """The training of the method on the material."""
    import torch

    torch.set_num_threads(max(config.omp_nthreads, min(8, config.nprocs - settings.workers)))
    recipe = get_recipe(config.method)
    return recipe.training(material, device, settings.seed, config.model)


def run_folder(config: RunConfig, material: Material) -> Path:
    """Scratch of this training: the same data and settings continue in it."""
    told = {
        'method': config.method,
        'task': config.task,
        'site': config.site,
        'model': str(config.model),
        'out': str(config.model_out or config.output_dir),
        'seed': config.random_seed,
        'batch': config.batch_size,
        'scans': [
            scan.stem for s in (*material.training, *material.validation) for scan in s.scans
        ],
        'phantom': material.phantom,
        'biology': config.biology,
    }
    return config.work_dir / f'harmony_app-{config.task}-{config.method}-{digest(told)}'


def best_weights(run: Path) -> Path:
    """Weights to keep: the best by validation, or the average at the end."""
    return run / BEST if (run / BEST).exists() else run / CHECKPOINT


def finish(config: RunConfig, material: Material, loop: Loop, run: Path) -> tuple[Method, dict]:
    """The method with the weights to keep, and what was told of its making."""
    network = loop.average
    load_averaged(best_weights(run), network)
    network = network.to('cpu').eval()
    return get_recipe(config.method).finish(network, material, loop.settings, loop.device)


def training_facts(progress: Progress, settings: LoopSettings, training: Training) -> dict:
    """Cost and settings of a training, for ``model.json``."""
    return {
        'steps': progress.step,
        'minutes': round(progress.seconds / 60, 1),
        'seed': settings.seed,
        'best_step': progress.best_step if progress.best is not None else progress.step,
        'settings': {'batch': settings.batch, 'rate': settings.rate} | training.describe(),
    }


def dataset_facts(bids_dir: Path | None) -> dict:
    """Name and licence of the dataset, as its description tells them."""
    if bids_dir is None:
        return {}
    try:
        told = json.loads((bids_dir / 'dataset_description.json').read_text(encoding='utf-8'))
        return {'dataset': str(told['Name']), 'dataset_licence': str(told.get('License', ''))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def make_styles(method: Method, files: Sequence[SessionFiles], material: Material) -> list:
    """Named styles of a new model: standard protocols of the phantom, and the sites."""
    if not method.takes_target:
        simulated = get_recipe(method.name).simulated_scans(material)
        return middle_grounds(method, files, simulated)
    styles = []
    if material.heads:
        from harmony_app.training.styles import standard_styles

        styles += standard_styles(method, list(material.heads)[:STYLE_HEADS])
    if files:
        styles += site_styles(method, files)
    return styles


def _learned(files: SessionFiles, material: Material) -> bool:
    return files.name in {session.name for session in material.training}


def _built_heads(config: RunConfig, phantom: PhantomConfig, build: bool) -> Path:
    """Heads of label maps, or of the ICBM template alone, built once in the work folder."""
    from harmony_app.imaging.registration import register_template

    maps = sorted(phantom.label_maps.glob('*.nii*')) if phantom.label_maps else []
    folder = config.work_dir / f'harmony_app-heads-{digest({"maps": [str(p) for p in maps]})}'
    if build:
        build_heads(folder, maps, register_template)
    return folder
