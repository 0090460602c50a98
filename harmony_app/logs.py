"""What is told, and how much of it: the levels of ``-v``."""

import logging
import sys

FORMAT = '%(levelname)s: %(message)s'

STEP_LEVEL = logging.INFO - 5
"""Of what is told with ``-v``: steps as they begin."""

NODES, LIBRARIES = 2, 3
"""How often ``-v`` is given for what Nipype does, and for what the libraries say."""


class StderrHandler(logging.StreamHandler):
    """Writes to what ``sys.stderr`` is at that time: a live display puts itself in its place."""

    def __init__(self):
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter(FORMAT))

    @property
    def stream(self):
        """Standard error of now."""
        return sys.stderr


def set_up_logging(verbose: int) -> None:
    """Set the levels of the loggers.

    ===== ==========================================================================
    given what is told
    ===== ==========================================================================
    (no)  the plan, a line for each step that ends, warnings, how each scan ended
    -v    each step when it begins too
    -vv   what harmony-app decides on the way, and every node of Nipype with its folder
    -vvv  what the libraries say too
    ===== ==========================================================================

    Parameters
    ----------
    verbose : int
        How often ``-v`` was given.
    """
    logging.addLevelName(STEP_LEVEL, 'STEP')
    root = logging.getLogger()
    if not any(isinstance(handler, StderrHandler) for handler in root.handlers):
        root.addHandler(StderrHandler())
    root.setLevel(logging.DEBUG if verbose >= LIBRARIES else logging.WARNING)
    level = (logging.INFO, STEP_LEVEL, logging.DEBUG)[min(verbose, 2)]
    logging.getLogger('harmony_app').setLevel(level)
