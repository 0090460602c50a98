#!/usr/bin/env python3
"""Entry of the BIDS App: run.py bids_dir output_dir {participant,group}."""

import sys

from harmony_app.cli import main

# Worker processes import this file again: only the first one runs.
if __name__ == '__main__':
    sys.exit(main())
