"""Who answers for addresses on a bridge: probes for all of them at once, answers for a short while. IPv4 by ARP probe
(RFC 5227), IPv6 by neighbour solicitation from the unspecified address (RFC 4862): neither makes a machine learn
anything of this one. A host does not answer its own probes: its addresses are read.

Arguments: the bridge, the milliseconds to wait, the addresses. Prints `ADDRESS MAC` for each one that answers, and
`ADDRESS own` for those of this host.
"""
import select
import socket
import struct
import subprocess
import sys
import time

bridge, wait, addresses = sys.argv[1], int(sys.argv[2]) / 1000, sys.argv[3:]
ARP, IPV4, IPV6, ICMPV6 = 0x0806, 0x0800, 0x86DD, 58
SOLICITATION, ADVERTISEMENT, TARGET_MAC = 135, 136, b"\x02\x01"
UNSPECIFIED = b"\0" * 16


def arp_probe(own, target):
    return (b"\xff" * 6 + own + struct.pack("!HHHBBH", ARP, 1, IPV4, 6, 4, 1)
            + own + b"\0" * 4 + b"\0" * 6 + target)


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def solicitation(own, target):
    group = b"\xff\x02" + b"\0" * 9 + b"\x01\xff" + target[-3:]
    body = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + target
    pseudo = UNSPECIFIED + group + struct.pack("!II", len(body), ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, 255) + UNSPECIFIED + group
    return b"\x33\x33\xff" + target[-3:] + own + struct.pack("!H", IPV6) + head + body


def arp_answer(frame):
    if len(frame) >= 42:
        return frame[28:32], frame[22:28]


def advertisement(frame):
    if len(frame) < 78 or frame[20] != ICMPV6 or frame[54] != ADVERTISEMENT:
        return None
    mac = frame[80:86] if frame[78:80] == TARGET_MAC else frame[6:12]
    return frame[62:78], mac


def addresses_here():
    """The addresses of this host, as `ip` prints them: `2: eno1    inet 10.0.0.11/24 ...`."""
    said = subprocess.run(["ip", "-o", "address"], stdout=subprocess.PIPE, check=True).stdout.decode()
    fields = [line.split() for line in said.splitlines()]
    return {f[3].split("/")[0] for f in fields if len(f) > 3 and f[2] in ("inet", "inet6")}


own_addresses = {socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in addresses_here()}
asked, sockets = {}, {}
for address in addresses:
    six = ":" in address
    kind, family = (IPV6, socket.AF_INET6) if six else (ARP, socket.AF_INET)
    if socket.inet_pton(family, address) in own_addresses:
        print(address, "own")
        continue
    if kind not in sockets:
        sockets[kind] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
        sockets[kind].bind((bridge, kind))
    asked[socket.inet_pton(family, address)] = (address, kind)
reads = {s: arp_answer if kind == ARP else advertisement for kind, s in sockets.items()}
found = {}
end = time.monotonic() + wait
resend = 0
while time.monotonic() < end and len(found) < len(asked):
    if time.monotonic() >= resend:
        # Twice in all: one lost frame is not yet an answer.
        resend = time.monotonic() + wait / 2
        for raw, (_, kind) in asked.items():
            if raw not in found:
                own = sockets[kind].getsockname()[4]
                sockets[kind].send((arp_probe if kind == ARP else solicitation)(own, raw))
    ready = select.select(list(reads), [], [], max(0, min(resend, end) - time.monotonic()))[0]
    for s in ready:
        answer = reads[s](s.recv(2048))
        if answer and answer[0] in asked and answer[1] != s.getsockname()[4]:
            found[answer[0]] = ":".join("%02x" % b for b in answer[1])
for raw, mac in found.items():
    print(asked[raw][0], mac)
