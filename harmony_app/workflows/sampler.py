"""Writes processor time and memory of one process to a file until its standard input closes.

A program of its own, without any other import: a thread of the process that is watched would
stand still wherever a library holds Python's lock, which is where time and memory go.
"""

import os
import select
import sys
import time


def sample(pid: int) -> str:
    """One line: time of day, processor seconds, resident memory in MB."""
    with open(f'/proc/{pid}/stat', encoding='utf-8') as stream:
        # The name of the program stands in brackets and may hold anything.
        fields = stream.read().rpartition(')')[2].split()
    with open(f'/proc/{pid}/statm', encoding='ascii') as stream:
        pages = int(stream.read().split()[1])
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    return f'{time.time():.3f} {seconds:.2f} {pages * os.sysconf("SC_PAGE_SIZE") / 2**20:.1f}\n'


def watch(pid: int, path: str, period: float) -> None:
    """Sample a process until it ends, or standard input does.

    Parameters
    ----------
    pid : int
        The process.
    path : str
        File that lines are added to.
    period : float
        Seconds between samples.
    """
    ended = False
    with open(path, 'a', encoding='ascii') as stream:
        while True:
            try:
                stream.write(sample(pid))
            except OSError:
                return
            stream.flush()
            if ended:
                return
            ended = bool(select.select([sys.stdin], [], [], period)[0])


if __name__ == '__main__':
    watch(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
