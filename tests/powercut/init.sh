#!/bin/busybox sh
# The guest's first and only program: the disk, simulated PDUs, the gateway.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
while read -r module; do $b insmod "/modules/$module" || echo "rig: $module was not loaded"; done </modules/order
$b ifconfig lo 127.0.0.1 up
$b ifconfig eth0 10.0.2.15 up
if ! $b mount -t ext4 /dev/vda /data; then echo 'rig: the disk does not mount'; $b poweroff -f; fi
echo 'rig: mounted'
$b mkdir -p /data/state
/pmgate sim --config /etc/pmgate/sim.toml >/dev/null &
/pmgate serve --config /etc/pmgate/gateway.toml
echo "rig: the gateway ended: $?"
$b umount /data
$b poweroff -f
