"""A container engine of the tests' own, without a hub and without a way out, on Debian and as root.

The engine runs in a network namespace: it has its own bridge and ports, and the machine's rules stay as they are.
Images that `docker/` takes from a hub are stood in for by a Debian root that debootstrap makes, with the packages of
this test's own environment in it, so that `pip install` finds everything in place.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "dockerd": "docker.io",
    "iptables": "iptables",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
}
BUILD_BACKEND = ("hatchling", "pathspec", "pluggy", "tomlkit", "trove-classifiers")
SERVER_DRIVERS = ("psycopg2-binary", "boto3", "botocore", "jmespath", "s3transfer")
STARTS_S = 60.0

POSTGRES_ENTRY = """#!/bin/bash
# What the official image does with its variables, as far as compose.yaml uses it.
set -e
data=/var/lib/postgresql/data bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s "$data/PG_VERSION" ]; then
    chown postgres: "$data"
    echo "$POSTGRES_PASSWORD" > /tmp/password
    chown postgres: /tmp/password
    su postgres -c "$bin/initdb -D $data -U $POSTGRES_USER --pwfile=/tmp/password -A scram-sha-256" > /dev/null
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    echo "local all all trust" > /tmp/hba
    cat "$data/pg_hba.conf" >> /tmp/hba
    cat /tmp/hba > "$data/pg_hba.conf"
    su postgres -c "$bin/pg_ctl -D $data -w -o '-c listen_addresses= -k /tmp' start" > /dev/null
    su postgres -c "$bin/createdb -h /tmp -U $POSTGRES_USER $POSTGRES_DB" || true
    su postgres -c "$bin/pg_ctl -D $data -w stop" > /dev/null
fi
chown -R postgres: "$data"
exec setpriv --reuid=postgres --regid=postgres --init-groups \\
    "$bin/postgres" -D "$data" -c "listen_addresses=*" -k /var/run/postgresql
"""


def why_not() -> str | None:
    """Why containers cannot be run here, or None."""
    if os.environ.get("LMOE_TUNE_IMAGES_TEST") != "1":
        return "takes minutes and gigabytes: `make images-test` runs it"
    if os.geteuid() != 0:
        return "starting a container engine needs root"
    if shutil.which("apt-get") is None or not Path("/etc/debian_version").exists():
        return "the stand-ins for a hub's images are made of Debian's packages"
    if sys.version_info[:2] != (3, 11):
        return "Debian 12's Python is 3.11, and so must be this one: its packages go into the image"
    trial = subprocess.run(
        ["unshare", "--net", "--mount", "true"], check=False, capture_output=True
    )
    return None if trial.returncode == 0 else "this machine allows no new namespaces"


def install_packages() -> None:
    """Install what Debian has of what is missing."""
    missing = [package for command, package in PACKAGES.items() if shutil.which(command) is None]
    if not Path("/usr/bin/docker").exists() and "docker.io" not in missing:
        missing.append("docker.io")
    if missing:
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(command, env=quiet, check=True, stdout=subprocess.DEVNULL)


class Engine:
    """A running engine; `docker` and `compose` talk to it."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.folder = folder
        self.namespace = namespace
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")},
            "DOCKER_HOST": f"unix://{folder}/socket",
            "DOCKER_BUILDKIT": "1",
            "COMPOSE_DOCKER_CLI_BUILD": "1",
            "PATH": f"/usr/bin:/usr/sbin:{os.environ['PATH']}",
        }

    def docker(
        self, *arguments: str, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS`."""
        return self._run(["/usr/bin/docker", *arguments], check=check, timeout=timeout)

    def compose(
        self, *arguments: str, check: bool = True, timeout: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker-compose ARGUMENTS` over docker/compose.yaml, as it is."""
        command = ["docker-compose", "-f", str(ROOT / "docker" / "compose.yaml"), *arguments]
        return self._run(command, check=check, timeout=timeout, more=variables)

    def start_docker(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `docker ARGUMENTS` without waiting for its end."""
        return subprocess.Popen(
            ["/usr/bin/docker", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def pid_of(self, container: str) -> int:
        """The process of the machine that is a container's first one."""
        return int(self.docker("inspect", "--format", "{{.State.Pid}}", container).stdout)

    def kill_main_process(self, container: str) -> None:
        """End a container as a crash does; `docker kill` would tell the engine not to restart it."""
        os.kill(self.pid_of(container), signal.SIGKILL)

    def _run(
        self,
        command: list[str],
        *,
        check: bool,
        timeout: float,
        more: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            env=self.environment | (more or {}),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, (
                f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine for the length of the block, with the stand-ins for the images of a hub in it."""
    install_packages()
    folder = Path(tempfile.mkdtemp(prefix="lmoe-images-"))
    namespace = f"lmoe-images-{os.getpid()}"
    daemon: subprocess.Popen[bytes] | None = None
    try:
        root = _debian_root(folder)
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        with (folder / "dockerd.log").open("wb") as log:
            daemon = subprocess.Popen(
                [
                    "nsenter", f"--net=/run/netns/{namespace}", "dockerd",
                    "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
                    "--pidfile", str(folder / "pid"), "--host", f"unix://{folder}/socket",
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        engine = Engine(folder, namespace)
        _wait_for(engine, daemon)
        _import_stand_ins(engine, root)
        yield engine
    finally:
        if daemon is not None:
            _end(daemon)
        _unmount(folder)
        subprocess.run(["ip", "netns", "del", namespace], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _debian_root(folder: Path) -> Path:
    """A small Debian with Python, pip, PostgreSQL and the packages of this environment."""
    root = folder / "root"
    packages = "ca-certificates,python3.11,python3-pip,postgresql,util-linux"
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)]
    with (folder / "debootstrap.log").open("wb") as log:
        subprocess.run([*command, _mirror()], check=True, stdout=log, stderr=log)
    for path in (root / "var/cache/apt/archives").glob("*.deb"):
        path.unlink()
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")

    into = root / "usr/local/lib/python3.11/dist-packages"
    into.mkdir(parents=True, exist_ok=True)
    environment = Path(sysconfig.get_paths()["purelib"])
    # Linked where that is possible: nothing below changes a file in place.
    linked = subprocess.run(["cp", "-al", f"{environment}/.", str(into)], check=False)
    if linked.returncode != 0:
        subprocess.run(["cp", "-a", f"{environment}/.", str(into)], check=True)
    ours = [*into.glob("_lmoe_tune*.pth"), *into.glob("lmoe_tune-*.dist-info")]
    for path in [*ours, *into.glob("pip-*"), into / "pip"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _without_compiled_copies(into)
    for name in ("ray", "mlflow"):
        script = (Path(sys.executable).with_name(name)).read_text(encoding="utf-8")
        target = root / "usr/local/bin" / name
        target.write_text("#!/usr/local/bin/python\n" + script.partition("\n")[2], encoding="utf-8")
        target.chmod(0o755)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(into),
         "--disable-pip-version-check", *BUILD_BACKEND, *SERVER_DRIVERS],
        check=True,
    )  # fmt: skip
    entry = root / "usr/local/bin/stand-in-postgres"
    entry.write_text(POSTGRES_ENTRY, encoding="utf-8")
    entry.chmod(0o755)
    return root


def _mirror() -> str:
    """The mirror that this machine's own Debian comes from."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("URIs:"):
                return line.split()[1]
    for line in Path("/etc/apt/sources.list").read_text(encoding="utf-8").splitlines():
        if line.startswith("deb "):
            return next(word for word in line.split() if "://" in word)
    raise AssertionError("apt's sources name no mirror")


def _without_compiled_copies(folder: Path) -> None:
    for path in folder.rglob("__pycache__"):
        shutil.rmtree(path, ignore_errors=True)


def _wait_for(engine: Engine, daemon: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + STARTS_S
    while engine.docker("info", check=False).returncode != 0:
        log = (engine.folder / "dockerd.log").read_text(encoding="utf-8", errors="replace")
        assert daemon.poll() is None and time.monotonic() < give_up, log[-3000:]
        time.sleep(0.3)


def _import_stand_ins(engine: Engine, root: Path) -> None:
    """The stand-ins, under the names of the images that they stand in for."""
    path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin"
    settings = f"ENV PATH={path} LANG=C.UTF-8 PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0"
    archive = subprocess.Popen(
        ["tar", "-C", str(root), "--exclude=./dev/*", "-c", "."], stdout=subprocess.PIPE
    )
    subprocess.run(
        ["/usr/bin/docker", "import", "-c", settings, "-", "python:3.11-slim"],
        env=engine.environment,
        stdin=archive.stdout,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert archive.wait() == 0
    shutil.rmtree(root)
    build = engine.folder / "postgres"
    build.mkdir()
    text = 'FROM python:3.11-slim\nENTRYPOINT ["/usr/local/bin/stand-in-postgres"]\n'
    (build / "Dockerfile").write_text(text, encoding="utf-8")
    engine.docker("build", "-q", "-t", "postgres:17", str(build))


def _end(daemon: subprocess.Popen[bytes]) -> None:
    """Stop the engine; what containers still run ends with it."""
    if daemon.poll() is None:
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _unmount(folder: Path) -> None:
    """What the engine, or a debootstrap that was interrupted, has left mounted: nothing of it must be deleted."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        place = line.split()[1]
        if place.startswith(str(folder)):
            subprocess.run(["umount", "-l", place], check=False)
