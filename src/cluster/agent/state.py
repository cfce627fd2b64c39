

# --- commands and state objects --------------------------------------------------------------------------------

CREATE_EXCLUSIVE = 1  # LIBRADOS_CREATE_EXCLUSIVE
# LIBRADOS_OPERATION_FULL_TRY and _FULL_FORCE: state objects are small, and what frees space changes them first, so
# they are written on a full cluster too. An OSD past its failsafe ratio still refuses.
EVEN_FULL = 64 | 128
TRIES = 200
# Bytes read of a listed object at first; a larger one is read once more.
FIRST_READ = 32 << 10
# Objects of a list that are read at once, and told in one piece.
LIST_PIECE = 256
# How long a new connection waits for the OSD that shows whether this host is fenced.
FIRST_LOOK = 2


class State:
    def __init__(self, config):
        self.config = config
        self.osd_timeout = float(config["osd"])
        self.connecting = None
        self.connect_lock = threading.Lock()
        self.connector = ThreadPoolExecutor(1)
        self.pinned = {}

    def connect(self, addresses=None):
        if MISSING is not None:
            raise Refused("not-installed", MISSING)
        options = {
            "client_mount_timeout": str(self.config["connect"]),
            "rados_mon_op_timeout": str(self.config["mon"]),
            "rados_osd_op_timeout": str(self.config["osd"]),
            # A new session to a mon that still lives, soon after the old one died.
            "mon_client_hunt_interval": "1.0",
            "log_to_stderr": "false",
            "err_to_stderr": "false",
        }
        if addresses is not None:
            options["mon_host"] = addresses
        try:
            handle = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin", conf=options)
        except Exception as error:
            raise Refused("not-set-up", str(error) or type(error).__name__)
        try:
            handle.connect(timeout=self.config["connect"])
        except Exception as error:
            if number_of(error) == errno.ETIMEDOUT or isinstance(error, rados.TimedOut):
                raise Refused("no-quorum", "the monitors do not answer")
            if number_of(error) == errno.ESHUTDOWN:
                raise Refused("blocklisted", str(error))
            raise Refused("not-set-up", str(error) or type(error).__name__)
        fsid = handle.get_fsid()
        if fsid.lower() != self.config["fsid"]:
            # Whatever is written through it would end up among the guests of another cluster.
            raise Refused("other-cluster", fsid)
        return handle

    @property
    def rados(self):
        """The connection to Ceph; all who ask while it is being made share one attempt."""
        with self.connect_lock:
            if self.connecting is None or (self.connecting.done() and self.connecting.exception() is not None):
                self.connecting = self.connector.submit(self.connect)
            attempt = self.connecting
        return attempt.result()

    def at_mon(self, name):
        """A connection that asks this mon alone: it neither waits for a dead one nor wanders off to another."""
        with self.connect_lock:
            if name not in self.pinned:
                status = json.loads(ask_socket(asok_of("mon", name), {"prefix": "mon_status", "format": "json"}, 2))
                mine = [mon for mon in status["monmap"]["mons"] if mon["name"] == name]
                if not mine:
                    raise Refused("not-set-up", "mon.%s is not in its own map" % name)
                vector = [a["type"] + ":" + a["addr"] for a in mine[0]["public_addrs"]["addrvec"]]
                self.pinned[name] = self.connect("[%s]" % ",".join(vector))
            return self.pinned[name]

    def ioctx(self, pool):
        # One a thread and pool: an ioctx remembers the version of its last operation.
        kept = THREAD.__dict__.setdefault("kept", {})
        if pool not in kept:
            io = self.rados.open_ioctx(pool)
            # On a full cluster a write is answered with ENOSPC at once, and one that frees space is made. Without
            # this the client holds all of them back until it times out.
            io.set_osdmap_full_try()
            kept[pool] = io
        return kept[pool]

    def ready(self, pool):
        """Connects; tells of a fenced host before anything is asked through it."""
        self.rados
        try:
            io = self.ioctx(pool)
        except rados.ObjectNotFound:
            return None  # before the first provisioning is through
        seen, told = [], threading.Event()

        def done(completion, data):
            seen.append(completion.get_return_value())
            told.set()
        io.aio_read("ready", 1, 0, done)
        # An OSD that is slow is for the requests to find out.
        if told.wait(FIRST_LOOK) and seen[0] == -errno.ESHUTDOWN:
            raise Refused("blocklisted", "this host is on the blocklist")
        return None

    def latest_map(self):
        """Waits until this client has the newest OSD map: it knows then which OSDs are gone and who is fenced."""
        self.rados.wait_for_latest_osdmap()

    def osds_behind(self, ids, epoch, timeout):
        """The OSDs that have not said within this time that they have seen a map. Each is asked by a thread of its own,
        for librados ignores the timeout of a command to an OSD: one that hangs must not keep the others waiting."""
        ends = now() + timeout
        seen, left = set(), threading.Semaphore(0)

        def ask(osd):
            command = json.dumps({"prefix": "status", "format": "json"})
            while now() < ends:
                try:
                    code, out, _ = self.rados.osd_command(osd, command, b"", timeout=timeout)
                    if code == 0 and json.loads(out)["newest_map"] >= epoch:
                        seen.add(osd)
                        break
                except Exception:
                    pass  # it is asked again, and is among those behind in the end
                time.sleep(0.02)
            left.release()

        for osd in ids:
            threading.Thread(target=ask, args=(osd,), daemon=True).start()
        for _ in ids:
            if not left.acquire(timeout=max(0, ends - now())):
                break
        return sorted(set(ids) - seen)

    def command(self, target, command, input="", timeout=10):
        text = json.dumps(dict(command, format=command.get("format", "json")))
        data = input.encode()
        handle = self.at_mon(target[4:]) if target.startswith("mon.") else self.rados
        in_time()
        if target == "mgr":
            code, out, err = handle.mgr_command(text, data, timeout=timeout)
        elif target.startswith("osd."):
            code, out, err = handle.osd_command(int(target[4:]), text, data, timeout=timeout)
        else:
            code, out, err = handle.mon_command(text, data, timeout=timeout)
        if code != 0:
            raise OSError(abs(code), err or os.strerror(abs(code)))
        return {"out": out.decode("utf-8", "replace"), "err": err}

    def asok(self, daemon, command, timeout):
        """A command for a daemon of this host, over its admin socket."""
        kind, _, name = daemon.partition(".")
        return ask_socket(asok_of(kind, name), command, timeout)

    def get(self, pool, oid):
        io = self.ioctx(pool)
        try:
            data = io.read(oid, MAX_OBJECT)
            return {"data": data.decode(), "version": io.get_last_version()}
        except rados.ObjectNotFound:
            return None

    def write(self, io, op, oid):
        in_time()
        io.operate_write_op(op, oid, flags=EVEN_FULL)

    def create(self, pool, oid, data):
        io = self.ioctx(pool)
        with rados.WriteOpCtx() as op:
            op.new(CREATE_EXCLUSIVE)
            op.write_full(data.encode())
            try:
                self.write(io, op, oid)
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
                self.write(io, op, oid)
            except rados.ObjectNotFound:
                raise Refused("conflict", "object %s is gone" % oid)
            except (rados.Error, OSError) as error:
                # ERANGE and EOVERFLOW: the object is older or newer than the version.
                if number_of(error) in (errno.ERANGE, errno.EOVERFLOW):
                    raise Refused("conflict", "object %s was changed by another run" % oid)
                raise
        return io.get_last_version()

    def list(self, pool, prefix):
        """All objects whose name starts with prefix, with what they hold, in pieces."""
        io = self.rados.open_ioctx(pool)
        try:
            began = time.monotonic()
            names = sorted(o.key for o in io.list_objects() if o.key.startswith(prefix))
            # The binding ends the list on any error as if that were all: half a list must not pass for a whole one.
            if time.monotonic() - began >= self.osd_timeout * 0.9:
                raise OSError(errno.ETIMEDOUT, "listing objects timed out")
            # What is refused at once (a fenced host) shows here.
            self.get(pool, prefix)
            for start in range(0, len(names), LIST_PIECE):
                in_time()
                yield self.read_many(pool, io, names[start:start + LIST_PIECE])
        finally:
            io.close()

    def read_many(self, pool, io, names):
        """These objects, asked for at once; those that are gone are left out."""
        read = {}

        def keep(name):
            def done(completion, data):
                read[name] = (completion.get_return_value(), data)
            return done
        asked = [io.aio_read(name, FIRST_READ, 0, keep(name)) for name in names]
        for completion in asked:
            completion.wait_for_complete_and_cb()
        found = []
        for name in names:
            code, data = read[name]
            if code == -errno.ENOENT:
                continue
            if code < 0:
                raise OSError(-code, "reading object %s: %s" % (name, os.strerror(-code)))
            if code == FIRST_READ:
                whole = self.get(pool, name)
                if whole is None:
                    continue
                text = whole["data"]
            else:
                text = data.decode()
            found.append({"name": name, "data": text})
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
                held = self.omap_read(io, oid, list(expect)) if expect else {}
            except rados.ObjectNotFound:
                version, held = None, {}
            wrong = sorted(k for k, v in expect.items() if held.get(k) != v)
            if wrong:
                raise Refused("conflict", "%s holds something else at %s" % (oid, ", ".join(wrong)))
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
                    self.write(io, op, oid)
                    return None
                except (rados.ObjectExists, rados.ObjectNotFound):
                    continue
                except (rados.Error, OSError) as error:
                    if number_of(error) in (errno.ERANGE, errno.EOVERFLOW):
                        continue
                    raise
        raise Refused("busy", "object %s was changed by other runs %d times meanwhile" % (oid, TRIES))
