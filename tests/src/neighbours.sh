# SPDX-License-Identifier: MIT OR Apache-2.0
# Two second-level guests, each with a device: one is hostile, and the other checks each byte of a load
# from before the first hostile program to after the last.
. ./second.sh

# Asks the host for a file that one of the two makes and the other awaits.
made() { ask run "touch /tmp/$1"; }
await() { ask run "until [ -e /tmp/$1 ]; do usleep 100000; done"; }
is_made() {
    ask run "[ -e /tmp/$1 ]"
    [ "${answer%% *}" = 0 ]
}

case $1 in
hostile)
    await at-work
    svmctl test fuzz --scale 0.3
    status=$?
    made fuzzed
    exit $status
    ;;
checks)
    rounds=0
    until is_made fuzzed; do
        svmctl stress --duration 5s || { made at-work; exit 1; }
        rounds=$((rounds + 1))
        made at-work
    done
    # The first round was before.
    echo "$rounds rounds of the load, all right"
    [ "$rounds" -gt 1 ] && svmctl demo
    ;;
esac
