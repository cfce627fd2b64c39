"""Disk images in memory in place of python3-rbd, for the tests of the agent."""
import errno
import threading

import rados

IMAGES = {}
LOCK = threading.RLock()


class Error(rados.Error):
    pass


class ImageNotFound(Error):
    def __init__(self, number=errno.ENOENT, message="no such image"):
        super().__init__(number, message)


class ImageExists(Error):
    pass


class ImageBusy(Error):
    pass


class ImageHasSnapshots(Error):
    pass


class RBD:
    def list(self, io):
        return list(IMAGES)

    def create(self, io, name, size, old_format):
        rados.act("create " + name, needs_space=True, pushes=io.full_try)
        with LOCK:
            if name in IMAGES:
                raise ImageExists(errno.EEXIST)
            IMAGES[name] = {"size": size, "snaps": [], "lockers": [("client.9", "auto 1", "10.0.0.9:0/1")]}

    def remove(self, io, name):
        rados.act("remove " + name, pushes=io.full_try)
        if IMAGES.pop(name, None) is None:
            raise ImageNotFound()


class Image:
    def __init__(self, io, name, snapshot=None, read_only=False):
        if name not in IMAGES:
            raise ImageNotFound()
        self.io, self.name, self.held = io, name, IMAGES[name]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass

    def size(self):
        return self.held["size"]

    def resize(self, size):
        rados.act("resize %s %d" % (self.name, size), needs_space=True, pushes=self.io.full_try)
        self.held["size"] = size

    def list_snaps(self):
        return [{"name": snap} for snap in self.held["snaps"]]

    def create_snap(self, snapshot):
        rados.act("snap %s@%s" % (self.name, snapshot), pushes=self.io.full_try)
        self.held["snaps"].append(snapshot)

    def remove_snap(self, snapshot):
        rados.act("unsnap %s@%s" % (self.name, snapshot))
        self.held["snaps"].remove(snapshot)

    def watchers_list(self):
        return [{"addr": "10.0.0.9:0/1", "id": 9}, {"addr": "10.0.0.1:0/7", "id": 7}]

    def list_lockers(self):
        return {"tag": "", "exclusive": True, "lockers": list(self.held["lockers"])}

    def break_lock(self, client, cookie):
        rados.act("break %s %s" % (client, cookie))
        self.held["lockers"] = [held for held in self.held["lockers"] if held[:2] != (client, cookie)]
