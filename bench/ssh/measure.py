"""Runs a command and measures its time, and the memory of all its processes."""

import ctypes
import os
import subprocess
import threading
import time

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
INTERVAL = 0.2


def adopt_orphans():
    """Makes processes that go into the background stay below this one, so that they are counted."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


class Measured:
    """Wall time in seconds; peak resident memory of the first process and of all together, in MiB."""

    def __init__(self):
        self.seconds = 0.0
        self.own = 0.0
        self.tree = 0.0
        self.status = None


def run(arguments, log, excluded, env=None):
    """Runs a command to its end; processes below `excluded` belong to the servers."""
    measured = Measured()
    ended = threading.Event()
    with open(log, "wb") as output, open(f"{log}.err", "wb") as errors:
        began = time.monotonic()
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=env
        )
        sampler = threading.Thread(target=sample, args=(process.pid, excluded, measured, ended))
        sampler.start()
        measured.status = process.wait()
        measured.seconds = time.monotonic() - began
        ended.set()
        sampler.join()
    return measured


def sample(pid, excluded, measured, ended):
    while True:
        measured.own = max(measured.own, status_field(pid, b"VmHWM:"))
        measured.tree = max(measured.tree, sum(status_field(p, b"VmRSS:") for p in below(os.getpid(), excluded)))
        if ended.wait(INTERVAL):
            return


def below(pid, excluded):
    """All descendants of a process, but for the excluded ones and theirs."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stat:
                    parent = int(stat.read().rsplit(b") ", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found, waiting = [], [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in excluded:
                found.append(child)
                waiting.append(child)
    return found


def status_field(pid, name):
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(name):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
