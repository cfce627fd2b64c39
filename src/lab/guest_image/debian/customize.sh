#!/bin/sh
# Run by mmdebstrap with the new root as its argument, once everything is installed in it.
set -eu
root=$1

# The disk's file system is found by its label, whatever the disk is called.
echo 'LABEL=rackhand-root / ext4 defaults,errors=remount-ro 0 1' > "$root/etc/fstab"
mkdir -p "$root/etc/default" "$root/boot/grub"
cat > "$root/etc/default/grub" <<'EOF'
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_TERMINAL="console serial"
GRUB_DISABLE_OS_PROBER=true
EOF
# The first menu; update-grub writes its own when the guest installs another kernel.
cat > "$root/boot/grub/grub.cfg" <<'EOF'
set timeout=0
search --no-floppy --label rackhand-root --set=root
linux /vmlinuz root=LABEL=rackhand-root ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
EOF
mkdir -p "$root/boot/grub/i386-pc"
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root/boot/grub/i386-pc/"

# The seed is the only source; the network is written for networkd.
cat > "$root/etc/cloud/cloud.cfg.d/90_rackhand.cfg" <<'EOF'
datasource_list: [ NoCloud, None ]
ssh_genkeytypes: [ ed25519 ]
# Debian's minimal system has no other locale than C.UTF-8; setting one failed every first boot. A text, as cloud-init's
# schema wants it.
locale: "false"
system_info:
  network:
    renderers: [ networkd ]
EOF
chroot "$root" systemctl --quiet enable systemd-networkd.service systemd-resolved.service
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

# Gratuitous ARP whenever an address or a link comes up: bridges forget where the guest was.
echo 'net.ipv4.conf.all.arp_notify = 1' > "$root/etc/sysctl.d/60-announce.conf"
echo 'net.ipv4.conf.default.arp_notify = 1' >> "$root/etc/sysctl.d/60-announce.conf"

# systemd-logind listens to the power button only when cloud-init is done, late in the first boot: what is pressed
# before is lost. This listens from the time the button's driver is there.
mkdir -p "$root/etc/acpi/events"
printf 'event=button/power.*\naction=/usr/bin/systemctl poweroff\n' > "$root/etc/acpi/events/power"
cat > "$root/etc/systemd/system/power-button.service" <<'EOF'
[Unit]
Description=Shut down at the power button
DefaultDependencies=no
After=systemd-remount-fs.service
Before=cloud-init-local.service shutdown.target
Conflicts=shutdown.target

[Service]
ExecStart=/usr/sbin/acpid --foreground --nosocket

[Install]
WantedBy=sysinit.target
EOF
chroot "$root" systemctl --quiet enable power-button.service
chroot "$root" systemctl --quiet mask acpid.service acpid.socket acpid.path

# An agent that waits for a reader who has gone must not hold up the guest's end.
mkdir -p "$root/etc/systemd/system/qemu-guest-agent.service.d"
printf '[Service]\nTimeoutStopSec=5\n' > "$root/etc/systemd/system/qemu-guest-agent.service.d/stop.conf"
# Nothing of the machine's own accord: the guest's owner decides when it updates.
chroot "$root" systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer

# Every guest gets its own identity when it first boots.
rm -f "$root"/etc/ssh/ssh_host_*_key* "$root/etc/hostname" "$root"/etc/apt/apt.conf.d/99mmdebstrap
: > "$root/etc/machine-id"
chroot "$root" passwd --quiet --lock root
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/*
