"""harmony-app: harmonize the contrast of multi-site brain MRI, from BIDS to BIDS."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ['__version__']

_version_file = Path(__file__).parent.parent / 'version'
try:
    # A source tree (and the container, which runs from one) knows its own version.
    __version__ = _version_file.read_text().strip()
except OSError:
    try:
        __version__ = version('harmony-app')
    except PackageNotFoundError:
        __version__ = '0+unknown'
