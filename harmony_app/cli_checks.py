"""Which options fit together."""

from collections.abc import Sequence

from harmony_app.config import TASKS, RunConfig
from harmony_app.errors import OptionError


def check_options(config: RunConfig, levels: Sequence[str]) -> None:
    """Refuse options that contradict each other, or that would do nothing.

    Parameters
    ----------
    config : RunConfig
        The settings.
    levels : sequence of str
        Levels that are asked for.

    Raises
    ------
    OptionError
        With what to give instead.
    """
    if config.task != TASKS[0] and 'group' not in levels:
        raise OptionError(f'--task {config.task} is for the group level; give group')
    if config.overwrite and config.skip_existing:
        raise OptionError('--overwrite and --skip-existing say the opposite; give one')
    if config.export_dir and not config.export_fmriprep:
        raise OptionError('--export-dir is the folder of --export-fmriprep; give both')
    if 'brain-mask' in config.ignore and not config.export_fmriprep:
        raise OptionError('--ignore brain-mask is about --export-fmriprep; give both')
    if config.bids_database_wipe and not config.bids_database_dir:
        raise OptionError('--bids-database-wipe needs --bids-database-dir; give both')
    if 'native' not in config.output_spaces and config.export_fmriprep:
        raise OptionError('--export-fmriprep takes scans on their own grid: --output-spaces native')
    if config.output_spaces == ('native',) and config.impute:
        raise OptionError(
            '--impute makes images on the template grid, for they have none of their own: '
            'leave out --output-spaces native'
        )
    if config.plugin_file:
        for flag, given in (
            ('--resource-monitor', config.resource_monitor),
            ('--low-mem', config.low_mem),
        ):
            if given:
                raise OptionError(
                    f'{flag} is about processes of this machine, and --use-plugin says that '
                    'others run them; leave one out'
                )
