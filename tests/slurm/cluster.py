"""A real SLURM cluster on this machine alone: three nodes on loopback, one with two made-up GPUs.

    with Cluster() as cluster:
        subprocess.run(["srun", "hostname"])
        cluster.kill_node("c1")

SLURM's programs look for their configuration in /etc/slurm, since a job's step keeps nothing in its environment that would tell
them another place. So the process that starts a cluster gets a mount namespace of its own, in which that folder is the cluster's:
it and what it starts see the cluster, the rest of the machine does not. Every node is a slurmd in further namespaces: it has its
own host name, and an /etc/hosts that knows the others. That file is bound from the cluster's folder and tells which processes are
a node's: one can die with all that runs on it, and what was left by tests that were killed themselves is found and ended.
Users of a cluster who are not the machine's are in the nodes' own /etc/passwd and /etc/group alike.

By hand, a shell or command on a cluster: python tests/slurm/cluster.py [COMMAND ...]
"""

import contextlib
import ctypes
import fcntl
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

CONFIGURATION = Path("/etc/slurm")
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sbatch", "srun", "squeue", "unshare")
PACKAGES = "slurmctld slurmd slurm-client munge slurmdbd mariadb-server"
NODES = ("c1", "c2", "g1")
HEAD_NODE = "head"
CPUS, MEMORY_MB, GPUS = 32, 512_000, 2  # claimed: jobs that ask for what real ones need find room
FOLDER_PREFIX = "medmim-cluster-"
HOSTS_MOUNT = re.compile(rf" (\S*/{FOLDER_PREFIX}\w+)/hosts\.(\w+) /etc/hosts ")  # in a member's mountinfo
NEW_MOUNTS = 0x20000  # CLONE_NEWNS
PROJECT_GROUP = "project"
FIRST_ID = 61_000  # of the users and groups that only a cluster knows
TIMEOUT_SECONDS, POLL_SECONDS = 300.0, 0.02  # seconds; long, for machines that have much else to do


class ClusterError(Exception):
    """The cluster does not do what it should."""


def find_obstacle() -> str:
    """Why no cluster can start here, and what to do; empty where nothing is in the way."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"no {', '.join(missing)}: apt-get install --no-install-recommends {PACKAGES}"
    if os.geteuid():
        return "only root can start a SLURM cluster, whose nodes are namespaces: sudo make test"
    return ""


def wait_until(condition: Callable[[], T], description: str | Callable[[], str], seconds: float = TIMEOUT_SECONDS) -> T:
    """Wait for a condition; returns its value. `what` is said where it does not come."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise ClusterError(
                f"waited {seconds:.0f} s in vain for {description if isinstance(description, str) else description()}"
            )
        time.sleep(POLL_SECONDS)
    return value


def run_client(*command: str, seconds: float = 10, ok: bool = True) -> str:
    """What one of SLURM's programs says; without a controller it would wait for ever."""
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        if ok:
            raise ClusterError(f"{shlex.join(command)}: no answer in {seconds:.0f} s") from None
        return ""
    if ok and completed.returncode:
        raise ClusterError(f"{shlex.join(command)}: {completed.stderr.strip() or completed.stdout.strip()}")
    return completed.stdout


def list_processes() -> list[tuple[int, Path, str]]:
    """Every process of any cluster here, with the folder of its cluster and its node."""
    processes = []
    for process in (p for p in Path("/proc").iterdir() if p.name.isdigit()):
        try:
            mount = HOSTS_MOUNT.search((process / "mountinfo").read_text())
        except OSError:  # gone
            continue
        if mount:
            processes.append((int(process.name), Path(tempfile.gettempdir(), Path(mount[1]).name), mount[2]))
    return processes


def find_cluster_processes(folder: Path, *nodes: str) -> set[int]:
    """Processes of a cluster, or of some of its nodes."""
    return {process for process, own, node in list_processes() if own == folder and (not nodes or node in nodes)}


@contextlib.contextmanager
def lock_clusters() -> Iterator[None]:
    """Let one test session at a time make or remove the folder of a cluster."""
    with Path(tempfile.gettempdir(), f"{FOLDER_PREFIX.rstrip('-')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def end_abandoned() -> None:
    """End the clusters of test sessions that were killed: nobody holds their locks."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            _kill_processes(lambda folder=folder: find_cluster_processes(folder))
            shutil.rmtree(folder)


def _kill_processes(processes: Callable[[], set[int]]) -> None:
    """End processes and those they start meanwhile."""

    def are_gone() -> bool:
        remaining = {p for p in processes() if not _is_zombie(p)}
        for number in (signal.SIGSTOP, signal.SIGKILL):  # Halted first, so that none sees another die and reports it.
            for process in remaining:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
        return not remaining

    wait_until(are_gone, "processes to end")


def process_status(process: int) -> dict[str, str]:
    """What the kernel tells of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _is_zombie(process: int) -> bool:
    try:
        return process_status(process)["State"].startswith("Z")
    except OSError:  # gone
        return True


def find_free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, nor will by chance: the kernel gives out others, while a daemon of ours is down too."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    never_given = [port for port in range(1024, 65536) if not low <= port <= high]
    ports: list[int] = []
    for port in random.SystemRandom().sample(never_given, 10 * count):
        with contextlib.suppress(OSError):  # in use
            socket.create_server(("127.0.0.1", port)).close()
            ports.append(port)
    return ports[:count]


class Cluster:
    """Nodes c1 and c2, node g1 with GPUs. Partitions cpu, gpu, spot (preempted by cpu) and urgent (preempts gpu).

    Args:
        users: names of users that it has beside the machine's; all are in the group PROJECT_GROUP
    """

    def __init__(self, *, database: bool = False, min_job_age: int = 300, users: Sequence[str] = ()) -> None:
        self.database, self.min_job_age, self.users = database, min_job_age, users
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._is_mounted = False

    def __enter__(self) -> "Cluster":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # Starting and stopping

    def start(self) -> None:
        if obstacle := find_obstacle():
            raise ClusterError(obstacle)
        with lock_clusters():
            end_abandoned()
            self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
            self._lock = (self.folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._write_configuration()
        self._mount_configuration()
        self._start_daemon("munged", HEAD_NODE, "munged", "--foreground", f"--key-file={self.folder}/munge/key",
                     f"--socket={self._munge_socket}", f"--pid-file={self.folder}/munge/pid",
                     f"--log-file={self.folder}/log/munged.log", f"--seed-file={self.folder}/munge/seed")  # fmt: skip
        wait_until(self._munge_socket.exists, lambda: f"munged; {self.read_logs('munged')}")
        if self.database:
            self._start_database()
        self._start_daemon("slurmctld", HEAD_NODE, "slurmctld", "-D", "-i")
        for node in NODES:
            self._start_daemon(node, node, "slurmd", "-D", "-N", node)
        self.wait_for_nodes(*NODES)

    def stop(self) -> None:
        """End every process of the cluster and leave nothing of it on this machine."""
        if not hasattr(self, "folder"):
            return
        _kill_processes(lambda: find_cluster_processes(self.folder))
        for daemon in self._daemons.values():
            daemon.wait()
        if self._is_mounted:
            subprocess.run(["umount", CONFIGURATION], check=True)
        with lock_clusters():
            shutil.rmtree(self.folder)
            self._lock.close()
        del self.folder

    @property
    def _munge_socket(self) -> Path:
        return self.folder / "munge/socket"

    def _start_daemon(self, name: str, node: str, *command: str, configuration: Path | None = None) -> None:
        """Start a daemon on a node: slave mounts, so that a disk mounted for a test is there too."""
        hosts = self.folder / f"hosts.{node}"
        commands = [f"hostname {node}", f"mount --bind {hosts} /etc/hosts", *self._user_mounts(), f"exec {shlex.join(command)}"]
        if configuration:
            commands.insert(0, f"mount --bind {configuration} {CONFIGURATION}")
        script = " && ".join(commands)
        with (self.folder / f"log/{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                ["unshare", "--uts", "--mount", "--propagation", "slave", "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=self.folder,
            )  # fmt: skip

    def _user_mounts(self) -> list[str]:
        """Commands that let a node know the users, and let these read the Python that runs this.

        It may lie in a folder that is root's alone, as /root: an empty one, with nothing else in it, takes that folder's place.
        """
        if not self.users:
            return []
        mounts = [f"mount --bind {self.folder}/{name} /etc/{name}" for name in ("passwd", "group")]
        closed_folder_by_path = {
            path: folder
            for path in dict.fromkeys((sys.base_prefix, sys.prefix))
            if (folder := next((p for p in reversed(Path(path).parents) if not p.stat().st_mode & 0o001), None))
        }
        opened = {path: self.folder / f"opened/{number}" for number, path in enumerate(closed_folder_by_path)}
        mounts += [f"mkdir -p {place} && mount --bind {shlex.quote(path)} {place}" for path, place in opened.items()]
        mounts += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(p))}" for p in set(closed_folder_by_path.values())]
        mounts += [f"mkdir -p {shlex.quote(path)} && mount --bind {place} {shlex.quote(path)}" for path, place in opened.items()]
        return mounts

    def read_logs(self, *names: str) -> str:
        """The end of daemons' logs, for messages."""
        logs = [p for name in names or ("",) for p in sorted((self.folder / "log").glob(f"{name}*"))]
        return "\n".join(f"{p.name}:\n" + "\n".join(p.read_text(errors="replace").splitlines()[-8:]) for p in logs)

    def _write_configuration(self) -> None:
        self.folder.chmod(0o755)  # jobs and munge look into it
        for name in ("etc", "log", "munge", "state", "dev", "database", *(f"spool/{n}" for n in NODES)):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge/key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        known = "".join(f"127.0.0.1 {name}\n" for name in ("localhost", HEAD_NODE, *NODES))
        for name in (HEAD_NODE, *NODES):
            (self.folder / f"hosts.{name}").write_text(known)
        self._write_users()
        for number in range(GPUS):
            subprocess.run(["mknod", "-m", "666", self.folder / f"dev/nvidia{number}", "c", "1", "3"], check=True)  # as /dev/null
        control, database, store, *ports = find_free_ports(3 + len(NODES))
        self._store_port = store
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.database:
            accounting = f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database}
AccountingStoragePass={self._munge_socket}
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits
AccountingStoreFlags=job_comment"""
        nodes = "\n".join(
            f"NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory={MEMORY_MB}"
            + (f" Gres=gpu:h100:{GPUS}" if name.startswith("g") else "")
            for name, port in zip(NODES, ports, strict=True)
        )
        (self.folder / "etc/slurm.conf").write_text(f"""ClusterName=test
SlurmctldHost={HEAD_NODE}(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={self._munge_socket},cred_expire=5
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool/%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.%n.pid
SlurmctldLogFile={self.folder}/log/slurmctld.log
SlurmdLogFile={self.folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
DefMemPerCPU=256
MinJobAge={self.min_job_age}
ReturnToService=2
SlurmdTimeout=10
MessageTimeout=5
KillWait=5
InactiveLimit=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}
{nodes}
PartitionName=cpu Nodes=c1,c2 Default=YES LLN=YES MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Nodes=g1 MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=spot Nodes=c1,c2 LLN=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=g1 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
""")
        (self.folder / "etc/gres.conf").write_text(
            f"AutoDetect=off\nNodeName=g1 Name=gpu Type=h100 File={self.folder}/dev/nvidia[0-{GPUS - 1}]\n"
        )
        configuration = self.folder / "etc/slurmdbd.conf"
        configuration.touch(0o600)
        configuration.write_text(f"""DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={database}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={self._munge_socket}
PidFile={self.folder}/slurmdbd.pid
LogFile={self.folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={store}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
""")

    def _write_users(self) -> None:
        """Write the nodes' passwd and group: the machine's, and ours. Each user has a group and a home of his own."""
        passwd, group = (Path("/etc", name).read_text(encoding="utf-8") for name in ("passwd", "group"))
        for number, name in enumerate(self.users, FIRST_ID + 1):
            home = self.folder / "home" / name
            home.mkdir(parents=True)
            os.chown(home, number, number)
            passwd += f"{name}:x:{number}:{number}::{home}:/bin/bash\n"
            group += f"{name}:x:{number}:\n"
        group += f"{PROJECT_GROUP}:x:{FIRST_ID}:{','.join(self.users)}\n"
        (self.folder / "passwd").write_text(passwd, encoding="utf-8")
        (self.folder / "group").write_text(group, encoding="utf-8")

    def _mount_configuration(self) -> None:
        """Let this process and what it starts find the cluster's configuration."""
        CONFIGURATION.mkdir(exist_ok=True)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(NEW_MOUNTS):
            raise ClusterError(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
        for kind in ("rslave", "rshared"):  # what is mounted outside is seen here, what is mounted here on the nodes too
            subprocess.run(["mount", f"--make-{kind}", "/"], check=True)
        subprocess.run(["mount", "--bind", self.folder / "etc", CONFIGURATION], check=True)
        self._is_mounted = True

    def _start_database(self) -> None:
        data, sock = self.folder / "database", self.folder / "mariadb.socket"
        run_client("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db", seconds=60)
        self._start_daemon("mariadbd", HEAD_NODE, "mariadbd", "--no-defaults", "--user=root",
                             f"--datadir={data}", f"--socket={sock}",
                     "--bind-address=127.0.0.1", f"--port={self._store_port}", "--innodb-buffer-pool-size=64M",
                     "--innodb-lock-wait-timeout=900", "--max-allowed-packet=16M")  # fmt: skip
        client = ("mariadb", "--no-defaults", "-S", str(sock), "-e")
        wait_until(lambda: run_client(*client, "select 1", ok=False), "mariadbd")
        run_client(*client, "create database slurm; grant all on slurm.* to slurm@'127.0.0.1' identified by 'slurm'; "
             "grant all on slurm.* to slurm@localhost identified by 'slurm'")  # fmt: skip
        self._start_daemon("slurmdbd", HEAD_NODE, "slurmdbd", "-D")
        wait_until(lambda: run_client("sacctmgr", "-n", "show", "stats", ok=False), "slurmdbd")
        run_client("sacctmgr", "-i", "add", "cluster", "test")
        run_client("sacctmgr", "-i", "add", "account", "lab")
        run_client("sacctmgr", "-i", "add", "user", "root", "account=lab")

    def add_cluster(self, name: str, node: str) -> None:
        """Start another cluster beside this one, with the same database, one node and a partition cpu."""
        port, node_port = find_free_ports(2)
        configuration = self.folder / f"etc.{name}"
        shutil.copytree(self.folder / "etc", configuration)
        (configuration / "gres.conf").unlink()
        own_lines = {
            "ClusterName": name, "SlurmctldPort": port, "StateSaveLocation": f"{self.folder}/state.{name}",
            "SlurmctldPidFile": f"{self.folder}/slurmctld.{name}.pid",
            "SlurmctldLogFile": f"{self.folder}/log/slurmctld.{name}.log",
        }  # fmt: skip
        lines = (configuration / "slurm.conf").read_text().splitlines()
        dropped = (*(f"{key}=" for key in own_lines), "NodeName=", "PartitionName=", "GresTypes=")
        lines = [line for line in lines if not line.startswith(dropped)] + [f"{key}={value}" for key, value in own_lines.items()]
        lines.append(f"NodeName={node} NodeAddr=127.0.0.1 Port={node_port} CPUs={CPUS} RealMemory={MEMORY_MB}")
        lines.append(f"PartitionName=cpu Nodes={node} Default=YES")
        (configuration / "slurm.conf").write_text("\n".join([*lines, ""]))
        (self.folder / f"spool/{node}").mkdir()
        (self.folder / f"state.{name}").mkdir()
        (self.folder / f"hosts.{node}").write_text(f"{(self.folder / f'hosts.{HEAD_NODE}').read_text()}127.0.0.1 {node}\n")
        run_client("sacctmgr", "-i", "add", "cluster", name)
        run_client("sacctmgr", "-i", "add", "account", "lab", f"cluster={name}")
        run_client("sacctmgr", "-i", "add", "user", "root", "account=lab", f"cluster={name}")
        self._start_daemon(f"slurmctld.{name}", HEAD_NODE, "slurmctld", "-D", "-i", configuration=configuration)
        self._start_daemon(node, node, "slurmd", "-D", "-N", node, configuration=configuration)
        wait_until(
            lambda: "idle" in run_client("sinfo", f"--clusters={name}", "-h", "-o", "%t", ok=False),
            lambda: f"cluster {name}; {self.read_logs(f'slurmctld.{name}', node)}",
        )

    # Faults

    def kill_node(self, node: str, *, orphans: bool = False) -> None:
        """A node loses its power; with `orphans` it is only out of reach and what runs on it goes on."""
        if orphans:
            self._daemons[node].kill()
        else:
            _kill_processes(lambda: find_cluster_processes(self.folder, node))
        self._daemons[node].wait()

    def start_node(self, node: str) -> None:
        self._start_daemon(node, node, "slurmd", "-D", "-N", node)
        self.wait_for_nodes(node)

    def stop_controller(self, *, crash: bool = False) -> None:
        """In order, or as when its machine dies: then it forgets the last seconds, jobs submitted meanwhile too."""
        daemon = self._daemons["slurmctld"]
        daemon.kill() if crash else daemon.terminate()
        daemon.wait()

    def start_controller(self) -> None:
        """Start it again with what it knew."""
        self._start_daemon("slurmctld", HEAD_NODE, "slurmctld", "-D")
        wait_until(lambda: "UP" in run_client("scontrol", "ping", ok=False), "slurmctld")

    @contextlib.contextmanager
    def configured(self, *lines: str) -> Iterator[None]:
        """More lines in the configuration, for a while."""
        configuration = self.folder / "etc/slurm.conf"
        text = configuration.read_text()
        configuration.write_text(text + "".join(f"{line}\n" for line in lines))
        run_client("scontrol", "reconfigure")
        try:
            yield
        finally:
            configuration.write_text(text)
            run_client("scontrol", "reconfigure")

    def drain_node(self, node: str) -> None:
        """Let the node start no job more."""
        run_client("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")

    def resume_node(self, node: str) -> None:
        run_client("scontrol", "update", f"NodeName={node}", "State=RESUME")

    # What there is

    def wait_for_nodes(self, *nodes: str) -> None:
        def are_up() -> bool:
            ours = {name: self._daemons[name] for name in (*nodes, "slurmctld")}
            if dead := [name for name, daemon in ours.items() if daemon.poll() is not None]:
                raise ClusterError(f"{', '.join(dead)} ended")
            listed = run_client("sinfo", "-h", "-N", "-o", "%N %t", seconds=5, ok=False).splitlines()
            return set(nodes) <= {line.split()[0] for line in listed if line.split()[1] in ("idle", "mix", "alloc")}

        try:
            wait_until(are_up, f"the nodes {', '.join(nodes)}")
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self.read_logs()}") from None

    def node_state(self, node: str) -> str:
        return re.findall(r"\bState=(\S+)", run_client("scontrol", "show", "node", node))[0]

    def list_jobs(self) -> dict[str, dict[str, str]]:
        """What the controller knows of every job, by its id."""
        lines = run_client("scontrol", "--oneliner", "show", "jobs", seconds=20).splitlines()
        jobs = [dict(re.findall(r"(\S+?)=(.*?)(?= \S+=|$)", line)) for line in lines]
        return {job["JobId"]: job for job in jobs if "JobId" in job}

    def job_state(self, job: str) -> str:
        return self.list_jobs()[job]["JobState"]

    def find_processes(self, program: str) -> list[int]:
        """Processes on the nodes that run a program of ours."""
        processes = []
        for process in sorted(find_cluster_processes(self.folder, *NODES)):
            with contextlib.suppress(OSError):  # gone
                words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
                if any(word.endswith(f"/{program}") for word in words[:4]):
                    processes.append(process)
        return processes

    def halt_program(self, program: str, condition: Callable[[], object] = lambda: True) -> int:
        """Wait for a program to run, and for `when`, and halt it as a slow disk would until SIGCONT; its process."""
        wait_until(condition, lambda: f"{program} to get to where it is halted; {self.read_logs('slurmctld')}")
        [process] = wait_until(
            lambda: self.find_processes(program), lambda: f"{program} on a node; {self.read_logs('slurmctld')}"
        )
        os.kill(process, signal.SIGSTOP)
        return process

    def run_on_node(self, node: str, *command: str) -> str:
        """What a command says that runs on a node, outside any job."""
        return run_client("nsenter", "--target", str(self._daemons[node].pid), "--mount", "--uts", "--", *command)

    def run_as_user(self, user: str, script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """A user's bash script at home on the login node, until it ends."""
        home = self.folder / "home" / user
        words = ["nsenter", "--target", str(self._daemons["munged"].pid), "--mount", "--uts", f"--wd={home}", "--", "setpriv"]
        words += [f"--reuid={user}", f"--regid={user}", "--init-groups", "bash", "-euc", script]
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        env = kept | {"HOME": str(home), "USER": user, "LOGNAME": user, **environment}
        return subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, umask=0o022)

    def reset_nodes(self) -> None:
        """Back to a cluster with all nodes up, on which nothing runs."""
        if self._daemons["slurmctld"].poll() is not None:
            self.start_controller()
        for node in NODES:
            if self._daemons[node].poll() is not None:
                self.start_node(node)
            elif "DRAIN" in self.node_state(node):
                self.resume_node(node)
        run_client("scancel", "--full", f"--user={os.geteuid()}", seconds=20)
        for user in self.users:
            self.run_on_node(NODES[0], "scancel", "--full", f"--user={user}")
        final_states = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        wait_until(lambda: all(job["JobState"] in final_states for job in self.list_jobs().values()), "jobs to end")


def main() -> int:
    with Cluster() as cluster:
        print(f"A cluster in {cluster.folder}, until you leave this shell.", file=sys.stderr)
        return subprocess.run(sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
