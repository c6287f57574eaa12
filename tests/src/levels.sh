# SPDX-License-Identifier: MIT OR Apache-2.0
# What the second-level guest does in the part of the tests that is about it. It lives three times,
# and asks its host how often it did: it reboots, and then its QEMU is killed.
. ./second.sh

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
