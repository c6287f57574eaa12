# SPDX-License-Identifier: MIT OR Apache-2.0
# Every way in which the second-level guest can lose the function while it is at work. After each, the
# function works again, and the host has in use what it had before: pages that are pinned, and tables of
# IOMMUs. Files with random bytes, here and in the host, are what they were.
. ./second.sh

KEPT=/tmp/kept

# Each use of the host's kernel, as a line.
used() {
    ask in_use
    echo "$answer"
}

# The load has ended, by itself or killed, and has done something.
ended() {
    wait
    [ -s /tmp/load ]
}

# Nothing is left: the host has in use what it had with an idle function, and memory is what it was.
clean() {
    now=$(used)
    if [ "$now" != "$idle" ]; then
        echo "the host has in use: $now; before, $idle"
        return 1
    fi
    md5sum -c -s $KEPT.sum || { echo "memory of L2 has changed"; return 1; }
    ask run "md5sum -c -s $KEPT.sum"
    [ "${answer%% *}" = 0 ] || { echo "memory of L1 has changed: $answer"; return 1; }
    grep -q enabled /sys/kernel/debug/svm_demo/svm0/contexts && { echo "a context is at work"; return 1; }
    works
}

unbind() {
    load
    echo $FUNCTION >$DRIVER/unbind
    ended || return 1
    [ ! -e /dev/svm0 ] && echo $FUNCTION >$DRIVER/bind && there svm0 && clean
}

reset() {
    load
    echo 1 >/sys/bus/pci/devices/$FUNCTION/reset && ended && clean
}

killed() {
    load
    killall -KILL svmctl
    ended && clean
}

unplugged() {
    load
    unplug && ended && plug && clean
}

# The kernel asks QEMU to release the function, and waits for it.
withdrawn() {
    load
    ask run "echo $HOST_FUNCTION >$HOST_DRIVER/unbind"
    ended || return 1
    [ "${answer%% *}" = 0 ] || { echo "L1 does not unbind: $answer"; return 1; }
    [ ! -e /dev/svm0 ] || { echo "the function is still here"; return 1; }
    ask run "[ ! -e /sys/bus/pci/devices/$HOST_FUNCTION/driver ]"
    [ "${answer%% *}" = 0 ] || { echo "L1 has not unbound it"; return 1; }
    ask run "echo $HOST_FUNCTION >$HOST_DRIVER/bind"
    [ "${answer%% *}" = 0 ] || { echo "L1 does not bind: $answer"; return 1; }
    plug && clean
}

keep="dd if=/dev/urandom of=$KEPT bs=1M count=16 2>&1 && md5sum $KEPT >$KEPT.sum"
eval "$keep"
works
idle=$(used)
echo "the host has in use: $idle"
ask life
case $answer in
1)
    ask run "$keep"
    try "the driver is unbound during a load" unbind
    try "the function is reset during a load" reset
    try "the load is killed" killed
    try "the function is unplugged during a load" unplugged
    try "L1 takes the function away during a load" withdrawn
    load
    echo b >/proc/sysrq-trigger
    ;;
2)
    try "L2 has rebooted during a load" clean
    load
    ask kill
    ;;
3)
    try "L2's QEMU was killed during a load" clean
    exit 0
    ;;
esac
# What ends it has not come.
sleep 60
exit 1
