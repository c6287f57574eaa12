# SPDX-License-Identifier: MIT OR Apache-2.0
# What the second-level guest does in the part of the tests that is about it. It lives three times,
# and asks its host how often it did: it reboots, and then its QEMU is killed.
. ./second.sh

# The host's other function. No driver of the host has it.
HOST_OTHER=0000:00:02.0
GIVEN=/sys/bus/pci/devices/$HOST_OTHER

# Both functions work at a time.
both() {
    env -u SVM_RESULTS svmctl --device /dev/svm0 demo "page never touched" >/tmp/first 2>&1 &
    first=$!
    env -u SVM_RESULTS svmctl --device /dev/svm1 demo "page never touched" || return 1
    wait $first || { cat /tmp/first; return 1; }
}

# The other function is plugged in, by an iommufd, and both work.
plug_other() {
    ask run "echo vfio-pci >$GIVEN/driver_override && echo $HOST_OTHER >/sys/bus/pci/drivers_probe; \
        ls $GIVEN/vfio-dev"
    case $answer in 0\ *) ;; *) echo "$answer"; return 1 ;; esac
    comes svm1 "'bus': 'other', 'host': '$HOST_OTHER', 'iommufd': '$1'" && both
}

# The same with an iommufd of its own, which goes with it.
plug_other_apart() {
    ask qmp '{"execute": "object-add", "arguments": {"qom-type": "iommufd", "id": "iommufd1"}}'
    granted && plug_other iommufd1
}

unplug_other_apart() {
    leaves svm1 || return 1
    ask qmp '{"execute": "object-del", "arguments": {"id": "iommufd1"}}'
    granted && works
}

ask life
case $answer in
1)
    svmctl demo || exit 1
    try "the function is unplugged" unplug
    try "it is plugged in again, and works" plug
    try "two functions of one iommufd work at a time" plug_other iommufd0
    try "one of them leaves, and the other works" eval "leaves svm1 && works"
    try "two functions of two iommufds work at a time" plug_other_apart
    try "one leaves with its iommufd, and the other works" unplug_other_apart
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
