"""Segmentation networks that know one site: one for each person, trained on the others.

A network is trained once on the unharmonized scans at the reference site, and labels what every
method made of the scans of all other sites.
"""

from pathlib import Path

from benchmarks.preprocessed import Preprocessed
from benchmarks.truth import TrueAnatomy
from harmony_app.evaluation.segmentation_network import LabelledScan, Segmenter, train_segmenter
from harmony_app.workflows.records import Record, write_record


def network_path(parts: Path, contrast: str, subject: str) -> Path:
    """File of the network that has not seen a person."""
    return parts / f'network_{contrast}_sub-{subject}.npz'


def train_network(
    path: Path,
    data: Preprocessed,
    bids: Path,
    contrast: str,
    subject: str,
    reference: str,
    steps: int,
    seed: int,
) -> None:
    """Train the network of one person and write it; one without scans is written as such.

    Parameters
    ----------
    path : Path
        Of :func:`network_path`.
    data, bids
        Dataset, preprocessed and as written.
    contrast : str
        Contrast of the scans.
    subject : str
        Whose scans are left out.
    reference : str
        Session of the reference site.
    steps, seed : int
        Of the training.
    """
    scans = []
    try:
        for source in data.inputs:
            here = (source.contrast, source.session) == (contrast, reference)
            if here and source.subject != subject:
                scan = data.load(source)
                labels = TrueAnatomy(bids, source, scan).labels
                scans.append(LabelledScan(scan.working.data, scan.brain, labels))
        arrays = train_segmenter(scans, steps=steps, seed=seed).to_arrays()
    except ValueError as error:
        write_record(path, {'failure': {'message': str(error)}})
        return
    write_record(path, {'weights': list(arrays)}, arrays)


def load_network(path: Path) -> Segmenter:
    """Read a network.

    Raises
    ------
    ValueError
        Where none could be trained.
    """
    record = Record(path)
    if record.failure:
        raise ValueError(f'no segmentation network was trained: {record.failure["message"]}')
    return Segmenter.from_arrays({name: record.array(name) for name in record.facts['weights']})
