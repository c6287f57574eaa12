# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs QEMU, and does what its guest asks for, by a line on the guest's third serial port. If it has
# not ended by a time, it is asked where its processors are, for the output.
#
# usage: attend.sh NAME SECONDS COMMAND...
#
# Each line of the guest is answered by one:
#   life          how many times this was asked: once for each start of the guest, if it is polite
#   qmp COMMAND   what QEMU answers to a command of its machine protocol
#   await EVENT   the event of that name, which QEMU tells after the last command, or will tell
#   kill          nothing: QEMU is killed, and started again
#   run COMMAND   the exit status of a line of shell that runs here, and the last line of its output
#   in_use        what the kernel has in use for the function: pages that are pinned, and pages of the
#                 tables of IOMMUs
#
# Each time that QEMU has ended, it must have left nothing in the kernel: no page is pinned, and no
# more pages are tables than when it ended first. (The function's own PASID table stays.) Beside a
# neighbour nobody can tell what is whose.
name=$1
seconds=$2
shift 2
directory=/tmp/$name
mkdir "$directory" && cd "$directory" && mkfifo host.in host.out qmp.in qmp.out said || exit 1
# Open both ways: nothing waits for the other end, and nothing comes to its end.
exec 3<>host.in 4<>host.out 5<>qmp.in 6<>qmp.out 7<>said

in_use() {
    # Each processor keeps a part of these counts to itself until it is asked.
    echo 1 >/proc/sys/vm/stat_refresh
    awk '/^nr_foll_pin_acquired / { pinned += $2 }
         /^nr_foll_pin_released / { pinned -= $2 }
         /^nr_iommu_pages / { tables = $2 }
         END { print pinned + 0, "pages pinned,", tables + 0, "of tables" }' /proc/vmstat
}

# Reads lines of QEMU, and keeps its events, until one contains either text; prints that one.
until_qemu_says() {
    while read -r line <&6; do
        case $line in
        *'"capabilities"'*) continue ;;
        *'"event"'*) echo "$line" >>events ;;
        esac
        case $line in *"$1"* | *"$2"*) break ;; esac
    done
    echo "$line"
}

attend() {
    lives=0
    while read -r request <&4; do
        echo "$name asks: $request" >&2
        case $request in
        life)
            lives=$((lives + 1))
            echo "$lives" >&3
            ;;
        qmp\ *)
            : >events
            echo "${request#qmp }" >&5
            until_qemu_says '"return"' '"error"' >&3
            ;;
        await\ *)
            event="\"${request#await }\""
            { grep -m 1 "$event" events || until_qemu_says "$event" "$event"; } >&3
            ;;
        kill)
            : >again
            kill -KILL "$(cat qemu)"
            ;;
        in_use) in_use >&3 ;;
        run\ *)
            said=$(eval "${request#run }" 2>&1)
            echo "$? $(echo "$said" | tail -n 1)" >&3
            ;;
        *) echo "not known: $request" >&3 ;;
        esac
    done
}

# Passes on what QEMU says. One whose processors KVM cannot run any more only stops them: it is killed
# when it has said where they are.
listen() {
    while read -r line <&7; do
        echo "$line"
        case $line in
        "KVM internal error"* | "error: kvm run failed"*) lost=yes ;;
        Code=*)
            [ -z "$lost" ] || {
                echo "KVM cannot run $name any more: its QEMU is killed"
                kill -KILL "$(cat qemu)"
            }
            ;;
        esac
    done
}

# Says where the processors are. Nobody else reads QEMU's answers by then.
examine() {
    sleep "$seconds" &
    trap "kill $!; exit" TERM
    wait "$!"
    kill "$attendant"
    echo "$name has not ended after $seconds s. Its processors:"
    for command in "info registers -a" "x /8i \$rip" "x /48xg \$rsp"; do
        echo '{"execute": "human-monitor-command",' \
            "\"arguments\": {\"command-line\": \"$command\"}}" >&5
        until_qemu_says '"return"' '"error"' | sed 's/\\r\\n/\n/g'
    done
}

: >events
attend &
attendant=$!
examine >&2 &
examiner=$!
listen >&2 &
listener=$!
while :; do
    rm -f again
    "$@" 2>said &
    qemu=$!
    echo "$qemu" >qemu
    echo '{"execute": "qmp_capabilities", "id": "capabilities"}' >&5
    wait "$qemu"
    status=$?
    after=$(in_use)
    before=${before-$after}
    if [ ! -e /tmp/neighbour ] && { [ "$after" != "$before" ] || [ "${after%% *}" != 0 ]; }; then
        echo "QEMU has ended and left something in the kernel: $after; when it ended first, $before"
        status=1
        break
    fi
    [ -e again ] || break
done
kill "$attendant" "$examiner" "$listener"
exit "$status"
