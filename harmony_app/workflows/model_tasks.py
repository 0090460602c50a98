"""The tasks of the group level that make models."""

from harmony_app.config import RunConfig
from harmony_app.errors import OptionError
from harmony_app.workflows import model_adaptation, model_styles, model_training

TRAINED = ('transfer', 'haca3')
"""Methods that can be trained."""


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
    }
    check_trainable(config.method, config.task)
    return tasks[config.task](config)
