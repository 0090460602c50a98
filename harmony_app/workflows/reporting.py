"""Pages of the participants of a run, and the text to cite: made at its end, or again later."""

import logging
from collections.abc import Sequence
from pathlib import Path

from harmony_app.bids.atomic import write_text
from harmony_app.config import DEFAULT_AGGREGATE, RunConfig
from harmony_app.errors import ExitCode, InputError
from harmony_app.reports.methods_text import citation_markdown, methods_text
from harmony_app.reports.references import bibliography, cited_in
from harmony_app.workflows.participant_report import write_report
from harmony_app.workflows.report_facts import gather_facts
from harmony_app.workflows.report_inputs import RunLog, gather_subject, list_subjects, read_runs

logger = logging.getLogger('harmony_app')


def rebuild(config: RunConfig) -> tuple[list[str], ExitCode]:
    """Make the pages again from the results that are there (``--reports-only``).

    Parameters
    ----------
    config : RunConfig
        Output folder, participants and the settings of the reports are read.

    Returns
    -------
    lines : list of str
        What came of it.
    code : ExitCode

    Raises
    ------
    InputError
        Where there is nothing to make a page of.
    """
    root = config.output_dir
    if not root.is_dir():
        raise InputError(f'{root} is not there; run the participant level without --reports-only')
    if config.dry_run:
        labels = list_subjects(root, read_runs(root), config.participants)
        return [f'would write sub-{label}.html' for label in labels], ExitCode.SUCCESS
    return _told(root, *_write(config, config.participants))


def report_run(config: RunConfig, subjects: Sequence[str]) -> tuple[list[str], ExitCode]:
    """Write the pages of the participants of a run; what came of it, as :func:`rebuild`."""
    if not subjects:
        return [], ExitCode.SUCCESS
    return _told(config.output_dir, *_write(config, subjects))


def write_reports(
    root: Path,
    wanted: Sequence[str] = (),
    aggregate: int = DEFAULT_AGGREGATE,
    view_3d: bool = False,
) -> tuple[list[Path], list[str]]:
    """Write the pages of some participants, and the methods text of all results.

    A page that cannot be made costs that page and nothing else.

    Parameters
    ----------
    root : Path
        Output folder.
    wanted : sequence of str
        Labels of the participants; all by default.
    aggregate : int
        Sessions of one page, at most.
    view_3d : bool
        Whether the pages have a view in three dimensions.

    Returns
    -------
    written : list of Path
        The pages.
    failures : list of str
        What could not be made, and why.

    Raises
    ------
    InputError
        Where there is no participant, or a wanted one is absent.
    """
    runs = read_runs(root)
    labels = list_subjects(root, runs, wanted)
    written, failures = [], []
    for label in labels:
        try:
            written += write_report(root, label, aggregate, view_3d, runs)
        except Exception as error:  # noqa: BLE001
            # Results are worth more than the page about them.
            logger.debug('the report of sub-%s', label, exc_info=True)
            failures.append(f'report of sub-{label}: {type(error).__name__}: {error}')
    try:
        write_citation(root, runs)
    except Exception as error:  # noqa: BLE001
        logger.debug('the methods text', exc_info=True)
        failures.append(f'methods text: {type(error).__name__}: {error}')
    return written, failures


def write_citation(root: Path, runs: Sequence[RunLog]) -> list[Path]:
    """Write ``logs/CITATION.md`` and ``logs/CITATION.bib``: of all harmonized scans together.

    Returns
    -------
    list of Path
        Files written; none where no scan was harmonized.
    """
    told = gather_facts([gather_subject(root, label, runs) for label in list_subjects(root, runs)])
    if told is None:
        return []
    text = methods_text(told)
    return [
        write_text(root / 'logs' / 'CITATION.md', citation_markdown(text)),
        write_text(root / 'logs' / 'CITATION.bib', bibliography(cited_in(text))),
    ]


def _write(config: RunConfig, labels: Sequence[str]) -> tuple[list[Path], list[str]]:
    return write_reports(
        config.output_dir, labels, config.aggregate_session_reports, config.report_3d
    )


def _told(
    root: Path, written: Sequence[Path], failures: Sequence[str]
) -> tuple[list[str], ExitCode]:
    """What was written, in words, and the exit code."""
    lines = [f'failed {failure}' for failure in failures]
    shown = [path.relative_to(root).as_posix() for path in written]
    if shown:
        some = ', '.join(shown[:3]) + (f' and {len(shown) - 3} more' if len(shown) > 3 else '')
        lines.append(f'reports in {root}: {some}')
    return lines, ExitCode.FAILURE if failures else ExitCode.SUCCESS
