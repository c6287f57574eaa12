# SPDX-License-Identifier: MIT OR Apache-2.0
# What the second-level guest does in the part of the tests that is about it. It lives three times,
# and asks its host how often it did: it reboots, and then its QEMU is killed.
exec 3<>/dev/ttyS2
stty raw -echo <&3

# Where the function is plugged in, and what it is in the host (QEMU takes single quotes, too).
PLACE="'bus': 'root', 'host': '0000:00:01.0', 'iommufd': 'iommufd0'"

# Asks the host for something, see attend.sh.
ask() {
    echo "$*" >&3
    read -r answer <&3
}

# Reports a test: its name, then what to run.
try() {
    name=$1
    shift
    status=ok
    "$@" >/tmp/said 2>&1 || status=failed
    cat /tmp/said
    # QEMU's lines end in a carriage return.
    said=$(tail -n 1 /tmp/said | tr -d '"\\\r')
    echo "{\"event\":\"test\",\"name\":\"$name\",\"status\":\"$status\",\"message\":\"$said\"}" \
        >>"$SVM_RESULTS"
}

# One case, so that the results have it once.
works() { env -u SVM_RESULTS svmctl demo "page never touched"; }

there() { until [ -e /dev/svm0 ]; do usleep 20000; done; }

# A load of which some is done for certain.
load() {
    env -u SVM_RESULTS svmctl stress --duration 120s >/tmp/load 2>&1 &
    until grep -q enabled /sys/kernel/debug/svm_demo/svm0/contexts; do usleep 20000; done
}

unplug() {
    ask qmp '{"execute": "device_del", "arguments": {"id": "svm0"}}'
    case $answer in *'"error"'*) echo "$answer"; return 1 ;; esac
    ask await DEVICE_DELETED
    echo "$answer"
    [ ! -e /dev/svm0 ]
}

plug() {
    ask qmp "{'execute': 'device_add', 'arguments': {'driver': 'vfio-pci', 'id': 'svm0', $PLACE}}"
    case $answer in *'"error"'*) echo "$answer"; return 1 ;; esac
    there && works
}

ask life
case $answer in
1)
    svmctl demo || exit 1
    try "the function is unplugged" unplug
    try "it is plugged in again, and works" plug
    load
    echo b >/proc/sysrq-trigger
    ;;
2)
    try "L2 rebooted during a load, and the function works" works
    load
    ask kill
    ;;
3)
    try "its QEMU was killed during a load, and another has the function" works
    exit 0
    ;;
esac
# What ends it has not come.
sleep 60
exit 1
