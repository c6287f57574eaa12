# SPDX-License-Identifier: MIT OR Apache-2.0
# How scripts in guests report tests.

# Reports a test: its name, then what to run.
try() {
    name=$1
    shift
    status=ok
    "$@" >/tmp/said 2>&1 || status=failed
    cat /tmp/said
    said=$(tail -n 1 /tmp/said | tr -d '"\\\r')
    echo "{\"event\":\"test\",\"name\":\"$name\",\"status\":\"$status\",\"message\":\"$said\"}" \
        >>"$SVM_RESULTS"
}
