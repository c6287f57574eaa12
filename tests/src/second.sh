# SPDX-License-Identifier: MIT OR Apache-2.0
# What the scripts of second-level guests have in common: requests to the host (see attend.sh), and
# the function of the device.
. ./try.sh
exec 3<>/dev/ttyS2
stty raw -echo <&3

# The function in this guest, and in the host.
FUNCTION=0000:01:00.0
DRIVER=/sys/bus/pci/drivers/svm_demo
HOST_FUNCTION=0000:00:01.0
HOST_DRIVER=/sys/bus/pci/drivers/vfio-pci

# Where the function is plugged in, and what it is in the host (QEMU takes single quotes, too).
PLACE="'bus': 'root', 'host': '$HOST_FUNCTION', 'iommufd': 'iommufd0'"

# Asks the host for something.
ask() {
    echo "$*" >&3
    read -r answer <&3
    # QEMU's lines end in a carriage return.
    answer=$(echo "$answer" | tr -d '\r')
}

# One case, so that the results have it once.
works() { env -u SVM_RESULTS svmctl demo "page never touched"; }

# A function comes and goes: its name in QEMU, which is that of its device file, too.
there() { until [ -e "/dev/$1" ]; do usleep 20000; done; }

# A load of which some is done for certain.
load() {
    env -u SVM_RESULTS svmctl stress --duration 120s >/tmp/load 2>&1 &
    until grep -q enabled /sys/kernel/debug/svm_demo/svm0/contexts; do usleep 20000; done
}

# QEMU's answer is no error.
granted() {
    case $answer in *'"error"'*) echo "$answer"; return 1 ;; esac
}

leaves() {
    ask qmp "{'execute': 'device_del', 'arguments': {'id': '$1'}}"
    granted || return 1
    ask await DEVICE_DELETED
    echo "$answer"
    [ ! -e "/dev/$1" ]
}

# Its name, and where it is plugged in.
comes() {
    ask qmp "{'execute': 'device_add', 'arguments': {'driver': 'vfio-pci', 'id': '$1', $2}}"
    granted && there "$1"
}

unplug() { leaves svm0; }

plug() { comes svm0 "$PLACE" && works; }
