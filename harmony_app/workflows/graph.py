"""The workflow as a drawing."""

import logging
import shutil
import subprocess
from pathlib import Path

from nipype.pipeline import engine as pe

logger = logging.getLogger('harmony_app')


def draw_graph(workflow: pe.Workflow, folder: Path) -> Path:
    """Write ``graph.dot``, and ``graph.svg`` where graphviz is installed.

    Parameters
    ----------
    workflow : Workflow
        What to draw.
    folder : Path
        Where to.

    Returns
    -------
    Path
        The drawing, or its description where there is no graphviz.
    """
    dot, svg = folder / 'graph.dot', folder / 'graph.svg'
    folder.mkdir(parents=True, exist_ok=True)
    workflow.write_hierarchical_dotfile(dotfilename=str(dot), colored=True)
    program = shutil.which('dot')
    if program is None:
        logger.info('the workflow is described in %s; graphviz (dot) would draw it', dot)
        return dot
    done = subprocess.run(
        [program, '-Tsvg', str(dot), '-o', str(svg)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        logger.warning('graphviz could not draw %s: %s', dot, done.stderr.strip())
        return dot
    logger.info('the workflow is drawn in %s', svg)
    return svg
