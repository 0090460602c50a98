"""A SLURM of one node: munged, slurmctld and slurmd of this machine, in a temporary folder."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'squeue', 'scancel', 'scontrol')

CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={worker}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/builtin
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=2
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes=node1 Default=YES MaxTime=INFINITE State=UP
"""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.hpc)


class Cluster:
    """What a test asks of SLURM."""

    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment

    def ask(self, *command):
        """Output of a command; it has to end well."""
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment)
        assert done.returncode == 0, f'{words}: {done.stdout}{done.stderr}'
        return done.stdout

    def jobs(self, state='RUNNING'):
        """Numbers and names of jobs."""
        told = self.ask('squeue', '--noheader', f'--states={state}', '--format=%A %j')
        return dict(line.split() for line in told.splitlines())

    def wait_for(self, what, seconds=600):
        """The first true value of a function."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.3)
        raise AssertionError('it did not come')

    def run(self, script, *arguments, options=()):
        """Send a script, wait for its end, and give what it told."""
        out = self.folder / 'sent'
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        options = [f'--output={out}/%A_%a.out', *options]
        self.ask('sbatch', '--wait', *options, script, *arguments)
        return {path.name: path.read_text() for path in out.iterdir()}


@pytest.fixture(scope='session')
def cluster():
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if missing:
        pytest.skip(f'no {", ".join(missing)} here: install slurm-wlm and munge')
    if os.getuid() != 0:
        pytest.skip('slurmctld and slurmd of one node run as root')
    # A short path, because that of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix='slurm-'))
    try:
        yield _start(folder)
    finally:
        for name in ('slurmd', 'slurmctld', 'munged'):
            _end(folder / f'{name}.pid')
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder):
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    folder.chmod(0o755)
    host = socket.gethostname().split('.')[0]
    cpus = len(os.sched_getaffinity(0))
    controller, worker = _free_ports(2)
    configuration = CONFIGURATION.format(
        host=host,
        folder=folder,
        controller=controller,
        worker=worker,
        cpus=cpus,
        # Nodes of the workflow ask for 3 GB at most; SLURM only counts it.
        memory=max(4000, os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**21),
    )
    (folder / 'slurm.conf').write_text(configuration)
    python_path = [ROOT, ROOT / 'tests' / 'known_registration']
    environment = os.environ | {
        'SLURM_CONF': str(folder / 'slurm.conf'),
        'PATH': os.pathsep.join([str(Path(sys.executable).parent), _path()]),
        'PYTHONPATH': os.pathsep.join(map(str, python_path)),
        'OMP_NUM_THREADS': '1',
    }
    munge = [f'--{name}={folder}/munge.{name}' for name in ('socket',)]
    munge += [f'--key-file={key}', f'--pid-file={folder}/munged.pid']
    munge += [f'--log-file={folder}/munged.log', f'--seed-file={folder}/munge.seed']
    for command in (['munged', '--force', *munge], ['slurmctld'], ['slurmd', '-N', 'node1']):
        # Not to pipes, which the daemon would hold open.
        done = subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, f'{command[0]} did not start, see {folder}'
    cluster = Cluster(folder, environment)
    idle = ['sinfo', '--noheader', '--format=%T']
    cluster.wait_for(
        lambda: (
            'idle' in subprocess.run(idle, env=environment, capture_output=True, text=True).stdout
        ),
        seconds=60,
    )
    return cluster


def _path():
    return os.pathsep.join([os.environ.get('PATH', ''), '/usr/sbin', '/sbin'])


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _end(pid_file):
    """End a daemon that was started here, by its number."""
    try:
        number = int(pid_file.read_text())
        os.kill(number, 15)
        for _ in range(100):
            os.kill(number, 0)
            time.sleep(0.1)
        os.kill(number, 9)
    except (OSError, ValueError):
        pass
