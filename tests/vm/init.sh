#!/bin/sh
# First program of the guest, in its initramfs: mounts the root of the machine outside, read-only,
# with what must be writable or the guest's own on top, and goes on as guest.py in there.
/bin/busybox --install -s /bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

# What run.py waits for: see there.
echo "The guest has started." >/dev/ttyS1

fail() {
    echo "Error: the guest $1." >/dev/ttyS1
    poweroff -f
}

for name in $(cat /modules/order); do
    insmod "/modules/$name.ko" || fail "cannot load its module $name"
done

# Sets PYTHON and GUEST, and calls keep for places that a file system of the guest's would hide.
keep() {
    mkdir -p "/kept$1"
    mount --bind "/host$1" "/kept$1" || fail "cannot see $1"
    kept="$kept
$1"
}
kept=""
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro root /host ||
    fail "cannot mount its root over 9p"
. /plan.sh

for place in tmp var/tmp run; do
    mount -t tmpfs -o mode=1777 tmpfs "/host/$place" || fail "cannot mount /$place"
done
IFS='
'
for place in $kept; do
    mkdir -p "/host$place"
    mount --bind "/kept$place" "/host$place"
done
unset IFS

mount -t proc proc /host/proc
mount -t sysfs sys /host/sys
mount -t devtmpfs dev /host/dev
mkdir -p /host/dev/shm /host/dev/pts
# What udev would add.
ln -s /proc/self/fd /host/dev/fd
mount -t tmpfs -o mode=1777 tmpfs /host/dev/shm
mount -t devpts devpts /host/dev/pts
mount -t cgroup2 cgroup /host/sys/fs/cgroup || fail "has no cgroups of version 2"
ip link set lo up
mkswap /dev/vda >/dev/null || fail "has no disk to swap on"

cp /plan.json /host/run/plan.json
umount /proc /sys
exec switch_root /host "$PYTHON" -S "$GUEST" /run/plan.json
