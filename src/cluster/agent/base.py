"""Answers requests about the local Ceph cluster: JSON lines in, JSON lines out, several at once.

Sent over SSH by the operator's tool and run by a bootstrap that reads it from stdin; nothing stays on the host.
The first line said is {"greeting": ..., "now": SECONDS}. A request is {"id": N, "op": NAME, "args": {...},
"until": SECONDS}: it is begun before that moment of this host's clock, or never. Its answer is any number of
{"id": N, "part": [...]}, then {"id": N, "ok": VALUE, "now": SECONDS}, or with "error" in place of "ok":
{"kind": KIND, "errno": N, "message": TEXT}.
"""
import base64
import errno
import glob
import json
import os
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

OUT_LOCK = threading.Lock()
OUT = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # nothing a library prints may reach the protocol
THREAD = threading.local()
CLOSED = threading.Event()


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(document):
    line = json.dumps(dict(document, now=now()), separators=(",", ":")).encode() + b"\n"
    with OUT_LOCK:
        try:
            OUT.write(line)
            OUT.flush()
        except BrokenPipeError:
            pass  # nobody listens any more; what runs is finished


class Refused(Exception):
    """A request that was not carried out, and why."""

    def __init__(self, kind, message, number=0):
        super().__init__(message)
        self.kind = kind
        self.errno = number


def in_time():
    """Stops a request whose caller no longer waits for it; called before every step that changes something."""
    if CLOSED.is_set() or now() >= THREAD.until:
        if THREAD.began:
            raise Refused("timeout", "its deadline was over before its last step", errno.ETIMEDOUT)
        raise Refused("late", "its deadline was over before it began")
    THREAD.began = True


def number_of(error):
    return abs(getattr(error, "errno", 0) or 0)


# --- what the mons of this host say ----------------------------------------------------------------------------


def asok_of(kind, name):
    # The socket carries the cluster's name, which need not be "ceph".
    paths = sorted(glob.glob("/var/run/ceph/*-%s.%s.asok" % (kind, glob.escape(name))))
    if not paths:
        raise Refused("not-found", "%s.%s has no admin socket here: it does not run on this host" % (kind, name))
    return paths[0]


def ask_socket(path, command, timeout):
    """One command over a daemon's admin socket; it answers without a quorum."""
    ends = time.monotonic() + timeout

    def left():
        rest = ends - time.monotonic()
        if rest <= 0:
            raise socket.timeout("no answer of %s" % path)
        return rest

    with socket.socket(socket.AF_UNIX) as s:
        def exactly(size):
            text = b""
            while len(text) < size:
                s.settimeout(left())
                piece = s.recv(size - len(text))
                if not piece:
                    raise ConnectionError("%s hung up" % path)
                text += piece
            return text

        s.settimeout(left())
        s.connect(path)
        s.sendall(json.dumps(command).encode() + b"\0")
        size = struct.unpack(">I", exactly(4))[0]
        if size > MAX_OBJECT:
            raise ValueError("%s answers %d bytes" % (path, size))
        return exactly(size).decode("utf-8", "replace")


def mon_views():
    """What the mons of this host say about the quorum, through their admin sockets."""
    views = []
    for path in sorted(glob.glob("/var/run/ceph/*-mon.*.asok")):
        try:
            status = json.loads(ask_socket(path, {"prefix": "mon_status", "format": "json"}, 1))
            names = {m["rank"]: m["name"] for m in status["monmap"]["mons"]}
            quorum = [names.get(r, str(r)) for r in status.get("quorum", [])]
            views.append({"name": status["name"], "state": status["state"], "quorum": quorum,
                          "mons": sorted(names.values())})
        except (OSError, ValueError, KeyError, struct.error):
            continue
    return views


MAX_OBJECT = 8 << 20
say({"greeting": "rackhand-agent/1"})

# Python was started without `site`, which takes longer than all other imports here.
sys.path.append("/usr/lib/python3/dist-packages")
try:
    try:
        import rados
    except ImportError:
        import site
        site.main()
        import rados
    import rbd
    MISSING = None
except ImportError as missing:
    MISSING = str(missing)
