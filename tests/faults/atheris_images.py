"""Bytes of files, guided by which branches they reach: ``python atheris_images.py FOLDER -runs=10000``.

The program must answer with a scan or a :class:`ScanError`; anything else is a crash that atheris keeps.
"""

import gzip
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=['harmony_app.imaging', 'nibabel']):
    import nibabel as nib
    import numpy as np

    from harmony_app.errors import ScanError
    from harmony_app.imaging.io import read_scan


def one_input(data):
    """Read a file of these bytes, plain or compressed by its first bit."""
    compressed = bool(data) and data[0] & 1
    path = FOLDER / ('in.nii.gz' if compressed else 'in.nii')
    content = data[1:]
    path.write_bytes(gzip.compress(content, 1) if compressed and data[0] & 2 else content)
    try:
        scan = read_scan(path)
    except ScanError as error:
        if '\n' in str(error) or 'do not fit into memory' in str(error):
            raise ValueError('not an answer to a user') from error
        return
    if not np.isfinite(scan.volume.data).all():
        raise ValueError('voxels that are no numbers')


def seeds(folder):
    """A valid scan of each kind, for a start."""
    data = np.random.default_rng(1).integers(1, 200, (12, 14, 10)).astype(np.int16)
    for name, kind in (('1', nib.Nifti1Image), ('2', nib.Nifti2Image)):
        content = kind(data, np.diag([1, 1, 1.2, 1])).to_bytes()
        (folder / f'plain{name}').write_bytes(b'\0' + content)
        (folder / f'packed{name}').write_bytes(b'\3' + content)
        (folder / f'stream{name}').write_bytes(b'\1' + gzip.compress(content, 1, mtime=0))


if __name__ == '__main__':
    FOLDER = Path(sys.argv.pop(1))
    CORPUS = FOLDER / 'corpus'
    CORPUS.mkdir(exist_ok=True)
    seeds(CORPUS)
    limits = ['-max_len=8192', '-timeout=60', '-rss_limit_mb=4096', f'-artifact_prefix={FOLDER}/']
    atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], str(CORPUS)], one_input)
    atheris.Fuzz()
