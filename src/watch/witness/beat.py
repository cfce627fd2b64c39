# The heartbeat of one host: a line every INTERVAL seconds that says how long real work took, and whether it is still
# under way. Started with `python3 -I -S`: no process is started, nothing is installed. One configuration line comes on
# stdin, then one request a line. It ends when stdin does, or when nobody has asked for anything for LEFT_ALONE seconds.
import errno
import json
import os
import select
import socket
import struct
import sys
import threading
import time

LEFT_ALONE = 60
# Beats may come more often than the work is done: a disk has better things to do.
WORK = 0.25
# On the disk of the system, not under /run: a hung disk is what this is to find. One block is written over and over.
FILE = "/var/lib/rackhand/beat"
SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
# libvirt's protocol (src/remote/remote_protocol.x): program, version, procedures.
PROGRAM, VERSION, OPEN, DOMAINS, AUTH_LIST = 0x20008086, 1, 1, 51, 66
# The daemon is asked on one connection; an answer longer than this is none of its.
ANSWER = 1 << 16

say_lock = threading.Lock()
heard = [time.monotonic()]


def say(document):
    line = (json.dumps(document, separators=(",", ":")) + "\n").encode()
    with say_lock:
        while line:
            line = line[os.write(1, line):]


class Worker(threading.Thread):
    """Does one piece of work a beat; one that does not come back holds nobody up."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.wake = work, threading.Event()
        self.began, self.result = None, None
        self.start()

    def kick(self):
        if self.began is None:
            self.began = time.monotonic()
            self.wake.set()

    def run(self):
        while True:
            self.wake.wait()
            self.wake.clear()
            began = self.began
            try:
                self.work()
                self.result = {"took": round((time.monotonic() - began) * 1000, 3)}
            except Exception as error:  # told, and tried again with the next beat
                self.result = {"failed": ("%s: %s" % (type(error).__name__, error))[:200]}
            self.began = None

    def state(self):
        began = self.began
        if began is not None:
            return {"late": round((time.monotonic() - began) * 1000, 3)}
        return self.result


class Disk:
    def __init__(self):
        self.file, self.count = None, 0

    def __call__(self):
        if self.file is None:
            os.makedirs(os.path.dirname(FILE), exist_ok=True)
            self.file = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.count += 1
        os.pwrite(self.file, b"%020d\n" % self.count, 0)
        os.fdatasync(self.file)


class Libvirt:
    """How many domains run, as the daemon counts them."""

    def __init__(self):
        self.link, self.serial, self.domains = None, 0, None

    def __call__(self):
        self.domains = None
        try:
            if self.link is None:
                self.connect()
            self.domains = struct.unpack(">i", self.call(DOMAINS, b"")[:4])[0]
        except Exception:
            if self.link is not None:
                self.link.close()
            self.link = None
            raise

    def connect(self):
        path = next((path for path in SOCKETS if os.path.exists(path)), SOCKETS[0])
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.link.connect(path)
        self.call(AUTH_LIST, b"")
        name = b"qemu:///system"
        self.call(OPEN, struct.pack(">II", 1, len(name)) + name + b"\0" * (-len(name) % 4) + struct.pack(">I", 0))

    def exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self.link.recv(size - len(data))
            if not piece:
                raise ConnectionError("libvirt hung up")
            data += piece
        return data

    def call(self, procedure, body):
        self.serial += 1
        self.link.sendall(struct.pack(">7I", 28 + len(body), PROGRAM, VERSION, procedure, 0, self.serial, 0) + body)
        while True:
            size = struct.unpack(">I", self.exactly(4))[0]
            if not 28 <= size <= ANSWER:
                raise ValueError("libvirt answers %d bytes" % size)
            data = self.exactly(size - 4)
            _, _, _, kind, serial, status = struct.unpack(">6I", data[:24])
            if kind == 1 and serial == self.serial:
                if status != 0:
                    raise OSError("libvirt refuses procedure %d" % procedure)
                return data[24:]


def probe(request):
    """Which of these addresses answer; a port that refuses is an answer of a living kernel."""
    ends = time.monotonic() + min(float(request["within"]), 5)
    alive, open_sockets = [False] * len(request["ask"]), {}
    try:
        for index, (address, ports) in enumerate(request["ask"]):
            for port in ports:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                s = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                code = s.connect_ex((address, port))
                if code in (0, errno.ECONNREFUSED):
                    alive[index] = True
                    s.close()
                elif code == errno.EINPROGRESS:
                    open_sockets[s] = index
                else:
                    s.close()
        while open_sockets and not all(alive):
            left = ends - time.monotonic()
            if left <= 0:
                break
            for s in select.select([], list(open_sockets), [], left)[1]:
                index = open_sockets.pop(s)
                code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                alive[index] = alive[index] or code in (0, errno.ECONNREFUSED, errno.ECONNRESET)
                s.close()
    finally:
        for s in open_sockets:
            s.close()
    say({"probe": request["probe"], "alive": alive})


def listen(requests):
    for line in requests:
        heard[0] = time.monotonic()
        request = json.loads(line)
        if "probe" in request:
            threading.Thread(target=probe, args=(request,), daemon=True).start()
    os._exit(0)


def boot():
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def favour_me():
    """A busy host is slow, not dead: its heart goes first."""
    for favour in (lambda: os.setpriority(os.PRIO_PROCESS, 0, -10),
                   lambda: open("/proc/self/oom_score_adj", "w").write("-900")):
        try:
            favour()
        except OSError:
            pass


def main():
    requests = sys.stdin.buffer
    config = json.loads(requests.readline())
    favour_me()
    say({"hello": "rackhand-beat/1", "boot": boot()})
    threading.Thread(target=listen, args=(requests,), daemon=True).start()
    libvirt = Libvirt()
    disk_worker, libvirt_worker = Worker(Disk()), Worker(libvirt) if config["libvirt"] else None
    number, due, worked = 0, time.monotonic(), 0
    while time.monotonic() - heard[0] < LEFT_ALONE:
        if time.monotonic() - worked >= WORK:
            worked = time.monotonic()
            for worker in filter(None, (disk_worker, libvirt_worker)):
                worker.kick()
        # One that was held up does not make up for what it missed.
        due = max(due + config["interval"], time.monotonic())
        time.sleep(max(0, due - time.monotonic()))
        number += 1
        beat = {"beat": number, "disk": disk_worker.state()}
        if libvirt_worker is not None:
            beat.update(libvirt=libvirt_worker.state(), domains=libvirt.domains)
        say(beat)


try:
    main()
except BrokenPipeError:
    pass
os._exit(0)
