# Says what a host is and how it does, in sections that begin with "@@ NAME". Only looks; needs nothing but a stock
# installation. Arguments: the sections that are asked for.
# Every process started here costs a millisecond on every host: so one grep reads all files (as PATH:LINE), what is
# not there is not asked for, and the shell does itself what it can.
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH
asked=" $* "

# Begins a section, where it is asked for.
wants() {
    case $asked in
    *" $1 "*) echo "@@ $1" ;;
    *) return 1 ;;
    esac
}

# A block is read to its end before it runs: bash would look for the rest of the script in the new stdin.
{
    echo '@@ begin 3'

    if wants time; then
        date +%s.%N
        [ -e /run/systemd/timesync/synchronized ] && echo timesyncd
        command -v chronyc >/dev/null && timeout 2 chronyc -c -n tracking
    fi

    if wants files; then
        # All lines without a tab; of /proc/cpuinfo, whose lines have one, what matters.
        tab='	'
        grep -sHoE "^[^$tab]*\$|^(processor|model name|physical id|core id)$tab.*|\<(vmx|svm|hypervisor)\>" \
            /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name /sys/class/dmi/id/product_serial \
            /sys/class/dmi/id/product_uuid /sys/class/dmi/id/bios_version \
            /proc/sys/kernel/hostname /proc/sys/kernel/osrelease /proc/sys/kernel/arch \
            /proc/sys/kernel/random/boot_id /proc/uptime /proc/loadavg /proc/cpuinfo /proc/meminfo \
            /etc/os-release /run/systemd/container \
            /sys/class/net/*/speed /sys/class/net/*/device/numa_node /sys/class/net/*/device/uevent \
            /sys/class/infiniband/*/ports/*/rate /sys/class/infiniband/*/ports/*/state \
            /sys/class/infiniband/*/ports/*/link_layer \
            /sys/devices/system/node/node*/cpulist /sys/devices/system/node/node*/meminfo
    fi

    if wants hardware; then
        # Kernels before 6.1 have no file for it.
        [ -e /proc/sys/kernel/arch ] || uname -m
        [ -c /dev/kvm ] && true <>/dev/kvm && echo kvm
    fi

    if wants net; then
        ip -j -d addr
        echo
    fi

    if wants links; then
        printf '%s\n' /sys/class/infiniband/*/device/net/*
        directories=
        for directory in /dev/disk/by-id /dev/disk/by-path /dev/mapper; do
            [ -d $directory ] && directories="$directories $directory"
        done
        [ -n "$directories" ] && find $directories -maxdepth 1 -type l -printf '%p %l\n'
    fi

    if wants block; then
        lsblk -J -b -o NAME,PATH,TYPE,SIZE,ROTA,MODEL,SERIAL,WWN,TRAN,FSTYPE,LABEL,MOUNTPOINT,RO
    fi

    if wants content; then
        # A container sees every loop device of its machine, but has nodes for its own alone.
        nodes=
        for device in /sys/class/block/*; do
            name=/dev/${device##*/}
            case $name in /dev/sr* | /dev/zram* | /dev/ram* | /dev/fd*) continue ;; esac
            read -r size <"$device/size" && [ "$size" != 0 ] || continue
            case $name in /dev/loop*) [ -e "$device/loop/backing_file" ] || [ -e "$device/partition" ] || continue ;; esac
            if [ -e "$device/dm/name" ] && read -r mapped <"$device/dm/name"; then name=/dev/mapper/$mapped; fi
            [ -b "$name" ] || continue
            echo "node $name"
            # What cannot be read is not taken for empty.
            if true <"$name"; then nodes="$nodes $name"; else echo "${name##*/} unreadable"; fi
        done
        if [ -n "$nodes" ] && ! found=$(wipefs --noheadings -n -O DEVICE,TYPE $nodes); then
            # One that cannot be read after all makes wipefs give up on the rest.
            found=$(for node in $nodes; do
                wipefs --noheadings -n -O DEVICE,TYPE "$node" || echo "${node##*/} unreadable"
            done)
        fi
        echo "$found"
        # What no one knows by a signature may be data all the same: a disk is empty when its first MiB is.
        for node in $nodes; do
            [ -e "/sys/class/block/${node##*/}/partition" ] && continue
            case "
$found " in *"
${node##*/} "*) continue ;; esac
            if ! cmp -s -n 1048576 "$node" /dev/zero; then
                echo "${node##*/} unknown-data"
                continue
            fi
            # A newer Ceph keeps copies of its label, and btrfs one of its superblock, where no first look gets to.
            read -r size <"/sys/class/block/${node##*/}/size" || continue
            for place in 1GiB:2097152 10GiB:20971520 100GiB:209715200 1000GiB:2097152000; do
                sector=${place##*:}
                [ "$size" -gt "$sector" ] || break
                case $(dd if="$node" bs=512 skip="$sector" count=1 | tr -d '\000' | head -c 23) in
                'bluestore block device'*) echo "${node##*/} ceph_bluestore-label-at-${place%:*}" ;;
                esac
            done
            for place in 64MiB:131072 256GiB:536870912; do
                sector=${place##*:}
                [ "$size" -gt "$sector" ] || break
                case $(dd if="$node" bs=512 skip="$sector" count=1 | head -c 72 | tail -c 8 | tr -d '\000') in
                _BHRfS_M) echo "${node##*/} btrfs-superblock-at-${place%:*}" ;;
                esac
            done
        done

        echo '@@ labels'
        # Of Ceph's disks: the harmless fields, each name followed by the binary length of its value and the value. The number
        # is the last of them, and the checksum behind it may look like more digits.
        osds=
        for node in $nodes; do
            case "
$found " in *"
${node##*/} "*ceph_bluestore*) osds="$osds $node" ;; esac
        done
        [ -n "$osds" ] && head -v -c 4096 $osds | tr -d '\000' |
            grep -aoP '^==> /dev/\S+ <==|ceph_fsid.[0-9a-f-]{36}|whoami(\x01\d|\x02\d\d|\x03\d{3}|\x04\d{4}|\x05\d{5})'
    fi

    if wants ceph; then
        # What another tool has set up: cephadm keeps each cluster below its id; monitors listen on 3300 and 6789.
        for directory in /var/lib/ceph/*-*-*-*-*/; do
            [ -d "$directory" ] && echo "container ${directory%/}"
        done
        # Rook, MicroCeph and Proxmox keep theirs in places of their own.
        foreign() {
            tool=$1
            shift
            for place in "$@"; do
                [ -e "$place" ] && { echo "foreign $tool $place"; break; }
            done
        }
        foreign Rook /var/lib/rook/mon-* /var/lib/rook/rook-ceph
        foreign MicroCeph /var/snap/microceph/current/conf/ceph.conf /var/snap/microceph/common/data/mon
        foreign Proxmox /etc/pve/ceph.conf
        for store in /var/lib/ceph/mon/ceph-*/; do
            [ -d "$store" ] && echo "mon ${store%/}"
        done
        grep -m 1 -E '^[[:space:]]*fsid[[:space:]]*=' /etc/ceph/ceph.conf
        grep -m 1 -hE '^ *[0-9]+: [0-9A-F]+:(0CE4|1A85) [0-9A-F]+:0000 0A ' /proc/net/tcp /proc/net/tcp6
    fi

    if wants software; then
        for program in ceph ceph-osd libvirtd virtqemud qemu-system-x86_64; do
            command -v $program >/dev/null || continue
            if [ -r /var/lib/dpkg/status ]; then
                # dpkg-query reads every package there is, a quarter of the whole script's time. The fields before the
                # version are at most 13.
                grep -A13 -xE 'Package: (ceph-common|ceph-osd|libvirt-daemon|qemu-system-x86)' /var/lib/dpkg/status
            else
                rpm -q --qf 'Package: %{NAME}\nStatus: install ok installed\nVersion: %{VERSION}-%{RELEASE}\n' \
                    ceph-common ceph-osd libvirt-daemon qemu-kvm-core
            fi
            break
        done
    fi

    if wants space; then
        df -Pk / /var/lib
    fi

    if wants platform; then
        # What configures the network.
        if [ -n "$(ls /etc/netplan/*.yaml)" ]; then
            echo network netplan
        elif systemctl is-active -q NetworkManager; then
            echo network networkmanager
        elif systemctl is-active -q systemd-networkd; then
            echo network networkd
        elif [ -e /etc/network/interfaces ] && systemctl is-enabled -q networking; then
            echo network ifupdown
        else
            echo network unknown
        fi
        [ -e /dev/watchdog0 ] && echo watchdog
    fi

    if wants units; then
        systemctl list-units --all --plain --no-legend --no-pager 'rackhand-*.service' 'ceph-mon@*.service' \
            'ceph-osd@*.service' libvirtd.service libvirtd.socket virtqemud.service virtqemud.socket
    fi

    echo '@@ end'
} 2>/dev/null </dev/null
