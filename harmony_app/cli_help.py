"""How ``--help`` looks: one line for each option, values and defaults in words, examples."""

import argparse
import shutil

DESCRIPTION = """\
Harmonize the contrast of multi-site brain MRI: a BIDS dataset in, the same brains in the
contrast of one target out. T1w, T2w, PDw and FLAIR, whole heads or brains, 3D or thick slices."""

EXAMPLES = """examples:
  harmony-app /data/bids /data/harmonized participant
      every T1w, T2w, PDw and FLAIR scan, to the default style of the packaged model
  harmony-app /data/bids /data/harmonized participant --dry-run
      what would be done, with what it would cost; nothing is written
  harmony-app /data/bids /data/harmonized participant --participant-label 01 02 \\
      --target T1w=/data/reference_T1w.nii.gz --modalities T1w
      two participants, their T1w scans only, to look like one image
  harmony-app /data/bids /data/harmonized participant group --task evaluate
      harmonize, then measure what that did to the study (group.html)
  harmony-app /data/bids /data/harmonized participant --export-fmriprep
      and write what fmriprep takes with -d harmony=/data/harmonized/derivatives/for-fmriprep

Options may be written with underscores too (--work_dir). The input is never written to. The same
command, given again, continues a run that was interrupted.
Every option is explained in docs/usage.md, every file that is written in docs/outputs.md."""

WIDTH = 100
"""Columns of the page at most."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Names an option once, with hyphens, and tells a default where it is a value."""

    def __init__(self, prog: str):
        width = min(shutil.get_terminal_size().columns, WIDTH)
        super().__init__(prog, max_help_position=28, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ', '.join(name for name in action.option_strings if '_' not in name)
        if action.nargs == 0:
            return names
        return f'{names} {self._format_args(action, action.dest.upper())}'

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default in (None, False, [], 0, argparse.SUPPRESS) or not action.option_strings:
            return action.help
        told = ' '.join(default) if isinstance(default, list) else default
        return f'{action.help} (default: {told})'
