#!/usr/bin/env python3
"""`rackhand facts` against Ansible and pyinfra on the same hosts, in one run."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import measure
import servers

# The least that counts as a pass.
TIMES_ANSIBLE = 10
TIMES_PYINFRA = 3
MEMORY_MIB = 64
# What pyinfra has facts of its own for; where it has none, its Command fact asks as a person would, a kind at a time.
FEWER_FACTS = [
    ["server.Hostname"], ["server.LinuxDistribution"], ["server.KernelVersion"], ["server.Arch"], ["server.Date"],
    ["server.Mounts"], ["hardware.Memory"], ["hardware.BlockDevices"], ["hardware.NetworkDevices"],
    ["server.Command", "command=lscpu"],
    ["server.Command", "command=grep -s . /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_serial; true"],
    ["server.Command", "command=lsblk -J -b -o NAME,TYPE,SIZE,ROTA,MODEL,SERIAL,FSTYPE,MOUNTPOINT"],
    ["server.Command", "command=dpkg-query -W ceph-common libvirt-daemon qemu-system-x86 2>/dev/null; true"],
]
# All that `rackhand facts` gathers: also link speeds and drivers, InfiniBand, NUMA; stable names and contents of disks;
# virtualisation and what sets the clock.
SAME_FACTS = [
    *FEWER_FACTS,
    ["server.Command", "command=grep -s . /sys/class/net/*/speed /sys/class/net/*/device/uevent"
     " /sys/class/infiniband/*/ports/*/rate /sys/devices/system/node/node*/meminfo; true"],
    ["server.Command", "command=ls -l /dev/disk/by-id /dev/disk/by-path 2>/dev/null; true"],
    ["server.Command", "command=wipefs -n $(lsblk -n -p -l -o NAME) 2>/dev/null; true"],
    ["server.Command", "command=cat /proc/uptime; ls /dev/kvm /run/systemd/container"
     " /run/systemd/timesync/synchronized 2>/dev/null; true"],
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rackhand", required=True)
    parser.add_argument("--tools", required=True, help="directory with ansible and pyinfra")
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--skip-default-forks", action="store_true", help="leave out Ansible with its 5 forks")
    options = parser.parse_args()
    measure.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="rhbench") as directory:
        with servers.Servers(directory, options.hosts) as rack:
            results = compare(options, pathlib.Path(directory), rack)
    return report(options, results)


def compare(options, directory, rack):
    """Name of each contender -> what was measured; those that are close take turns, and the median of three counts."""
    turns = []
    for n in range(3):
        ours = rackhand(options, directory, rack, n)
        turns.append((ours, pyinfra(options, directory, rack, SAME_FACTS, n), pyinfra(options, directory, rack, FEWER_FACTS, n)))
    names = ("rackhand facts", "pyinfra, the same facts", "pyinfra, fewer facts")
    results = {name: median(runs) for name, runs in zip(names, zip(*turns))}
    results["ansible -m setup, 32 forks"] = ansible(options, directory, rack, 32)
    if not options.skip_default_forks:
        results["ansible -m setup, default forks"] = ansible(options, directory, rack, None)
    return results


def median(runs):
    """The run in the middle, with the most memory of any."""
    middle = sorted(runs, key=lambda m: m.seconds)[len(runs) // 2]
    middle.own, middle.tree = max(m.own for m in runs), max(m.tree for m in runs)
    return middle


def finish(what, measured, ok, log):
    print(f"{what}: {measured.seconds:.1f} s", file=sys.stderr)
    if not ok:
        for name in (log, f"{log}.err"):
            print(pathlib.Path(name).read_text(errors="replace")[-2000:], file=sys.stderr)
        raise SystemExit(f"{what} did not get the facts of every host")
    return measured


def rackhand(options, directory, rack, number):
    inventory = directory / "inventory.yaml"
    lines = [
        "cluster: {name: bench, fsid: 6c9a2a6e-5d6c-4d2b-9d59-0d6f7a1b2c3d}",
        f"ssh: {{user: root, port: {servers.PORT}, identity: {rack.identity}, known_hosts: {rack.known_hosts}}}",
        "networks: {management: {cidr: 127.0.1.0/24}, storage: {cidr: 127.0.2.0/24}}",
        "hosts:",
    ]
    for n, address in enumerate(rack.addresses, 1):
        roles = "[mon, mgr, guests]" if n == 1 else "[guests]"
        lines.append(f"  - {{name: h{n:03}, address: {address}, storage_address: 127.0.2.{n}, roles: {roles}}}")
    inventory.write_text("\n".join(lines) + "\n")
    log = directory / f"rackhand{number}"
    arguments = [options.rackhand, "-i", str(inventory), "facts", "-o", "json"]
    measured = measure.run(arguments, log, rack.pids())
    hosts = json.loads(log.read_text() or "{}").get("hosts", [])
    good = [h for h in hosts if h["facts"] and h["facts"]["cpu"]["threads"] and h["facts"]["nics"] and h["facts"]["disks"]]
    return finish("rackhand", measured, measured.status == 0 and len(good) == options.hosts, log)


def ansible(options, directory, rack, forks):
    inventory, tree = directory / "hosts.ini", directory / f"tree{forks}"
    inventory.write_text("".join(f"h{n:03} ansible_host={a}\n" for n, a in enumerate(rack.addresses, 1)))
    config = directory / "ansible.cfg"
    config.write_text("")
    sockets = directory / f"cp{forks}"
    sockets.mkdir()
    env = dict(
        os.environ,
        ANSIBLE_CONFIG=str(config),
        ANSIBLE_REMOTE_PORT=str(servers.PORT),
        ANSIBLE_PRIVATE_KEY_FILE=str(rack.identity),
        ANSIBLE_REMOTE_USER="root",
        ANSIBLE_SSH_COMMON_ARGS=f"-F /dev/null -o UserKnownHostsFile={rack.known_hosts}",
        ANSIBLE_SSH_CONTROL_PATH_DIR=str(sockets),
        ANSIBLE_LOCAL_TEMP=str(directory / "ansible"),
        # Named, so that nothing has to be searched for on the hosts.
        ANSIBLE_PYTHON_INTERPRETER="/usr/bin/python3",
    )
    arguments = [f"{options.tools}/ansible", "all", "-i", str(inventory), "-m", "setup", "--tree", str(tree)]
    if forks:
        arguments += ["-f", str(forks)]
    log = directory / f"ansible{forks}"
    measured = measure.run(arguments, log, rack.pids(), env)
    good = [f for f in tree.glob("*") if "ansible_facts" in f.read_text()]
    end_masters(sockets)
    return finish(f"ansible ({forks or 'default'} forks)", measured, measured.status == 0 and len(good) == options.hosts, log)


def end_masters(sockets):
    for socket in sockets.iterdir():
        command = ["ssh", "-F", "/dev/null", "-O", "exit", "-S", str(socket), "host"]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


def pyinfra(options, directory, rack, facts, number):
    inventory = directory / "rack.py"
    data = {
        "ssh_user": "root", "ssh_port": servers.PORT, "ssh_key": str(rack.identity),
        "ssh_known_hosts_file": str(rack.known_hosts), "ssh_strict_host_key_checking": "yes",
    }
    inventory.write_text(f"rack = ({rack.addresses!r}, {data!r})\n")
    log = directory / f"pyinfra{number}"
    # Its default is 20 a processor; all at once was measured to be its fastest here.
    parallel = str(options.hosts)
    arguments = [f"{options.tools}/pyinfra", "-y", "--parallel", parallel, str(inventory), "fact"]
    arguments += [word for fact in facts for word in fact]
    env = dict(os.environ, HOME=str(directory / "home"))
    measured = measure.run(arguments, log, rack.pids(), env)
    text = log.read_text(errors="replace") + pathlib.Path(f"{log}.err").read_text(errors="replace")
    good = all(address in text for address in rack.addresses)
    return finish("pyinfra", measured, measured.status == 0 and good, log)


def report(options, results):
    ours = results["rackhand facts"]
    print(f"\nfacts of {options.hosts} hosts (sshd processes on this machine, {os.cpu_count()} processors)\n")
    print(f"{'':34}{'seconds':>9}{'times ours':>12}{'own MiB':>9}{'all MiB':>9}")
    for name, m in results.items():
        print(f"{name:34}{m.seconds:9.1f}{m.seconds / ours.seconds:12.1f}{m.own:9.0f}{m.tree:9.0f}")
    print("\nown: peak resident memory of the first process; all: sum over all processes, shared pages counted in each\n")
    fastest = min(m.seconds for name, m in results.items() if name.startswith("ansible"))
    checks = [
        (f"at least {TIMES_ANSIBLE} times faster than Ansible", fastest / ours.seconds, fastest / ours.seconds >= TIMES_ANSIBLE),
    ]
    ratio = results["pyinfra, the same facts"].seconds / ours.seconds
    checks.append((f"at least {TIMES_PYINFRA} times faster than pyinfra", ratio, ratio >= TIMES_PYINFRA))
    checks.append((f"less than {MEMORY_MIB} MiB of rackhand's own memory", ours.own, ours.own < MEMORY_MIB))
    for what, figure, passed in checks:
        print(f"{'PASS' if passed else 'FAIL'}  {what}: {figure:.1f}")
    return 0 if all(passed for _, _, passed in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
