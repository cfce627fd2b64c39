"""Writes what changed in an RBD image between two snapshots to stdout, as a Ceph diff stream (v1).

Sent over SSH and run by a bootstrap; nothing stays on the host. The next line of stdin is the request:
{"pool": ..., "image": ..., "from": SNAPSHOT or null, "to": SNAPSHOT}. Whole only with its last record `e` and exit status 0.
"""
import collections
import json
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

PIECE = 4 << 20   # bytes read at a time: an object
AHEAD = 8         # pieces that are read at a time
ZEROS = bytes(PIECE)

request = json.loads(sys.stdin.buffer.readline())
out = os.fdopen(os.dup(1), "wb", 1 << 20)
os.dup2(2, 1)  # nothing that a library prints may reach the stream

import rados
import rbd


def text(tag, value):
    name = value.encode()
    out.write(tag + struct.pack("<I", len(name)) + name)


def ranges(image, begin, size):
    """The parts of the image to look at in detail. The fast diff names changed objects without asking the OSDs; where the
    object map or the fast diff is not valid, librbd works it out from the objects themselves."""
    if not begin:
        return [(0, size)]
    found = []

    def changed(offset, length, _):
        if found and found[-1][0] + found[-1][1] == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((offset, length))

    image.diff_iterate(0, size, begin, changed, True, True)
    return found


def pieces(image, begin, size):
    """Extents (offset, length, exists) of at most PIECE bytes, in order."""
    for start, length in ranges(image, begin, size):
        found = []
        image.diff_iterate(start, length, begin, lambda o, n, e: found.append((o, n, e)), True, False)
        for offset, left, exists in found:
            while exists and left > PIECE:
                yield offset, PIECE, True
                offset, left = offset + PIECE, left - PIECE
            yield offset, left, exists


def send(image, begin, size):
    waiting = collections.deque()

    def write_one():
        offset, length, data = waiting.popleft()
        data = data.result() if data else None
        if data is not None and len(data) != length:
            raise Exception("read %d of %d bytes at %d" % (len(data), length, offset))
        if data is None or data == ZEROS[:length]:
            # A full lies upon nothing: its zeros need no record.
            if begin:
                out.write(b"z" + struct.pack("<QQ", offset, length))
        else:
            out.write(b"w" + struct.pack("<QQ", offset, length))
            out.write(data)

    with ThreadPoolExecutor(AHEAD) as threads:
        for offset, length, exists in pieces(image, begin, size):
            waiting.append((offset, length, threads.submit(image.read, offset, length) if exists else None))
            if len(waiting) > AHEAD:
                write_one()
        while waiting:
            write_one()


def snapshots(image):
    """The ids of the snapshots that the stream is made of. A name alone says little: it can be taken anew."""
    ids = {snap["name"]: snap["id"] for snap in image.list_snaps()}
    return {name: ids.get(name) for name in (request["from"], request["to"]) if name}


def still_there(before):
    """What is read of a snapshot that was removed, or of an image that was, is zeros without an error."""
    try:
        with rbd.Image(pool, request["image"], read_only=True) as image:
            now = snapshots(image)
    except rbd.ImageNotFound:
        raise Exception("the image was removed while it was read")
    if now != before or None in now.values():
        raise Exception("a snapshot of it was removed while it was read")


# An operation that no OSD answers fails, so that a placement group that is not active does not hold the guest for ever.
cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin", conf={"rados_osd_op_timeout": "300"})
cluster.connect(timeout=10)
pool = cluster.open_ioctx(request["pool"])
with rbd.Image(pool, request["image"], snapshot=request["to"], read_only=True) as image:
    size = image.size()
    before = snapshots(image)
    out.write(b"rbd diff v1\n")
    if request["from"]:
        text(b"f", request["from"])
    text(b"t", request["to"])
    out.write(b"s" + struct.pack("<Q", size))
    send(image, request["from"], size)
    still_there(before)
    out.write(b"e")
    out.flush()
pool.close()
cluster.shutdown()
os._exit(0)
