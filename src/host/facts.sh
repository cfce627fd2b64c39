# Says what a host is, in sections that begin with "@@ NAME". Only looks; needs nothing but a stock installation.
# Files are read many at a time (grep -sH prints PATH:LINE), because every process started here costs on every host.
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH
exec 2>/dev/null </dev/null
echo '@@ begin 1'

echo '@@ files'
cd /sys/class/dmi/id && grep -sH '' sys_vendor product_name product_serial product_uuid bios_version
cd /proc && grep -sH '' sys/kernel/hostname sys/kernel/osrelease sys/kernel/random/boot_id uptime
cd /sys/class/net && grep -sH '' */speed */carrier */device/numa_node
cd /sys/class/infiniband && grep -sH '' */ports/*/rate */ports/*/state */ports/*/link_layer
cd /sys/devices/system/node && grep -sH '' node*/cpulist && grep -sH MemTotal node*/meminfo

echo '@@ links'
ls -d /sys/class/infiniband/*/device/net/*
cd / && ls -l /sys/class/net/*/device/driver

echo '@@ os'
cat /etc/os-release
echo "MACHINE=$(uname -m)"

echo '@@ cpu'
grep -E '^(model name|physical id|core id)' /proc/cpuinfo
while read -r key line; do
    case "$key $line " in
    flags*\ vmx\ * | flags*\ svm\ *) echo 'hardware virtualisation' && break ;;
    flags*) break ;;
    esac
done </proc/cpuinfo
nproc --all

echo '@@ memory'
grep -E '^(MemTotal|MemAvailable|SwapTotal|HugePages_Total|Hugepagesize):' /proc/meminfo

echo '@@ time'
date +%s.%N
[ -e /run/systemd/timesync/synchronized ] && echo timesyncd
command -v chronyc >/dev/null && timeout 2 chronyc -c -n tracking

echo '@@ net'
ip -j -d addr

echo '@@ names'
find /dev/disk/by-id /dev/disk/by-path /dev/mapper -type l -printf '%p %l\n'

echo '@@ block'
lsblk -J -b -o NAME,PATH,TYPE,SIZE,ROTA,MODEL,SERIAL,TRAN,FSTYPE,LABEL,MOUNTPOINT,RO

echo '@@ content'
# A container sees every loop device of its machine, but has nodes for its own alone.
lsblk -nrpo NAME,TYPE | sort -u | while read -r name type; do
    [ -b "$name" ] && [ "$type" != rom ] || continue
    echo "node $name"
    wipefs -n -p "$name" | while IFS=, read -r offset _ _ kind; do
        case $offset in 0x*) echo "holds $kind" ;; *) continue ;; esac
        [ "$kind" = ceph_bluestore ] || continue
        # The label: names and values of printable characters, each after its binary length.
        head -c 4096 "$name" | tr -cs '[:alnum:]_-' '\n' | grep -A1 -xE 'ceph_fsid|whoami'
    done
done

echo '@@ virt'
if [ -c /dev/kvm ] && (: <>/dev/kvm); then echo kvm; fi
command -v systemd-detect-virt >/dev/null && echo "inside $(systemd-detect-virt)"

echo '@@ software'
if command -v dpkg-query >/dev/null; then
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' ceph-common ceph-osd libvirt-daemon qemu-system-x86
else
    rpm -q --qf 'installed %{NAME} %{VERSION}-%{RELEASE}\n' ceph-common ceph-osd libvirt-daemon qemu-kvm-core
fi

echo '@@ space'
df -Pk / /var/lib

echo '@@ end'
