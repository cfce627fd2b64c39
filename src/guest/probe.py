"""Who answers for addresses on a bridge: ARP probes (RFC 5227) for all of them at once, answers for a short while.

Arguments: the bridge, the milliseconds to wait, the addresses. Prints `ADDRESS MAC` for each one that answers.
"""
import select
import socket
import struct
import sys
import time

bridge, wait, addresses = sys.argv[1], int(sys.argv[2]) / 1000, sys.argv[3:]
ARP = 0x0806
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ARP))
s.bind((bridge, ARP))
own = s.getsockname()[4]
asked = {socket.inet_aton(a): a for a in addresses}
found = {}
end = time.monotonic() + wait
resend = 0
while time.monotonic() < end and len(found) < len(asked):
    if time.monotonic() >= resend:
        # Twice in all: one lost frame is not yet an answer.
        resend = time.monotonic() + wait / 2
        for raw in asked:
            if raw not in found:
                s.send(b"\xff" * 6 + own + struct.pack("!HHHBBH", ARP, 1, 0x0800, 6, 4, 1)
                       + own + b"\0" * 4 + b"\0" * 6 + raw)
    if not select.select([s], [], [], max(0, min(resend, end) - time.monotonic()))[0]:
        continue
    frame = s.recv(2048)
    if len(frame) < 42 or frame[12:14] != b"\x08\x06":
        continue
    mac, sender = frame[22:28], frame[28:32]
    if sender in asked and mac != own:
        found[sender] = ":".join("%02x" % b for b in mac)
for raw, mac in found.items():
    print(asked[raw], mac)
