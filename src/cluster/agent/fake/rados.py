"""A cluster in memory in place of python3-rados, for the tests of the agent.

$RACKHAND_FAKE is a folder. `control.json` in it says what happens: {"full": true, "rules": [{"on": PREFIX, "errno": N,
"until": FILE, "exit": true}]}; each operation that was carried out is a line in `ran`.
"""
import errno
import glob
import json
import os
import threading
import time

HERE = os.environ["RACKHAND_FAKE"]
LOCK = threading.RLock()
OBJECTS = {}
CLOCK = [0]
REAL_GLOB = glob.glob
glob.glob = lambda pattern: REAL_GLOB(pattern.replace("/var/run/ceph", HERE))


class Error(Exception):
    def __init__(self, number, message=None):
        super().__init__(message or os.strerror(number))
        self.errno = number


class ObjectNotFound(Error):
    pass


class ObjectExists(Error):
    pass


class ObjectBusy(Error):
    pass


class TimedOut(Error):
    pass


KINDS = {errno.ENOENT: ObjectNotFound, errno.EEXIST: ObjectExists, errno.EBUSY: ObjectBusy, errno.ETIMEDOUT: TimedOut}


def control():
    try:
        with open(HERE + "/control.json") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def failure(number):
    return KINDS.get(number, Error)(number)


def act(what, needs_space=False, pushes=True):
    """Happens now, unless a rule says otherwise."""
    told = control()
    for rule in told.get("rules", []):
        if not what.startswith(rule["on"]):
            continue
        while "until" in rule and not os.path.exists("%s/%s" % (HERE, rule["until"])):
            time.sleep(0.01)
        if rule.get("exit"):
            os._exit(1)
        if rule.get("errno"):
            raise failure(rule["errno"])
    if told.get("full"):
        if not pushes:
            raise failure(errno.ETIMEDOUT)  # the client holds it back
        if needs_space:
            raise failure(errno.ENOSPC)
    with LOCK, open(HERE + "/ran", "a") as ran:
        ran.write(what + "\n")


class Completion:
    def __init__(self, code):
        self.code = code

    def get_return_value(self):
        return self.code

    def wait_for_complete_and_cb(self):
        pass


class Key:
    def __init__(self, key):
        self.key = key


class WriteOpCtx:
    def __enter__(self):
        self.new_only, self.version, self.data, self.gone = False, None, None, False
        return self

    def __exit__(self, *_):
        pass

    def new(self, _):
        self.new_only = True

    def assert_version(self, version):
        self.version = version

    def write_full(self, data):
        self.data = data

    def remove(self):
        self.gone = True


class Ioctx:
    def __init__(self):
        self.full_try = False
        self.version = 0

    def set_osdmap_full_try(self):
        self.full_try = True

    def close(self):
        pass

    def get_last_version(self):
        return self.version

    def read(self, oid, length):
        act("read " + oid)
        with LOCK:
            if oid not in OBJECTS:
                raise ObjectNotFound(errno.ENOENT)
            data, self.version = OBJECTS[oid]
            return data[:length]

    def aio_read(self, oid, length, offset, done):
        try:
            data = self.read(oid, length)
            completion = Completion(len(data))
        except Error as error:
            data, completion = None, Completion(-error.errno)
        done(completion, data)
        return completion

    def list_objects(self):
        act("list")
        with LOCK:
            return [Key(name) for name in OBJECTS]

    def operate_write_op(self, op, oid, mtime=0, flags=0):
        act("write " + oid, needs_space=op.data is not None and not flags & 128, pushes=self.full_try or flags & 64)
        with LOCK:
            if op.new_only and oid in OBJECTS:
                raise ObjectExists(errno.EEXIST)
            if op.version is not None:
                if oid not in OBJECTS:
                    raise ObjectNotFound(errno.ENOENT)
                if OBJECTS[oid][1] != op.version:
                    raise Error(errno.ERANGE)
            CLOCK[0] += 1
            self.version = CLOCK[0]
            if op.gone:
                del OBJECTS[oid]
            else:
                OBJECTS[oid] = (op.data, self.version)


class Rados:
    def __init__(self, conffile, name, conf):
        self.mons = conf.get("mon_host", "any mon")

    def connect(self, timeout):
        act("connect")

    def get_fsid(self):
        return "11111111-2222-4333-8444-555555555555"

    def get_instance_id(self):
        return 7

    def open_ioctx(self, pool):
        return Ioctx()

    def wait_for_latest_osdmap(self):
        act("latest map")

    def mon_command(self, text, data, timeout):
        act("%s: %s" % (self.mons, json.loads(text)["prefix"]))
        return 0, b'{"answered": true}', ""
