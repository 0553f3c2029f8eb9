#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The library as --enable-debug builds it, which checks each lock's rank and its own assertions and ends the program where one does not hold: on what takes all its locks.
# test-seconds: 2400
# shellcheck source=tests/vm/tap.sh
. "$TAGTSO_TREE/machine/box64.bash"
export TAGTSO_LIB=$TAGTSO_TREE/debug/libtagtso.so

if grep -qa 'lock rank: waits for' "$TAGTSO_LIB"; then ok "it checks the ranks of locks"; else not_ok "it checks the ranks of locks"; fi

# quiet SENTENCE COMMAND…: its own sentences are other tests'; here it must not end by an assertion, nor fail.
quiet() {
    local sentence=$1 status=0
    shift
    "$@" >log 2>&1 || status=$?
    if [ "$status" = 0 ] && ! grep -qE '^not ok|lock rank|please report' log; then ok "$sentence"; else
        echo "status $status:"
        grep -vE '^ok' log | tail -n 30 | sed 's/^/  /'
        not_ok "$sentence"
    fi
}
quiet "the cells, with stretches" env TAGTSO_STRETCH=256 "$TAGTSO_TESTS/cells"
quiet "a storm of signals, interpreted" env TAGTSO_THRESHOLD=0 "$TAGTSO_TESTS/storm" 100
quiet "a storm of signals, rewritten" env TAGTSO_THRESHOLD=1 "$TAGTSO_TESTS/storm" 100
quiet "native code in the window" "$TAGTSO_TESTS/native"
for program in memory forks; do
    quiet "amd64 $program" with "$guests/$program"
done
head -c 900000 "$amd64/bash" >data
quiet "zstd -T2" with "$amd64/zstd" -3 -T2 -B512K -q -f -o packed data
