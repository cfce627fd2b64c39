"""Answers requests about the local Ceph cluster: JSON lines in, JSON lines out, several at once.

Sent over SSH by the operator's tool and run by a bootstrap that reads it from stdin; nothing stays on the host.
A request is {"id": N, "op": NAME, "args": {...}}; the answer {"id": N, "ok": VALUE} or
{"id": N, "error": {"kind": KIND, "errno": N, "message": TEXT}}.
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


def say(document):
    line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    with OUT_LOCK:
        OUT.write(line)
        OUT.flush()


def lacks(missing):
    say({"id": 0, "error": {"kind": "not-installed", "errno": 0, "message": str(missing)}})
    os._exit(0)


# Python was started without `site`, which takes longer than all other imports here.
sys.path.append("/usr/lib/python3/dist-packages")
try:
    try:
        import rados
    except ImportError:
        import site
        site.main()
        import rados
except ImportError as missing:
    lacks(missing)

CREATE_EXCLUSIVE = 1  # LIBRADOS_CREATE_EXCLUSIVE
LOCK_MAY_RENEW = 1  # LIBRADOS_LOCK_FLAG_MAY_RENEW
MAX_OBJECT = 8 << 20
TRIES = 200


class Refused(Exception):
    def __init__(self, kind, message, detail=None):
        super().__init__(message)
        self.kind = kind
        self.detail = detail


def mon_views():
    """What the mons of this host say about the quorum, through their admin sockets."""
    views = []
    for path in sorted(glob.glob("/var/run/ceph/*-mon.*.asok")):
        try:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(1)
            s.connect(path)
            s.sendall(b'{"prefix":"mon_status","format":"json"}\0')
            size = struct.unpack(">I", s.recv(4, socket.MSG_WAITALL))[0]
            text = s.recv(size, socket.MSG_WAITALL)
            status = json.loads(text)
            names = {m["rank"]: m["name"] for m in status["monmap"]["mons"]}
            quorum = [names.get(r, str(r)) for r in status.get("quorum", [])]
            views.append({"name": status["name"], "state": status["state"], "quorum": quorum,
                          "mons": sorted(names.values())})
        except (OSError, ValueError, KeyError, struct.error):
            continue
    return views


class Cluster:
    def __init__(self, config):
        self.pools = {}
        self.local = threading.local()
        self.osd_timeout = float(config["osd"])
        options = {
            "client_mount_timeout": str(config["connect"]),
            "rados_mon_op_timeout": str(config["mon"]),
            "rados_osd_op_timeout": str(config["osd"]),
            # A new session to a mon that still lives, soon after the old one died.
            "mon_client_hunt_interval": "1.0",
            "log_to_stderr": "false",
            "err_to_stderr": "false",
        }
        self.rados = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin", conf=options)
        self.rados.connect(timeout=config["connect"])

    def ioctx(self, pool):
        # One a thread and pool: an ioctx remembers the version of its last operation.
        kept = self.local.__dict__.setdefault("kept", {})
        if pool not in kept:
            kept[pool] = self.rados.open_ioctx(pool)
        return kept[pool]

    # --- commands ---------------------------------------------------------------------------------------------

    def command(self, target, command, input="", timeout=10):
        text = json.dumps(dict(command, format=command.get("format", "json")))
        data = input.encode()
        if target == "mgr":
            code, out, err = self.rados.mgr_command(text, data, timeout=timeout)
        elif target.startswith("osd."):
            code, out, err = self.rados.osd_command(int(target[4:]), text, data, timeout=timeout)
        else:
            name = target[4:] if target.startswith("mon.") else ""
            code, out, err = self.rados.mon_command(text, data, timeout=timeout, target=name)
        if code != 0:
            raise OSError(abs(code), err or os.strerror(abs(code)))
        return {"out": out.decode("utf-8", "replace"), "err": err}

    # --- state objects ----------------------------------------------------------------------------------------

    def read(self, io, oid):
        data = io.read(oid, MAX_OBJECT)
        return data, io.get_last_version()

    def get(self, pool, oid):
        io = self.ioctx(pool)
        try:
            data, version = self.read(io, oid)
        except rados.ObjectNotFound:
            return None
        return {"data": data.decode(), "version": version}

    def create(self, pool, oid, data):
        io = self.ioctx(pool)
        with rados.WriteOpCtx() as op:
            op.new(CREATE_EXCLUSIVE)
            op.write_full(data.encode())
            try:
                io.operate_write_op(op, oid)
            except rados.ObjectExists:
                raise Refused("exists", "object %s exists" % oid)
        return io.get_last_version()

    def replace(self, pool, oid, data, version):
        def change(op):
            op.write_full(data.encode())
        return self.guarded(pool, oid, version, change)

    def remove(self, pool, oid, version):
        def change(op):
            op.remove()
        return self.guarded(pool, oid, version, change)

    def guarded(self, pool, oid, version, change):
        """Changes an object only if it still has this version."""
        io = self.ioctx(pool)
        with rados.WriteOpCtx() as op:
            op.assert_version(version)
            change(op)
            try:
                io.operate_write_op(op, oid)
            except rados.ObjectNotFound:
                raise Refused("conflict", "object %s is gone" % oid)
            except (rados.Error, OSError) as error:
                # ERANGE and EOVERFLOW: the object is older or newer than the version.
                if abs(getattr(error, "errno", 0) or 0) in (errno.ERANGE, errno.EOVERFLOW):
                    raise Refused("conflict", "object %s was changed by somebody else" % oid)
                raise
        return io.get_last_version()

    def list(self, pool, prefix):
        """All objects whose name starts with prefix, with what they hold."""
        io = self.rados.open_ioctx(pool)
        try:
            began = time.monotonic()
            names = sorted(o.key for o in io.list_objects() if o.key.startswith(prefix))
            # The binding ends the list on any error as if that were all: half a list must not pass for a whole one.
            if time.monotonic() - began >= self.osd_timeout * 0.9:
                raise OSError(errno.ETIMEDOUT, "listing objects timed out")
        finally:
            io.close()
        # What is refused at once (a fenced host) shows here.
        self.get(pool, prefix)
        found = []
        for name, entry in zip(names, READERS.map(lambda n: self.get(pool, n), names)):
            if entry is not None:
                found.append(dict(entry, name=name))
        return found

    def omap_read(self, io, oid, keys=None):
        found = {}
        with rados.ReadOpCtx() as op:
            if keys is None:
                after = ""
                while True:
                    values, _ = io.get_omap_vals(op, after, "", 1000)
                    io.operate_read_op(op, oid)
                    page = list(values)
                    found.update((k, v.decode()) for k, v in page)
                    if len(page) < 1000:
                        break
                    after = page[-1][0]
                    op = rados.ReadOp().create()
            else:
                values, _ = io.get_omap_vals_by_keys(op, tuple(keys))
                io.operate_read_op(op, oid)
                found.update((k, v.decode()) for k, v in values)
        return found

    def omap_get(self, pool, oid):
        try:
            return self.omap_read(self.ioctx(pool), oid)
        except rados.ObjectNotFound:
            return {}

    def omap_update(self, pool, oid, expect, set, remove):
        """Changes keys in one step if the expected keys hold what is expected (null: absent)."""
        io = self.ioctx(pool)
        for _ in range(TRIES):
            try:
                # The version first: a change between the two reads makes the write below fail, never pass.
                io.stat(oid)
                version = io.get_last_version()
                now = self.omap_read(io, oid, list(expect)) if expect else {}
            except rados.ObjectNotFound:
                version, now = None, {}
            wrong = {k: now.get(k) for k, v in expect.items() if now.get(k) != v}
            if wrong:
                raise Refused("conflict", "%s holds something else at %s" % (oid, ", ".join(sorted(wrong))), wrong)
            with rados.WriteOpCtx() as op:
                if version is None:
                    op.new(CREATE_EXCLUSIVE)
                else:
                    op.assert_version(version)
                if set:
                    io.set_omap(op, tuple(set), tuple(v.encode() for v in set.values()))
                if remove:
                    io.remove_omap_keys(op, tuple(remove))
                try:
                    io.operate_write_op(op, oid)
                    return None
                except (rados.ObjectExists, rados.ObjectNotFound):
                    continue
                except (rados.Error, OSError) as error:
                    if abs(getattr(error, "errno", 0) or 0) in (errno.ERANGE, errno.EOVERFLOW):
                        continue
                    raise
        raise Refused("busy", "%s is changed by others all the time" % oid)

    # --- locks ------------------------------------------------------------------------------------------------

    def lock(self, pool, oid, cookie, owner, seconds):
        io = self.ioctx(pool)
        try:
            io.lock_exclusive(oid, "rackhand", cookie, owner, seconds, LOCK_MAY_RENEW)
        except (rados.ObjectBusy, rados.ObjectExists):
            held = self.get(pool, oid) or {}
            raise Refused("busy", held.get("data") or "somebody else")
        io.write_full(oid, owner.encode())
        return None

    def unlock(self, pool, oid, cookie):
        io = self.ioctx(pool)
        try:
            io.unlock(oid, "rackhand", cookie)
        except rados.ObjectNotFound:
            pass
        return None

    # --- RBD --------------------------------------------------------------------------------------------------

    def image(self, pool, name, read_only=True, snapshot=None):
        return rbd.Image(self.ioctx(pool), name, snapshot=snapshot, read_only=read_only)

    def rbd_list(self, pool):
        return sorted(rbd.RBD().list(self.ioctx(pool)))

    def rbd_info(self, pool, name):
        try:
            image = self.image(pool, name)
        except rbd.ImageNotFound:
            return None
        with image:
            try:
                parent = image.parent_info()
                parent = {"pool": parent[0], "image": parent[1], "snapshot": parent[2]}
            except rbd.ImageNotFound:
                parent = None
            snaps = [{"name": s["name"], "size": s["size"], "protected": image.is_protected_snap(s["name"])}
                     for s in image.list_snaps()]
            meta = {k: v for k, v in image.metadata_list()}
            return {"name": name, "size": image.size(), "features": image.features(), "id": image.id(),
                    "parent": parent, "snapshots": snaps, "meta": meta}

    def rbd_create(self, pool, name, size):
        try:
            rbd.RBD().create(self.ioctx(pool), name, size, old_format=False)
        except rbd.ImageExists:
            raise Refused("exists", "disk image %s exists" % name)

    def rbd_clone(self, pool, parent, snapshot, child, size, meta):
        io = self.ioctx(pool)
        try:
            rbd.RBD().clone(io, parent, snapshot, io, child)
        except rbd.ImageExists:
            raise Refused("exists", "disk image %s exists" % child)
        with self.image(pool, child, read_only=False) as image:
            if size and size > image.size():
                image.resize(size)
            for key, value in meta.items():
                image.metadata_set(key, value)
            return image.size()

    def rbd_resize(self, pool, name, size):
        with self.image(pool, name, read_only=False) as image:
            image.resize(size)

    def rbd_rename(self, pool, name, to):
        try:
            rbd.RBD().rename(self.ioctx(pool), name, to)
        except rbd.ImageExists:
            raise Refused("exists", "disk image %s exists" % to)

    def rbd_write(self, pool, name, size, chunks):
        """A small image whose whole content is given; what is not given is zeros."""
        io = self.ioctx(pool)
        try:
            rbd.RBD().create(io, name, size, old_format=False)
        except rbd.ImageExists:
            with self.image(pool, name, read_only=False) as image:
                image.resize(0)
                image.resize(size)
        with self.image(pool, name, read_only=False) as image:
            for offset, text in chunks:
                image.write(base64.b64decode(text), offset)
            image.flush()

    def rbd_read(self, pool, name, offset, length, snapshot=None):
        with self.image(pool, name, snapshot=snapshot) as image:
            length = max(0, min(length, image.size() - offset))
            return base64.b64encode(image.read(offset, length)).decode()

    def rbd_snap_create(self, pool, name, snapshot, protect):
        with self.image(pool, name, read_only=False) as image:
            if snapshot not in [s["name"] for s in image.list_snaps()]:
                image.create_snap(snapshot)
            if protect and not image.is_protected_snap(snapshot):
                image.protect_snap(snapshot)

    def rbd_snap_remove(self, pool, name, snapshot):
        with self.image(pool, name, read_only=False) as image:
            try:
                if image.is_protected_snap(snapshot):
                    image.unprotect_snap(snapshot)
                image.remove_snap(snapshot)
            except rbd.ImageNotFound:
                return
            except rbd.ImageBusy:
                raise Refused("busy", "snapshot %s@%s has clones" % (name, snapshot))

    def rbd_children(self, pool, name):
        with self.image(pool, name) as image:
            return sorted(c["image"] for c in image.list_children2() if not c["trash"])

    def rbd_remove(self, pool, name):
        try:
            rbd.RBD().remove(self.ioctx(pool), name)
        except rbd.ImageNotFound:
            return False
        except rbd.ImageHasSnapshots:
            raise Refused("busy", "disk image %s has snapshots" % name)
        except rbd.ImageBusy:
            raise Refused("busy", "disk image %s is open" % name)
        return True

    def rbd_users(self, pool, name):
        """Who has the image open, and who holds its lock."""
        with self.image(pool, name) as image:
            own = self.rados.get_instance_id()
            watchers = [{"address": w["addr"], "client": w["id"]} for w in image.watchers_list()]
            lockers = image.list_lockers() or {}
            return {"watchers": [w for w in watchers if w["client"] != own],
                    "lockers": [{"client": c, "cookie": k, "address": a} for c, k, a in lockers.get("lockers", [])]}

    def rbd_meta_set(self, pool, name, key, value):
        with self.image(pool, name, read_only=False) as image:
            image.metadata_set(key, value)

    def mon_status(self):
        return mon_views()


OPS = ("command", "get", "create", "replace", "remove", "list", "omap_get", "omap_update", "lock", "unlock",
       "rbd_list", "rbd_info", "rbd_create", "rbd_clone", "rbd_resize", "rbd_rename", "rbd_write", "rbd_read", "rbd_snap_create",
       "rbd_snap_remove", "rbd_children", "rbd_remove", "rbd_users", "rbd_meta_set", "mon_status")


def error_of(error):
    if isinstance(error, Refused):
        return {"kind": error.kind, "errno": 0, "message": str(error), "detail": error.detail}
    number = abs(getattr(error, "errno", 0) or 0)
    kind = "failed"
    if isinstance(error, (rados.TimedOut, rbd.Timeout)) or number == errno.ETIMEDOUT:
        kind = "timeout"
    elif isinstance(error, (rados.ObjectNotFound, rbd.ImageNotFound)) or number == errno.ENOENT:
        kind = "not-found"
    elif number == 108:  # ESHUTDOWN: this host is on the blocklist
        kind = "blocklisted"
    return {"kind": kind, "errno": number, "message": str(error) or type(error).__name__}


def answer(cluster, request):
    try:
        op = request["op"]
        if op not in OPS:
            raise Refused("unsupported", "no such request: %s" % op)
        reply = {"id": request["id"], "ok": getattr(cluster, op)(**request.get("args", {}))}
    except Exception as error:  # every failure is an answer
        reply = {"id": request.get("id"), "error": error_of(error)}
        if reply["error"]["kind"] == "timeout":
            reply["error"]["mons"] = mon_views()
    say(reply)


def main():
    global rbd
    lines = sys.stdin.buffer
    config = json.loads(lines.readline())
    connecting = READERS.submit(Cluster, config)
    try:
        import rbd  # while the monitors answer
    except ImportError as missing:
        lacks(missing)
    try:
        cluster = connecting.result()
    except Exception as error:
        reply = error_of(error)
        reply["mons"] = mon_views()
        say({"id": 0, "error": reply})
        return
    say({"id": 0, "ok": {"fsid": cluster.rados.get_fsid(), "librados": str(cluster.rados.version())}})
    with ThreadPoolExecutor(config["threads"]) as workers:
        for line in lines:
            workers.submit(answer, cluster, json.loads(line))
    cluster.rados.shutdown()


READERS = ThreadPoolExecutor(8)
main()
os._exit(0)  # a call that hangs must not keep this process
