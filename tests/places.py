"""Filesystems to test on: real servers on loopback in processes of their own, and one that misbehaves."""

import contextlib
import getpass
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SERVERS = Path(__file__).parent / "servers"
USER, PASSWORD = "reader", "a-very-secret-word"


@dataclass(frozen=True)
class Spot:
    """A folder on some filesystem, and how a user reaches it."""

    url: str
    options: dict = field(default_factory=dict)
    filesystem: Any = None
    folder: Path | None = None
    """The same folder as the server's disk has it."""
    process: Any = None
    """The server."""

    @property
    def how(self):
        return {"storage_options": self.options or None, "filesystem": self.filesystem}

    def at(self, name):
        first, chain, rest = self.url.partition("::")
        return f"{first}/{name}{chain}{rest}"


@contextlib.contextmanager
def script(name, *arguments):
    """Run one of the servers; yield its process and port."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}
    with subprocess.Popen(
        [sys.executable, str(SERVERS / f"{name}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    ) as server:  # fmt: skip
        try:
            yield server, int(server.stdout.readline())
        finally:
            server.kill()


def needs(*packages):
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")


@contextlib.contextmanager
def webdav(folder):
    needs("webdav4", "wsgidav", "cheroot")
    with script("webdav", folder, USER, PASSWORD) as (process, port):
        options = {"base_url": f"http://127.0.0.1:{port}", "auth": (USER, PASSWORD)}
        yield Spot("webdav://lib", options, folder=folder / "lib", process=process)


@contextlib.contextmanager
def ftp(folder):
    needs("pyftpdlib")
    with script("ftp", folder, USER, PASSWORD) as (process, port):
        options = {"username": USER, "password": PASSWORD, "port": port}
        yield Spot("ftp://127.0.0.1/lib", options, folder=folder / "lib", process=process)


@contextlib.contextmanager
def web(folder, *, ranges=True):
    needs("aiohttp")
    with script("web", folder, *(["ranges"] if ranges else [])) as (process, port):
        yield Spot(f"http://127.0.0.1:{port}", folder=folder, process=process)


SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
)


@contextlib.contextmanager
def sftp(folder):
    """An OpenSSH server of this user's own."""
    needs("paramiko")
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    subsystem = next((s for s in SFTP_SERVERS if Path(s).exists()), "internal-sftp")
    if sshd is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no OpenSSH server: apt-get install openssh-server")
    own = folder.parent / f"{folder.name}-ssh"
    own.mkdir(mode=0o700)
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own / key], check=True, capture_output=True
        )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    own.joinpath("config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {own / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {own / 'user.pub'}\nStrictModes no\nPasswordAuthentication no\n"
        f"MaxStartups 100\nMaxSessions 100\nSubsystem sftp {subsystem}\nPermitRootLogin yes\n"
    )
    with subprocess.Popen([sshd, "-D", "-e", "-f", own / "config"], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            options = {
                "port": port, "username": getpass.getuser(), "key_filename": str(own / "user"),
                "look_for_keys": False, "allow_agent": False,
            }  # fmt: skip
            yield Spot(f"sftp://127.0.0.1{folder}/lib", options, folder=folder / "lib", process=process)
        finally:
            process.kill()


@contextlib.contextmanager
def smb(folder):
    """A Samba server of this user's own."""
    needs("smbprotocol")
    smbd = shutil.which("smbd") or shutil.which("smbd", path="/usr/sbin:/usr/local/sbin")
    if smbd is None or shutil.which("smbpasswd") is None:
        pytest.skip("there is no Samba server: apt-get install samba")
    if os.geteuid() != 0:
        pytest.skip("a Samba server makes its accounts for root alone")
    own = folder.parent / f"{folder.name}-smb"
    own.mkdir(mode=0o700)
    port, user = free_port(), getpass.getuser()
    kept = {"private": "dir", "state": "directory", "lock": "directory", "cache": "directory",
            "pid": "directory", "ncalrpc": "dir"}  # fmt: skip
    own.joinpath("smb.conf").write_text(
        f"[global]\nserver role = standalone server\nsmb ports = {port}\ninterfaces = 127.0.0.1/8\n"
        "bind interfaces only = yes\npassdb backend = tdbsam\nload printers = no\ndisable spoolss = yes\n"
        f"disable netbios = yes\nlog file = {own}/log\n"
        + "".join(f"{name} {kind} = {own}/{name}\n" for name, kind in kept.items())
        + f"[share]\npath = {folder}\nread only = no\nvalid users = {user}\n"
    )
    for name in kept:
        (own / name).mkdir()
    subprocess.run(
        ["smbpasswd", "-c", own / "smb.conf", "-a", "-s", user],
        input=f"{PASSWORD}\n{PASSWORD}\n", text=True, check=True, capture_output=True,
    )  # fmt: skip
    with subprocess.Popen(
        [smbd, "-F", "--no-process-group", "-s", own / "smb.conf"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            wait_for(port)
            options = {"port": port, "username": user, "password": PASSWORD}
            yield Spot("smb://127.0.0.1/share/lib", options, folder=folder / "lib", process=process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # a process for each connection


@contextlib.contextmanager
def gcs():
    """fake-gcs-server with a bucket `lake`; without Google's own class of buckets, asked for over gRPC."""
    needs("gcsfs")
    found = os.environ.get("VECDATASET_FAKE_GCS") or shutil.which("fake-gcs-server")
    if not found:
        pytest.skip(
            "needs fake-gcs-server: go install github.com/fsouza/fake-gcs-server@latest, "
            "and VECDATASET_FAKE_GCS to name it"
        )
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [found, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory",
               "-external-url", endpoint, "-public-host", f"127.0.0.1:{port}"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            from gcsfs import GCSFileSystem

            options = {"endpoint_url": endpoint, "token": "anon"}
            GCSFileSystem(**options, skip_instance_cache=True).mkdir("lake")
            yield Spot("gs://lake", options, process=process)
        finally:
            process.kill()


AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that Azurite and Azure's own emulator publish."""


@contextlib.contextmanager
def azure():
    """Microsoft's Blob server, which CI installs, with a container `lake`."""
    needs("adlfs")
    found = os.environ.get("VECDATASET_AZURITE") or shutil.which("azurite-blob")
    if not found:
        pytest.skip("needs azurite-blob: npm install azurite, and VECDATASET_AZURITE to name it")
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="azurite-") as folder,
        subprocess.Popen(
            [found, "--blobPort", str(port), "--location", folder, "--silent", "--skipApiVersionCheck"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process,
    ):  # fmt: skip
        try:
            wait_for(port, within_s=60)
            options = {
                "connection_string": "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
                f"AccountKey={AZURE_KEY};BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
            }
            from adlfs import AzureBlobFileSystem

            AzureBlobFileSystem(**options, skip_instance_cache=True).mkdir("lake")
            yield Spot("az://lake", options, process=process)
        finally:
            process.terminate()
            process.wait(20)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def wait_for(port, *, within_s=10):
    end = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > end:
            pytest.fail("the server did not start")
        time.sleep(0.02)


class Plug:
    """A TCP forwarder whose plug can be pulled: it hangs, or it resets, once so many bytes went up."""

    def __init__(self, port):
        self._target = port
        self._mode, self._left = "on", 0
        self._streams = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, mode, *, after_bytes=0):
        self._left, self._mode = after_bytes, mode

    def heard(self, data):
        """Be told what a client sends."""

    def mend(self):
        self._mode = "on"
        self._drop()

    def close(self):
        self._mode = "reset"
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()

    def _drop(self):
        for stream in list(self._streams):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def _is_out(self, size):
        if self._mode == "on":
            return False
        self._left -= size
        return self._left <= 0

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._streams |= {near, far}
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source, target, up):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if up:
                    self.heard(data)
                if self._is_out(len(data) if up else 0):
                    if self._mode == "hang":
                        continue  # swallowed, as by a network that is gone
                    break
                target.sendall(data)
        for stream in (source, target):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            self._streams.discard(stream)
            stream.close()
