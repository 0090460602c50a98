"""A process that has loaded harmony-app once and forks for each run: a run costs a second.

It reads requests, one JSON object a line, and answers each with one: ``start`` gives the ``pid``
of a run, ``wait`` its exit status. What shall go wrong in a run is told by ``fault``.
"""

import json
import os
import resource
import signal
import sys
import time

from harmony_app.cli import main

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def preload():
    """Import what every run does, so that forks share it."""
    import bids.layout  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import nipype.interfaces.base  # noqa: F401
    import pandas  # noqa: F401
    import torch  # noqa: F401

    from harmony_app import app  # noqa: F401
    from harmony_app.imaging import registration, template
    from harmony_app.reports import figure  # noqa: F401
    from harmony_app.workflows import harmony, plugin, reporting, writing  # noqa: F401

    assert registration.register_template.__module__ == 'sitecustomize'
    template.load_template()


def is_writing(event, args):
    """Whether an audit event changes a file; gives its path, or None."""
    if event == 'open':
        path, mode, flags = args
        writes = flags & WRITING if isinstance(flags, int) else any(c in str(mode) for c in 'wax+')
        return os.fspath(path) if writes and isinstance(path, str | bytes | os.PathLike) else None
    if event in ('os.rename', 'os.link', 'os.symlink'):
        return os.fspath(args[1])
    if event in ('os.mkdir', 'os.remove', 'os.rmdir', 'os.truncate', 'os.chmod', 'shutil.rmtree'):
        return os.fspath(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else None
    return None


class Watch:
    """Counts what a run writes, keeps it, and ends the run at a given write."""

    def __init__(self, fault):
        self.below = fault.get('below', '')
        self.kill_at = fault.get('kill_at')
        self.signal = getattr(signal, fault.get('signal', 'SIGKILL'))
        self.log = None if 'log' not in fault else os.open(fault['log'], os.O_CREAT | os.O_WRONLY)
        self.count = 0
        self.inside = False
        sys.addaudithook(self.see)

    def see(self, event, args):
        if self.inside:
            return
        self.inside = True
        try:
            path = is_writing(event, args)
            if path is not None:
                path = os.path.abspath(os.fsdecode(path))
                self.tell('write', path)
                if path.startswith(self.below):
                    self.count += 1
                    # two threads that write at once may count past it before either looks
                    if self.kill_at is not None and self.count >= self.kill_at:
                        self.kill_at = None
                        os.kill(os.getpid(), self.signal)
            elif event.startswith('socket.') or event in (
                'subprocess.Popen',
                'os.system',
                'os.exec',
            ):
                self.tell(event, repr(args))
            elif event == 'pickle.find_class':
                self.tell(event, '.'.join(map(str, args)))
        finally:
            self.inside = False

    def tell(self, event, what):
        if self.log is not None:
            os.write(self.log, f'{event}\t{what}\n'.encode())


def run(request):
    """What the child does; never returns."""
    with open(request['told'], 'wb', buffering=0) as told:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ |= request.get('env', {})
    for name in request.get('unset', ()):
        os.environ.pop(name, None)
    time.tzset()
    os.chdir(request.get('cwd', '/'))
    fault = request.get('fault', {})
    if 'memory' in fault:
        resource.setrlimit(resource.RLIMIT_AS, (fault['memory'],) * 2)
    if 'user' in fault:
        os.setgroups([])
        os.setgid(fault['user'])
        os.setuid(fault['user'])
    if 'patch' in fault:
        exec(fault['patch'], {'__name__': 'patch'})
    Watch(fault)
    code = 99
    try:
        code = main(request['argv'])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def serve():
    """Answer requests until there are no more."""
    preload()
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    children = set()
    print(json.dumps({'ready': os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if 'warm' in request:
            # Modules that an id without rights could not load.
            answer = {'code': main(request['warm'])}
        elif 'argv' in request:
            pid = os.fork()
            if pid == 0:
                run(request)
            children.add(pid)
            answer = {'pid': pid}
        else:
            answer = {'status': wait(request['wait'], request['seconds'])}
            children.discard(request['wait'])
        print(json.dumps(answer), file=answers, flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def wait(pid, seconds):
    """Exit code of a child, negative for a signal; None where it has not ended in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == '__main__':
    serve()
