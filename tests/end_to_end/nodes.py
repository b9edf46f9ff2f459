"""Machines of a cluster as namespaces of this one: network, processes, mounts, host name, shared memory.

Each node has an address of its own on a switch that is connected to nothing else. It sees this machine's files; what
it must see otherwise (another code, no home) is mounted over them in its namespace only. Linux, as root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PORT = 6379
PATIENCE_S = 120.0
TOKEN = "0123456789abcdef" * 4
BEGIN = """
hostname "$NODE"
mount -t tmpfs -o size=1g tmpfs /dev/shm
mkdir -p /tmp/ray && mount --bind "$NODE_FOLDER/ray" /tmp/ray
eval "$BEFORE"
exec "$@"
"""


def why_not() -> str | None:
    """Why there can be no nodes here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "nodes are namespaces of Linux, and making them needs root"
    lacking = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if lacking:
        return f"nodes need the commands {', '.join(lacking)} (Debian: iproute2, util-linux)"
    trial = subprocess.run(
        ["unshare", "--net", "--mount", "true"], check=False, capture_output=True
    )
    return None if trial.returncode == 0 else "this machine allows no new namespaces"


def first_child(pid: int) -> int:
    """The process that `unshare` or `nsenter` has started, and waits for."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return int(path.read_text(encoding="utf-8").split()[0])


@dataclass
class Node:
    """One machine; `process` keeps its namespaces alive, and ends with all that runs in it."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The first process within."""
        return first_child(self.process.pid)

    @property
    def said(self) -> str:
        """What its Ray printed."""
        return (self.folder / "ray.txt").read_text(encoding="utf-8", errors="replace")


class Nodes:
    """A switch and the machines on it. The first one started is Ray's head."""

    def __init__(self, folder: Path, home: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._mark = f"l{os.getpid()}"
        self._environment = dict(environment) | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "LMOE_TUNE_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        self._made = 0
        self.head = ""
        self.nodes: dict[str, Node] = {}
        self._ip("netns", "add", self._switch)
        self._ip("-n", self._switch, "link", "set", "lo", "up")
        self._ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        self._ip("-n", self._switch, "link", "set", "switch", "up")

    @property
    def _switch(self) -> str:
        return f"{self._mark}-switch"

    def _space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    @staticmethod
    def _ip(*arguments: str, check: bool = True) -> None:
        subprocess.run(["ip", *arguments], check=check, capture_output=not check)

    def start(
        self, name: str, *, cpus: float, before: str = "", ray: bool = True, **more: str
    ) -> Node:
        """Switch a machine on, with Ray on it: the head if it is the first, else one that joins.

        Args:
            before: shell commands within it before anything else, such as mounts.
            ray: whether Ray starts; without it the machine only waits for commands.
        """
        self._made += 1
        address = f"10.77.0.{self._made}"
        self._connect(name, address)
        folder = self._folder / f"{name}-{self._made}"
        (folder / "ray").mkdir(parents=True)
        (folder / "home").mkdir()
        command = ["sleep", "infinity"]
        if ray:
            where = ["--head", f"--port={PORT}", "--include-dashboard=false"]
            if self.head:
                where = [f"--address={self.head}"]
            command = [
                "ray", "start", "--block", f"--num-cpus={cpus:g}", "--num-gpus=0",
                f"--node-ip-address={address}", "--object-store-memory=80000000", *where,
            ]  # fmt: skip
        environment = self._environment | {
            "HOME": str(folder / "home"),
            "NODE": name,
            "NODE_FOLDER": str(folder),
            "BEFORE": before,
            **more,
        }
        with (folder / "ray.txt").open("wb") as output:
            process = subprocess.Popen(
                [
                    "ip", "netns", "exec", self._space(name),
                    "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc",
                    "--", "bash", "-c", BEGIN, "node", *command,
                ],
                env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        node = self.nodes[name] = Node(name, address, folder, process)
        give_up = time.monotonic() + PATIENCE_S
        while ray and "runtime started" not in node.said:
            assert process.poll() is None and time.monotonic() < give_up, node.said
            time.sleep(0.1)
        if ray and not self.head:
            self.head = f"{address}:{PORT}"
        return node

    def command(self, name: str, arguments: Sequence[str]) -> list[str]:
        """What runs a command within a machine."""
        inside = str(self.nodes[name].pid)
        return ["nsenter", "-t", inside, "-m", "-u", "-i", "-n", "-p", "--", *arguments]

    def environment(self, name: str, **more: str) -> dict[str, str]:
        return self._environment | {"HOME": str(self.nodes[name].folder / "home"), **more}

    def num_alive(self, asked_from: str) -> int:
        """How many machines Ray counts."""
        script = (
            "import json, ray; ray.init(address='auto', logging_level='ERROR', log_to_driver=False);"
            "print(json.dumps(sum(node['Alive'] for node in ray.nodes())))"
        )
        done = subprocess.run(
            self.command(asked_from, [sys.executable, "-c", script]),
            env=self.environment(asked_from),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=False,
        )
        lines = done.stdout.strip().splitlines()
        return int(json.loads(lines[-1])) if lines else 0

    def drain(self, name: str, deadline_s: int) -> None:
        """Announce that it will be switched off, as a cloud does: nothing new starts there."""
        command = [
            "ray", "drain-node", f"--address={self.head}", "--reason=DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message=preempted", f"--deadline-remaining-seconds={deadline_s}",
        ]  # fmt: skip
        done = subprocess.run(
            self.command(name, command),
            env=self.environment(name),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def kill(self, name: str) -> None:
        """Switch it off at the mains: all of its processes end at once."""
        node = self.nodes.pop(name)
        os.kill(node.pid, signal.SIGKILL)
        node.process.wait(30)
        self._ip("netns", "del", self._space(name), check=False)

    def pull_cable(self, name: str) -> None:
        """Nobody reaches it any more; its processes go on."""
        self._ip("-n", self._space(name), "link", "set", "eth0", "down")

    def stop(self) -> None:
        for name in list(self.nodes):
            try:
                self.kill(name)
            except (OSError, IndexError, subprocess.TimeoutExpired):
                node = self.nodes.pop(name, None)
                if node is not None:
                    node.process.kill()
        self._ip("netns", "del", self._switch, check=False)

    def _connect(self, name: str, address: str) -> None:
        space = self._space(name)
        cable = f"v{self._mark}{self._made}"[:15]
        self._ip("netns", "add", space)
        self._ip("-n", space, "link", "set", "lo", "up")
        peer = ["peer", "name", "eth0", "netns", space]
        self._ip("link", "add", cable, "netns", self._switch, "type", "veth", *peer)
        self._ip("-n", self._switch, "link", "set", cable, "master", "switch", "up")
        self._ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        self._ip("-n", space, "link", "set", "eth0", "up")
        # Without a default route Ray takes 127.0.0.1 for the machine's address.
        self._ip("-n", space, "route", "add", "default", "dev", "eth0")


@contextmanager
def network(folder: Path, home: Path, environment: Mapping[str, str]) -> Iterator[Nodes]:
    """Nodes for the length of the block."""
    nodes = Nodes(folder, home, environment)
    try:
        yield nodes
    finally:
        nodes.stop()
