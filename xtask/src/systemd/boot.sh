#!/bin/sh
# Boots systemd as process 1 of a copy-on-write view of the root folder $1. It runs the script $3 in the folder /packages,
# with the names of the further files, which are copied there, as arguments; the script's output is appended to $2. The
# caller gives it namespaces of its own.
set -eu
base=$1
log=$2
script=$3
shift 3
work=$log.view
mkdir -p "$work"
mount --make-rprivate /
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/view"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" "$work/view"
cp "$script" "$work/view/inside.sh"
mkdir "$work/view/packages"
names=
for file in "$@"; do
    cp "$file" "$work/view/packages/"
    names="$names ${file##*/}"
done
: >"$log"
touch "$work/view/log"
mount --bind "$log" "$work/view/log"
cat >"$work/view/etc/systemd/system/inside.service" <<END
[Unit]
After=multi-user.target
[Service]
Type=oneshot
WorkingDirectory=/packages
Environment=HOME=/root DEBIAN_FRONTEND=noninteractive
ExecStart=/bin/sh /inside.sh$names
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=append:/log
StandardError=inherit
[Install]
WantedBy=default.target
END
mkdir -p "$work/view/etc/systemd/system/default.target.wants"
ln -sf ../inside.service "$work/view/etc/systemd/system/default.target.wants/inside.service"
ln -sf /lib/systemd/system/multi-user.target "$work/view/etc/systemd/system/default.target"
cd "$work/view"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : >dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir -p old
pivot_root . old
umount -l /old
# systemd passes credentials by mounts that propagate; in a container it leaves the propagation to the caller.
mount --make-rshared /
exec env -i container=cmiot PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_LOG_TARGET=console \
    /lib/systemd/systemd --system --show-status=no </dev/null >/dev/null 2>&1
