"""How the command lines of training and benchmarks end where an input or option cannot be used."""

import sys
from collections.abc import Callable

from harmony_app.errors import HarmonyError


def run_script(main: Callable[[], object]) -> None:
    """Run the command line of a module.

    Parameters
    ----------
    main : callable
        Reads the arguments of the process and does the work.

    Raises
    ------
    SystemExit
        With the exit code of an error of :mod:`harmony_app.errors`; its message went to stderr.
    """
    try:
        main()
    except HarmonyError as error:
        sys.stderr.write(f'error: {error}\n')
        raise SystemExit(int(error.exit_code)) from error
