#!/bin/bash
# boot.sh TREE UPPER CGROUP: systemd of TREE as process 1 of namespaces of its own
# (pid, mount, uts, ipc, net, cgroup). What it writes goes into UPPER, a folder
# on a tmpfs. Ends with its parent. Prints its own pid, then what systemd says.
set -e
tree=$1 upper=$2 cgroup=$3
mkdir -p "$cgroup"
echo $$ >"$cgroup/cgroup.procs"
exec unshare --pid --fork --mount --uts --ipc --net --cgroup --kill-child --propagation private bash -ec '
tree=$0 upper=$1 n=$1/root
mkdir -p $upper/up $upper/work $n
mount -t overlay overlay -o lowerdir=$tree,upperdir=$upper/up,workdir=$upper/work $n
mount -t proc proc $n/proc
mount -t sysfs -o ro sysfs $n/sys
mount -t tmpfs -o mode=755 dev $n/dev
mkdir $n/dev/pts $n/dev/shm
for d in null zero full random urandom tty loop-control fuse $(cd /dev && ls -d loop[0-9]*); do
	[ ! -e /dev/$d ] || cp -a /dev/$d $n/dev/
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts $n/dev/pts
ln -s pts/ptmx $n/dev/ptmx
ln -s /proc/self/fd $n/dev/fd
ln -s /dev/null $n/dev/kmsg
mount -t tmpfs -o mode=755 run $n/run
mount -t tmpfs tmp $n/tmp
mkdir -p $n/run/lock
# What is global to the kernel is not this systemd to change.
for f in /proc/sys /proc/sysrq-trigger /proc/irq /proc/bus; do
	[ ! -e $n$f ] || { mount --bind $n$f $n$f; mount -o remount,bind,ro $n$f; }
done
mount -t cgroup2 cgroup2 $n/sys/fs/cgroup
ip link set lo up 2>/dev/null || true
hostname device
cd $n
mkdir -p old
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=sealant-test PATH=/usr/sbin:/usr/bin TERM=dumb /lib/systemd/systemd --show-status=0
' "$tree" "$upper"
