# SPDX-License-Identifier: MIT OR Apache-2.0
# Functions in places from which a request with a PASID has a way, and in places from which it may
# have none. Reports each place as a test.

report() {
    said=$(echo "$2" | tail -n 1 | tr -d '"\\\r')
    echo "{\"event\":\"test\",\"name\":\"$place\",\"status\":\"$1\",\"message\":\"$said\"}" \
        >>"$SVM_RESULTS"
}
fail() { report failed "$1"; echo "$1"; exit 1; }
node() { dmesg | sed -n "s/.*svm_demo $1: \(svm[0-9]*\): interface.*/\1/p"; }
# What is tried here are places, and no cases of the demonstration.
tried() { env -u SVM_RESULTS svmctl --device /dev/$(node $1) demo heap 'page never touched' >/tmp/demo 2>&1; }

place="a function behind a root port has PASIDs"
# The numbers of the buses are the firmware's choice.
cd /sys/devices/pci0000:00 || fail "there is no bus"
port=$(basename 0000:00:10.0/0000:*:00.0)
downstream=$(basename 0000:00:11.0/0000:*:00.0/0000:*:00.0)
switch=$(basename 0000:00:11.0/0000:*:00.0/0000:*:00.0/0000:*:00.0)
second=0000:00:12.1
for device in $port $switch $second; do
    [ "$(node $device)" ] || fail "$device has no driver: $(dmesg | grep svm)"
done
tried $port || { cat /tmp/demo; fail "$port behind a root port failed"; }
svmctl doctor $port >/tmp/doctor || { cat /tmp/doctor; fail "the doctor finds fault with $port"; }
report ok "$port"

names() {
    tried $1 && fail "$1 works"
    svmctl doctor $1 >/tmp/doctor && { cat /tmp/doctor; fail "the doctor finds nothing at $1"; }
    grep -qF "$2" /tmp/doctor || { cat /tmp/doctor; fail "the doctor does not name: $2"; }
    report ok "$2"
}
place="a function behind a port without ACS has no PASIDs"
names $switch "$downstream (downstream port) has no ACS"
place="a function beside others without ACS has no PASIDs"
names $second "$second (integrated endpoint) has no ACS"
