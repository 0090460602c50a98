"""``--task adapt``: fit a model to a site that it has not seen, without its original data."""

import shutil
from dataclasses import replace

from harmony_app.config import RunConfig
from harmony_app.errors import HarmonyError, InputError, OptionError
from harmony_app.training import distributed
from harmony_app.training.base import LoopSettings
from harmony_app.training.checkpoint import load_averaged
from harmony_app.training.loop import Loop
from harmony_app.training.parts import keep_all_but
from harmony_app.training.recipe import get_recipe
from harmony_app.workflows.checks import check_device
from harmony_app.workflows.model_making import (
    folder_to_write,
    keep_tables,
    merge_styles,
    parent_model,
    with_lineage,
)
from harmony_app.workflows.model_styles import nothing_found, site_styles
from harmony_app.workflows.model_training import best_weights, gather, loop_settings, run_folder
from harmony_app.workflows.training_inputs import find_sessions

FEWEST = 2
"""Sessions of a site below which nothing is learned but the people."""


def adapt(config: RunConfig) -> list[str]:
    """Fit the parts that the papers name to a site, and write a new model folder.

    Raises
    ------
    OptionError
        Where no site is named or none of that name has scans.
    InputError
        Where it has too few sessions.
    HarmonyError
        Where the fitted model is no better on the site than the one it came from.
    """
    if config.site is None:
        raise OptionError('--task adapt: give --site NAME, the site to adapt to')
    parent, metadata = parent_model(config)
    recipe = get_recipe(config.method)
    out = folder_to_write(config, f'{config.method}-{config.site}')
    files, notes = find_sessions(config)
    if not files:
        raise InputError(nothing_found(config))
    if recipe.matched:
        people = {session.subject for session in files}
        everywhere, notes = find_sessions(replace(config, site=None))
        files = recipe.usable([s for s in everywhere if s.subject in people], config.site)
    if len(files) < FEWEST:
        raise InputError(
            f'--site {config.site} has {len(files)} session, and {FEWEST} are needed to tell the '
            'scanner from the person; --task styles measures its style without any training'
        )
    device = check_device(config.device)
    ranks = distributed.start(device)
    try:
        material = gather(config, files, None, ranks)
        learning = material.training
        if len(learning) + len(material.validation) < FEWEST:
            raise InputError(f'--site {config.site}: too few of its sessions can be used')
        apart = bool(material.validation)
        judged = material.validation if apart else learning
        settings = _settings(
            loop_settings(config, None, device, recipe.adaptation_loop()), config.patience
        )
        training = recipe.adaptation(
            parent, learning, judged, ranks.device(device), config.random_seed, config.site
        )
        parts = recipe.parts(training)
        names = keep_all_but(training.network, parts)
        run = run_folder(config, material)
        loop = Loop(training, settings, run, ranks.device(device), ranks)
        # as the model is, before a checkpoint changes it
        start = recipe.beginning(training, parent, ranks.device(device)).eval()
        before = training.validate(start) if ranks.first else {}
        loop.resume()
        progress = loop.run()
        if not ranks.first:
            return []
        if progress.stopped:
            return [f'stopped at step {progress.step}; the same command continues']
        score = training.score
        if progress.best is None:
            raise HarmonyError(
                f'{progress.step} steps are too few to fit {config.method} to {config.site}: nothing '
                'was written; give more --steps or --minutes'
            )
        where = 'people held out' if apart else 'the same scans, other draws'
        told = f'{score} {before[score]:.4g} before, {progress.best:.4g} after ({where})'
        if progress.best <= before[score] and not recipe.reaches_by_it:
            shutil.rmtree(run, ignore_errors=True)
            raise HarmonyError(
                f'the model was not improved for {config.site} ({told}) and is used as it is: '
                'nothing was written'
            )
        load_averaged(best_weights(run), loop.average)
        method = recipe.adapted_method(parent, loop.average.eval(), ranks.device(device))
        entry = {
            'task': 'adapt',
            'site': config.site,
            'parts': list(parts),
            'subjects': sorted({session.subject for session in learning}),
            'validation_subjects': sorted({session.subject for session in material.validation}),
            'sessions': len(files),
            'steps': progress.best_step,
            'validated_on': where,
            'before': before,
            'after': progress.metrics,
        }
        method.metadata = with_lineage(metadata, entry)
        if method.takes_target:
            styles = site_styles(method, files)
            method.metadata |= {'styles': merge_styles(metadata.get('styles', []), styles)}
        method.save(out)
        keep_tables(run, out)
        if not config.keep_workdir:
            shutil.rmtree(run, ignore_errors=True)
    finally:
        distributed.finish()
    count = sum(p.numel() for n, p in training.network.named_parameters() if n in set(names))
    lines = [f'{progress.best_step} steps, {count} weights fitted: {told}']
    lines += [f'left out: {note}' for note in notes]
    return [*lines, f'written: {out}; use --method {config.method} --model {out}']


def _settings(settings: LoopSettings, patience: int | None) -> LoopSettings:
    """An end where nothing improves, which is looked for often."""
    return replace(
        settings,
        warm_steps=10,
        average=min(settings.average, 0.95),
        log_steps=10,
        validation_steps=25,
        patience=patience or 4,
    )
