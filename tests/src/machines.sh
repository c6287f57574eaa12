# SPDX-License-Identifier: MIT OR Apache-2.0
# Machines in a guest that is a host, which are given the function by vfio-pci and never run: QEMU
# refuses to start one, or the monitor of one looks at what its guest would find.
#
# usage: machines.sh TEST...
#
# The tests are the functions below.
. ./try.sh

FUNCTION=0000:00:01.0
DIRECTORY=/sys/bus/pci/devices/$FUNCTION

# The units: one that hands first stages down, and one whose mappings are copied. The host's has
# PASIDs of 20 bits, if nothing else is said.
NESTING=svm-vtd,caching-mode=on,ssts=off,intremap=on,pasid-bits=${PASID_BITS-20}
COPYING=svm-vtd,caching-mode=on,ssts=on,fsts=off,snoop-control=off,intremap=on

# Where the function is in a machine, and that place in the memory in which PCIEXBAR puts
# configuration space.
PLACE=addr=2
EXTENDED=0xb0010100

# Starts a machine: its unit, options of its function, arguments. The monitor has what comes in.
machine() {
    unit=$1
    function=$2
    shift 2
    qemu-with-svm-demo -no-user-config -nodefaults -display none -S -m 64M \
        -M q35,kernel-irqchip=split -accel kvm -device "$unit" -object iommufd,id=iommufd0 "$@" \
        -device "vfio-pci,host=$FUNCTION,$function" -monitor stdio 2>&1
}

# The machine is not started, for a reason: its words, then the machine.
refused() {
    words=$1
    shift
    if echo quit | machine "$@" >/tmp/machine; then
        echo "it was not refused"
        return 1
    fi
    said_with "$words"
}

# The machine has said this, which is repeated.
said_with() {
    grep -F "$1" /tmp/machine && return
    cat /tmp/machine
    echo "it did not say: $1"
    return 1
}

# The machine has not said this.
silent_of() {
    ! grep -F "$1" /tmp/machine
}

# The ids of the extended capabilities that a guest of the machine finds, in a line.
capabilities() {
    {
        echo "o /w 0xcf8 0x80000060"
        echo "o /w 0xcfc 0xb0000001"
        echo "xp /960wx $EXTENDED"
        echo quit
    } | machine "$@" >/tmp/machine || { cat /tmp/machine; return 1; }
    # A word a line.
    tr -d '\r' </tmp/machine | sed -n 's/^ *0*b001[0-9a-f]*: *//p' | tr ' ' '\n' >/tmp/words
    at=0x100
    found=
    for _ in $(seq 48); do
        [ $((at)) -ne 0 ] || break
        word=$(sed -n "$(((at - 0x100) / 4 + 1))p" /tmp/words)
        [ -n "$word" ] || break
        # The first one stays where it is, and has no id if it is hidden.
        [ $((word & 0xffff)) -eq 0 ] || found="$found $(printf %04x $((word & 0xffff)))"
        at=$((word >> 20 & 0xffc))
    done
    echo "$found"
}

# A capability is there, or is not: its id, then the ids.
has() {
    case " $2 " in *" $1 "*) return 0 ;; esac
    return 1
}

ATS=000f
PASID=001b

# The machine's guest finds ATS, and nobody is warned of it.
sees_ats() {
    found=$(capabilities "$@")
    echo "$found"
    has $ATS "$found" && silent_of ATS
}

# It does not find ATS, but PASID.
sees_no_ats() {
    found=$(capabilities "$@")
    echo "$found"
    has $PASID "$found" && ! has $ATS "$found"
}

# What QEMU says when `auto` hides it.
MASKED="host kernel reports ATS unsupported; ATS capability will be masked"

hidden_with_a_warning() {
    sees_no_ats "$@" && said_with "$MASKED"
}

hidden_without_a_word() {
    sees_no_ats "$@" && silent_of ATS
}

# All other capabilities are where they are with ATS.
hidden_alone() {
    with=$(capabilities "$1" "$2,ats=on")
    without=$(capabilities "$1" "$2,ats=off")
    echo "$without, of $with"
    has $ATS "$with" && [ "$(echo "$with" | sed "s/ $ATS//")" = "$without" ] && silent_of ATS
}

BY_IOMMUFD=$PLACE,iommufd=iommufd0

# The host can use ATS.
with_ats() {
    try "ats=on: a host with ATS, and its guest sees ATS" sees_ats "$NESTING" "$BY_IOMMUFD,ats=on"
    try "ats=auto: a host with ATS, and its guest sees ATS" sees_ats "$NESTING" "$BY_IOMMUFD"
    try "ats=off: a host with ATS, and its guest sees all but ATS" hidden_alone "$NESTING" \
        "$BY_IOMMUFD"
}

# The host cannot.
without_ats() {
    try "ats=on: a host without ATS, and the function is refused" refused \
        "ATS requested but not supported by kernel" "$NESTING" "$BY_IOMMUFD,ats=on"
    try "ats=auto: a host without ATS, and its guest sees none" hidden_with_a_warning "$NESTING" \
        "$BY_IOMMUFD"
    try "ats=off: a host without ATS, and its guest sees none" hidden_without_a_word "$NESTING" \
        "$BY_IOMMUFD,ats=off"
}

# The host's unit is narrower than that of the machine.
narrow() {
    try "a unit offers no more than the host's has" refused "use pasid-bits=$PASID_BITS" \
        "$NESTING,pasid-bits=20" "$BY_IOMMUFD"
}

refusals() {
    try "first stages are not handed down by a container of VFIO" refused \
        "Need IOMMUFD backend when fsts=on" "$NESTING" $PLACE
    try "copies need caching mode" refused \
        "Device assignment is not allowed without enabling caching-mode=on" \
        "$COPYING,caching-mode=off" "$BY_IOMMUFD"
    try "copies have no snoop bit" refused "snoop-control=off" "$COPYING,snoop-control=on" \
        "$BY_IOMMUFD"
    try "first stages are not handed down behind a bridge" refused \
        "the device is behind a PCI bridge" "$NESTING" \
        "bus=conventional,addr=1,iommufd=iommufd0" -device pcie-pci-bridge,id=conventional
}

{ cat "$DIRECTORY/vendor" && echo vfio-pci >"$DIRECTORY/driver_override"; } || exit 1
[ ! -e "$DIRECTORY/driver" ] || echo $FUNCTION >"$DIRECTORY/driver/unbind" || exit 1
echo $FUNCTION >/sys/bus/pci/drivers_probe && ls "$DIRECTORY/vfio-dev" || exit 1
for test in "$@"; do "$test" || exit 1; done
