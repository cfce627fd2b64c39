"""Writes a Ceph diff stream (v1) from stdin to an RBD image that is new and empty.

Sent over SSH and run by a bootstrap; nothing stays on the host. The next line of stdin is the request:
{"pool": ..., "image": ...}; the stream follows. Says {"bytes": LENGTH OF THE STREAM} once all is written and flushed.
"""
import collections
import json
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

PIECE = 4 << 20   # bytes written at a time: an object
AHEAD = 16        # pieces that are written at a time

source = sys.stdin.buffer
request = json.loads(source.readline())
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import rados
import rbd

taken = 0


def exactly(length):
    global taken
    data = source.read(length)
    if len(data) != length:
        raise Exception("the stream ends after %d bytes" % (taken + len(data)))
    taken += length
    return data


def apply(image):
    waiting = collections.deque()
    if exactly(12) != b"rbd diff v1\n":
        raise Exception("not a diff stream")
    with ThreadPoolExecutor(AHEAD) as threads:

        def submit(*work):
            waiting.append(threads.submit(*work))
            if len(waiting) > AHEAD:
                waiting.popleft().result()

        while True:
            tag = exactly(1)
            if tag == b"e":
                break
            if tag in b"ft":
                exactly(struct.unpack("<I", exactly(4))[0])
            elif tag == b"s":
                size = struct.unpack("<Q", exactly(8))[0]
                if size != image.size():
                    raise Exception("the stream is of %d bytes, the image of %d" % (size, image.size()))
            elif tag == b"w":
                offset, length = struct.unpack("<QQ", exactly(16))
                while length:
                    data = exactly(min(length, PIECE))
                    submit(image.write, data, offset)
                    offset, length = offset + len(data), length - len(data)
            elif tag == b"z":
                offset, length = struct.unpack("<QQ", exactly(16))
                submit(image.discard, offset, length)
            else:
                raise Exception("unknown record %r" % tag)
        while waiting:
            waiting.popleft().result()
    if source.read(1):
        raise Exception("the stream goes on after its end")
    image.flush()


# An operation that no OSD answers fails, instead of waiting for ever.
cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin", conf={"rados_osd_op_timeout": "300"})
cluster.connect(timeout=10)
pool = cluster.open_ioctx(request["pool"])
with rbd.Image(pool, request["image"]) as image:
    if len(list(image.watchers_list())) > 1:
        raise Exception("the image is open elsewhere as well")
    found = []
    image.diff_iterate(0, image.size(), None, lambda *extent: found.append(extent), True, True)
    if found:
        raise Exception("the image is not new and empty")
    apply(image)
pool.close()
cluster.shutdown()
out.write(json.dumps({"bytes": taken}) + "\n")
out.flush()
os._exit(0)
