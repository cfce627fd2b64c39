#!/usr/bin/env python3
"""A host is cut from power and networks, again and again, while the watch runs: what it takes until its guests answer.

Prints a table of stages in seconds after the cut, and how long the disks of guests on the surviving hosts stood still (their
own counters, which each raises on its disk, read from outside). Beside it stands the guest's own cold start, measured in the
same run. Exits with 1 when a bar of issue "a host dies, its guests answer again" is missed.

Usage: bench/failover.py [RACKHAND [PROVISIONED_LAB]]; without a lab one is made and removed.
ROUNDS (5) cuts; GUESTS (1) guests on the host that is cut.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time

RACKHAND = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/rackhand")
LAB = sys.argv[2] if len(sys.argv) > 2 else "bench-failover"
ROUNDS = int(os.environ.get("ROUNDS", "5"))
GUESTS = int(os.environ.get("GUESTS", "1"))
# What each tool's own documentation or simulator says of a host that loses its power, in seconds.
PUBLISHED = [("Proxmox VE HA, its own simulator", 123), ("Proxmox VE HA, documentation", 120),
             ("VMware vSphere HA, until the restart begins", 15), ("Ganeti", None)]
PORT = 7777


def run(*words, check=True):
    done = subprocess.run([RACKHAND, *words], capture_output=True, text=True)
    if check and done.returncode != 0:
        sys.exit(f"rackhand {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def told(*words):
    return json.loads(run(*words, "-o", "json").stdout)


def racks():
    return {rack["name"]: rack for rack in told("lab", "list")["racks"]}


def ask(address):
    """The guest's counter, or nothing."""
    try:
        with socket.create_connection((address, PORT), timeout=0.4) as peer:
            peer.settimeout(0.4)
            return peer.makefile().readline().split()[1]
    except (OSError, IndexError):
        return None


class Follower(threading.Thread):
    """Follows a guest's counter: when it answered and grew."""

    def __init__(self, address, begun):
        super().__init__(daemon=True)
        self.address, self.begun = address, begun
        self.answers, self.longest, self.over = [], 0.0, threading.Event()

    def run(self):
        last, grown = None, time.monotonic()
        while not self.over.is_set():
            counter, now = ask(self.address), time.monotonic()
            if counter is not None:
                self.answers.append(now)
            if counter is not None and counter != last:
                if last is not None:
                    self.longest = max(self.longest, now - grown)
                last, grown = counter, now
            self.over.wait(0.02)
        if last is not None:
            self.longest = max(self.longest, time.monotonic() - grown)

    def stop(self):
        self.over.set()
        self.join()
        return self.longest


class Watch:
    """The watch, with the time of each event."""

    def __init__(self):
        self.process = subprocess.Popen([RACKHAND, "watch", "--events", "json"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        self.events, self.change = [], threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"text": line.strip()}
            with self.change:
                self.events.append((time.monotonic(), event))
                self.change.notify_all()

    def wait(self, since, wanted, patience):
        """The time and text of the first event after `since` that is wanted."""
        end = time.monotonic() + patience
        with self.change:
            while True:
                for at, event in self.events:
                    if at >= since and wanted(event):
                        return at, event
                left = end - time.monotonic()
                if left <= 0 or not self.change.wait(left):
                    return None

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def until(what, condition, patience=240):
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited {patience} s in vain: {what}")
        time.sleep(0.5)


def clean():
    status = json.loads(run("status", "-o", "json", check=False).stdout or "{}")
    hosts = status.get("hosts", [])
    pgs = status.get("ceph") or {}
    return hosts and all(host["reachable"] for host in hosts) and pgs.get("health") == "HEALTH_OK"


def main():
    made = LAB not in racks()
    if made:
        run("lab", "up", "--name", LAB)
    rack = racks()[LAB]
    inventory = rack["inventory"]
    os.environ["RACKHAND_INVENTORY"] = inventory
    text = open(inventory).read()
    if "failover: fastest" not in text:
        import re
        text = re.sub(r"(?m)^(ceph:.*\n)", r"\1  failover: fastest\n", text, count=1) if re.search(
            r"(?m)^ceph:\s*$", text) else text + "\nceph:\n  failover: fastest\n"
        open(inventory, "w").write(text)
    watch = None
    try:
        run("provision", "--yes")
        if "tiny" not in run("image", "list").stdout:
            run("image", "import", "tiny", run("lab", "image", "build", "tiny").stdout.strip())
        hosts = [host["name"] for host in rack["hosts"]]
        victim, others = hosts[0], hosts[1:]
        spec = ["--image", "tiny", "--memory", "128M", "--cpus", "1", "--disk", "1G", "--yes"]
        victims = [f"fo-{n}" for n in range(1, GUESTS + 1)]
        for name in victims + [f"stay-{host}" for host in others]:
            run("guest", "create", name, *spec)
        address = {name: told("guest", "show", name)["addresses"][0]
                   for name in victims + [f"stay-{host}" for host in others]}
        for host in others:
            run("migrate", f"stay-{host}", "--to", host, "--yes", check=False)
        for name in address:
            until(f"{name} answers", lambda: ask(address[name]) is not None, 120)

        cold = []
        for _ in range(3):
            run("guest", "stop", victims[0], "--force", "--yes")
            began = time.monotonic()
            started = subprocess.Popen([RACKHAND, "guest", "start", victims[0], "-q"])
            until("cold start", lambda: ask(address[victims[0]]) is not None, 120)
            cold.append(time.monotonic() - began)
            started.wait()
        own = statistics.median(cold)

        watch = Watch()
        if not watch.wait(0, lambda event: "lead" in json.dumps(event), 60):
            sys.exit("the watch does not lead")
        rows = []
        for n in range(ROUNDS):
            run("migrate", *victims, "--to", victim, "--yes", check=False)
            until("the rack is clean", clean)
            rows.append(one_round(watch, victim, victims, others, address))
            # The watch goes on trying to switch the host off by its BMC, and would do so again as soon as that has power.
            watch.wait(rows[-1].pop("cut at"), lambda event: event.get("kind", "").startswith("power"), 60)
            run("lab", "power", "--name", LAB, "on", victim)
            print(f"round {n + 1}: " + ", ".join(f"{k} {v:.2f}" for k, v in rows[-1].items() if v is not None), flush=True)
            until("the host answers", lambda: run("readmit", victim, "--yes", check=False).returncode == 0)
        return report(rows, own)
    finally:
        if watch:
            watch.stop()
        if made:
            run("lab", "down", "--name", LAB, "--yes", check=False)
        else:
            run("guest", "delete", *victims, *[f"stay-{host}" for host in others], "--yes", check=False)


def one_round(watch, victim, victims, others, address):
    since = time.monotonic()
    survivors = [Follower(address[f"stay-{host}"], since) for host in others]
    mine = {name: Follower(address[name], since) for name in victims}
    for follower in [*survivors, *mine.values()]:
        follower.start()
    time.sleep(1)  # what they see before the cut
    begun = time.monotonic()
    run("lab", "cut", "--name", LAB, victim)
    row = {"cut at": begun}
    for stage, words in [("suspected", "suspected"), ("verdict", "verdict"), ("committed", "committed"),
                         ("everywhere", "everywhere")]:
        found = watch.wait(begun, lambda event: event.get("kind") == words or event.get("event") == words, 90)
        row[stage] = found and found[0] - begun
    runs = []
    for name in victims:
        found = watch.wait(begun, lambda event: name in json.dumps(event) and '"done"' in json.dumps(event), 90)
        if found:
            runs.append(found[0] - begun)
    row["running"] = min(runs, default=None)
    row["all running"] = max(runs, default=None) if len(runs) == len(victims) else None
    answers = []
    for name, follower in mine.items():
        def back(follower=follower):
            return any(at > begun + 0.8 for at in follower.answers)
        until(f"{name} answers again", back, 120 + 20 * len(victims))
        answers.append(min(at for at in follower.answers if at > begun + 0.8) - begun)
        follower.stop()
    row["answers"] = min(answers)
    row["all answer"] = max(answers)
    time.sleep(2)  # what the survivors still have to catch up with
    row["survivors' stall"] = max(follower.stop() for follower in survivors)
    return row


def report(rows, own):
    print(f"\n{'seconds after the cut':24}{'median':>8}{'worst':>8}")
    figures = {}
    for stage in rows[0]:
        values = [row[stage] for row in rows if row[stage] is not None]
        if len(values) < len(rows):
            print(f"{stage:24}{'missing in ' + str(len(rows) - len(values)):>16}")
            continue
        figures[stage] = (statistics.median(values), max(values))
        print(f"{stage:24}{figures[stage][0]:8.2f}{figures[stage][1]:8.2f}")
    print(f"{'own cold start':24}{own:8.2f}")
    for name, seconds in PUBLISHED:
        print(f"{name:48}{seconds if seconds is not None else 'no automatic restart':>8}")
    bars = [("running", 2.5, 4.0), ("answers", own + 2.0, own + 3.5), ("survivors' stall", 2.0, 4.0)]
    missed = [stage for stage, median, worst in bars
              if stage not in figures or figures[stage][0] > median or figures[stage][1] > worst]
    print("bars missed: " + ", ".join(missed) if missed else "every bar is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
