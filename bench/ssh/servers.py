"""Many sshd processes on loopback addresses, each with keys and configuration of its own."""

import os
import pathlib
import shutil
import socket
import subprocess
import time

PORT = 22022


class Servers:
    """Starts sshd on 127.0.1.1..count; leaving the context ends what was started, by its process ids."""

    def __init__(self, directory, count):
        self.directory = pathlib.Path(directory)
        self.addresses = [f"127.0.1.{n}" for n in range(1, count + 1)]
        self.processes = []

    def __enter__(self):
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        os.makedirs("/run/sshd", exist_ok=True)
        # Commands start without the operator's own shell start-up files, whose cost would be everybody's.
        home = self.directory / "home"
        home.mkdir()
        self.identity = self.directory / "id"
        keygen(self.identity)
        known = []
        try:
            for number, address in enumerate(self.addresses):
                key = self.directory / f"host{number}"
                keygen(key)
                known.append(f"[{address}]:{PORT} {key.with_suffix('.pub').read_text()}")
                config = self.directory / f"sshd{number}"
                config.write_text(
                    f"ListenAddress {address}:{PORT}\nHostKey {key}\nAuthorizedKeysFile {self.identity}.pub\n"
                    "PidFile none\nStrictModes no\nPasswordAuthentication no\nUsePAM no\nUseDNS no\n"
                    # One key exchange for all three, the only one that all know: the choice of one is not measured.
                    "KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org\n"
                    f"PermitRootLogin yes\nSubsystem sftp internal-sftp\nSetEnv HOME={home} SHLVL=2\n"
                )
                arguments = [sshd, "-D", "-f", str(config)]
                self.processes.append(subprocess.Popen(arguments, stderr=subprocess.DEVNULL))
            self.known_hosts = self.directory / "known_hosts"
            self.known_hosts.write_text("".join(known))
            for address in self.addresses:
                wait_for(address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    def pids(self):
        return {process.pid for process in self.processes}


def keygen(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def wait_for(address):
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((address, PORT), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
