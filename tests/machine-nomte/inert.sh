#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# On a processor without MTE the preload says so in one line, and the program runs.
# test-seconds: 600
# shellcheck source=tests/machine/box64.bash
. "$TAGTSO_TREE/machine/box64.bash"
echo "a line to compress, a line to compress" >data
work=("$amd64/zstd" -T2 -q -c data)
without "${work[@]}" >wanted

is "this processor has no MTE" "$(grep -cw mte /proc/cpuinfo)" 0
preload() { env LD_PRELOAD="$TAGTSO_LIB" "$@" box64 "${work[@]}"; }
preload >got 2>err
is "without MTE the program runs" "$? $(cmp got wanted && echo same)" "0 same"
is "and one line says that there is no MTE" "$(wc -l <err) $(grep -c '^tagtso: .*MTE' err)" "1 1"
preload TAGTSO_STRICT=1 >got 2>err
is "with TAGTSO_STRICT=1 the status is 125, and the line says why" "$? $(wc -c <got) $(wc -l <err) $(grep -c '^tagtso: .*MTE' err)" "125 0 1 1"
preload TAGTSO_STATS=report.json >got 2>err
is "the report says that the preload was inert" "$? $(grep -c '"state": *"inert"' report.json)" "0 1"
preload TAGTSO_MODE=off TAGTSO_STRICT=1 >got 2>err
is "switched off, nothing is said" "$? $(cmp got wanted && echo same) $(wc -c <err)" "0 same 0"
# shellcheck disable=SC2016 # for that shell
env LD_PRELOAD="$TAGTSO_LIB" TAGTSO_EMULATOR=generic sh -c 'echo "$(echo one | cat)" two' >got 2>err
is "a shell with children runs inert too" "$? $(cat got)" "0 one two"
if [ -d "$guests" ]; then
    for program in heap forks calls; do
        env LD_PRELOAD="$TAGTSO_LIB" box64 "$guests/$program" >got 2>err
        is "amd64 $program is right without MTE" "$? $(grep -c '^not ok' got)" "0 0"
    done
fi
