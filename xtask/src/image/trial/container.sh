# Starts a program as runtimes of containers do, in the namespaces that the caller made. Arguments:
# the image's files, the folder that is to be seen as /etc/flexvdi, the files for /etc/hosts and
# /etc/resolv.conf, user and group, and the command with its arguments. The environment is the
# image's.
set -e
root=$1
configuration=$2
hosts=$3
resolver=$4
user=$5
shift 5

mount --bind "$root" "$root"
mount --bind "$configuration" "$root/etc/flexvdi"
mount -o remount,bind,ro "$root/etc/flexvdi"
mount --bind "$hosts" "$root/etc/hosts"
mount --bind "$resolver" "$root/etc/resolv.conf"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# As `--tmpfs /run` makes it: everybody may write there.
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmpfs "$root/run"
mount -o remount,bind,ro "$root"

# chroot still needs three capabilities, which the user that it becomes does not get.
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
    chroot --userspec="$user" --groups= "$root" "$@"
