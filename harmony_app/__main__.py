"""``python -m harmony_app``."""

import sys

from harmony_app.cli import main

if __name__ == '__main__':
    sys.exit(main())
