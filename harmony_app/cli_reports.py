"""Options of the pages about participants."""

import argparse

from harmony_app.cli_types import flags, positive
from harmony_app.config import DEFAULT_AGGREGATE


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the reports.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    group = parser.add_argument_group(
        'Options for reports', 'Of the participant level: sub-XX.html beside the results.'
    )
    group.add_argument(
        *flags('reports-only'),
        action='store_true',
        help='make the pages again from the results that are there; nothing is computed, and the '
        'input dataset is not read',
    )
    group.add_argument(
        *flags('report-3d'),
        action='store_true',
        help='put the scans before and after into the pages as volumes, with NiiVue to look at them '
        '(pages of 5 to 15 MB)',
    )
    group.add_argument(
        *flags('aggregate-session-reports'),
        type=positive,
        default=DEFAULT_AGGREGATE,
        metavar='N',
        help='sessions of one page, at most; of a participant with more, every session has a page of '
        'its own',
    )


def report_settings(arguments: argparse.Namespace) -> dict:
    """Settings of a run that these options give."""
    return {
        'reports_only': arguments.reports_only,
        'report_3d': arguments.report_3d,
        'aggregate_session_reports': arguments.aggregate_session_reports,
    }
