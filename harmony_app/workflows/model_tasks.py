"""The tasks of the group level that make models, or slices by one."""

from harmony_app import __version__
from harmony_app.config import RunConfig
from harmony_app.errors import OptionError
from harmony_app.training.recipe import TRAINED
from harmony_app.workflows import model_adaptation, model_styles, model_training, synthesis
from harmony_app.workflows.model_making import folder_to_write
from harmony_app.workflows.training_inputs import find_sessions


def check_trainable(method: str, task: str) -> None:
    """Refuse a method that has no model."""
    if method not in TRAINED:
        raise OptionError(
            f'--task {task} --method {method}: this method has no model; '
            f'choose one of {", ".join(TRAINED)}'
        )


def run_task(config: RunConfig) -> list[str]:
    """Do what ``--task`` says; gives what came of it, in words.

    Raises
    ------
    HarmonyError
        Where it cannot be done.
    """
    tasks = {
        'train': model_training.train,
        'adapt': model_adaptation.adapt,
        'styles': model_styles.keep_styles,
        'synthesize': synthesis.synthesize,
    }
    check_trainable(config.method, config.task)
    if config.dry_run:
        return describe_task(config)
    return tasks[config.task](config)


def describe_task(config: RunConfig) -> list[str]:
    """What a task would read and write, in words; nothing is computed."""
    if config.task == 'synthesize':
        folder = synthesis.folder_of_slices(config)
    else:
        ends = {'train': '', 'adapt': f'-{config.site}', 'styles': f'-{config.site or "styles"}'}
        folder = folder_to_write(config, config.method + ends[config.task])
    sessions, notes = find_sessions(config)
    scans = sum(len(session.scans) for session in sessions)
    lines = [
        f'harmony-app {__version__}: group level, task {config.task}, method {config.method}',
        f'  would read in {config.output_dir}: {scans} preprocessed scans of {len(sessions)} sessions',
    ]
    lines += [f'    {session.name}' for session in sessions]
    if config.phantom:
        lines.append(f'  and the phantom of {config.phantom}')
    lines += [f'  left out: {note}' for note in notes]
    return [*lines, f'  would write {folder}', '  nothing was written (--dry-run)']
