# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs QEMU, and does what its guest asks for, by a line on the guest's third serial port. If it has
# not ended by a time, it is asked where its processors are, for the output.
#
# usage: attend.sh SECONDS COMMAND...
#
# Each line of the guest is answered by one:
#   life          how many times this was asked: once for each start of the guest, if it is polite
#   qmp COMMAND   what QEMU answers to a command of its machine protocol
#   await EVENT   the event of that name, which QEMU tells after the last command, or will tell
#   kill          nothing: QEMU is killed, and started again
seconds=$1
shift
directory=/tmp/l2
mkdir "$directory" && cd "$directory" && mkfifo host.in host.out qmp.in qmp.out || exit 1
# Open both ways: nothing waits for the other end, and nothing comes to its end.
exec 3<>host.in 4<>host.out 5<>qmp.in 6<>qmp.out

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
        echo "L2 asks: $request" >&2
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
            name="\"${request#await }\""
            { grep -m 1 "$name" events || until_qemu_says "$name" "$name"; } >&3
            ;;
        kill)
            : >again
            kill -KILL "$(cat qemu)"
            ;;
        *) echo "not known: $request" >&3 ;;
        esac
    done
}

# Says where the processors are. Nobody else reads QEMU's answers by then.
examine() {
    sleep "$seconds" &
    trap "kill $!; exit" TERM
    wait "$!"
    kill "$attendant"
    echo "L2 has not ended after $seconds s. Its processors:"
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
while :; do
    rm -f again
    "$@" &
    qemu=$!
    echo "$qemu" >qemu
    echo '{"execute": "qmp_capabilities", "id": "capabilities"}' >&5
    wait "$qemu"
    status=$?
    [ -e again ] || break
done
kill "$attendant" "$examiner"
exit "$status"
