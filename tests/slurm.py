"""A real Slurm of one node for a test: Debian's programs on loopback, everything in one folder, gone afterwards."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PACKAGES = "slurm-wlm munge"  # of Debian and Ubuntu
_DAEMONS = ("munged", "slurmctld", "slurmd")
_CLIENTS = ("sbatch", "srun", "scancel", "scontrol", "squeue")
_CORES = 4  # pretended: two jobs of conf/hydra/launcher/slurm.yaml at once

_CONFIGURATION = """\
ClusterName=cpath
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MinJobAge=3600
KillWait=2
# A job in the partition `urgent` has those in the other one stopped and queued again.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=65536 State=UNKNOWN
PartitionName=jobs Nodes={host} Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes={host} PriorityTier=9 MaxTime=INFINITE State=UP
"""

# Accounting needs a database; what submitit asks of it the controller knows too.
_SACCT = """\
#!{python} -IS
import subprocess
print("JobID|State|NodeList")
shown = subprocess.run(["scontrol", "-o", "show", "job"], capture_output=True, text=True, check=True, timeout=20)
for line in shown.stdout.splitlines():
    job = dict(field.partition("=")[::2] for field in line.split() if "=" in field)
    if "JobId" in job:
        name = job["JobId"]
        if task := job.get("ArrayTaskId"):
            name = job["ArrayJobId"] + "_" + (task if task.isdigit() else f"[{{task}}]")
        print(name, job["JobState"], job["NodeList"], sep="|")
"""


def missing() -> list[str]:
    """The programs of Slurm that are not installed."""
    return [name for name in (*_DAEMONS, *_CLIENTS) if _program(name) is None]


@dataclass(frozen=True)
class Slurm:
    """A running cluster; ``environment`` is what its users need."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """What a command of Slurm says."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job so far, the tasks of an array one by one once they have begun."""
        lines = self.run("scontrol", "-o", "show", "job").splitlines()
        fields = ([field.partition("=") for field in line.split() if "=" in field] for line in lines)
        return [job for job in ({key: value for key, _, value in line} for line in fields) if "JobId" in job]

    def processes(self) -> list[psutil.Process]:
        """Whatever runs because of this cluster: daemons, steps, and jobs, which inherit the environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    found.append(process)
            except psutil.Error:  # it ended meanwhile, or is somebody else's
                continue
        return found


@contextmanager
def cluster() -> Iterator[Slurm]:
    """Starts the cluster; afterwards no process of it is left, nor of its jobs."""
    # Not pytest's tmp_path: the path of a socket may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, ExitStack() as stack:
        yield _started(Path(folder), stack)


def _started(folder: Path, stack: ExitStack) -> Slurm:
    for name in ("bin", "spool", "state"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    values = {"folder": folder, "host": host, "user": getpass.getuser(), "cores": _CORES, "ports": _free_ports(2)}
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(**values))
    sacct = folder / "bin" / "sacct"
    sacct.write_text(_SACCT.format(python=sys.executable))
    sacct.chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"], "/usr/sbin"])
    slurm = Slurm(folder, {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path})
    munge = ["--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [
        f"--pid-file={folder}/munge.pid",
        f"--log-file={folder}/munge.log",
        f"--seed-file={folder}/munge.seed",
    ]
    stack.callback(_end, slurm)
    stack.enter_context(_daemon(slurm, "munged", *munge))
    _wait_until((folder / "munge.socket").exists, slurm)
    stack.enter_context(_daemon(slurm, "slurmctld", "-D", "-c"))
    stack.enter_context(_daemon(slurm, "slurmd", "-D", "-c"))
    _wait_until(lambda: _idle(slurm), slurm)
    stack.callback(_cancel, slurm)
    return slurm


@contextmanager
def _daemon(slurm: Slurm, name: str, *arguments: str) -> Iterator[None]:
    with open(slurm.folder / f"{name}.out", "w") as log:
        process = subprocess.Popen(
            [str(_program(name)), *arguments],
            env=slurm.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _cancel(slurm: Slurm) -> None:
    """No job runs on: killed, not asked, because jobs of submitit do not listen."""
    slurm.run("scancel", "--user", getpass.getuser())
    _wait_until(lambda: not slurm.run("squeue", "--noheader").strip(), slurm)


def _end(slurm: Slurm) -> None:
    """Steps end by themselves soon after slurmd; whatever does not is killed."""
    _, left = psutil.wait_procs(slurm.processes(), timeout=10)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)


def _idle(slurm: Slurm) -> bool:
    try:
        return "State=IDLE" in slurm.run("scontrol", "-o", "show", "node")
    except subprocess.SubprocessError:  # the controller does not answer yet
        return False


def _wait_until(done: Callable[[], bool], slurm: Slurm, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            logs = (f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted(slurm.folder.glob("*.out")))
            raise TimeoutError("\n".join(["Slurm did not do what was waited for", *logs]))
        time.sleep(0.1)


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
