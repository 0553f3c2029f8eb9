#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The launcher, the knobs and the report, as a user meets them.
# test-seconds: 600
# shellcheck source=tests/machine/box64.bash
. "$TAGTSO_TREE/machine/box64.bash"
tagtso() { env PATH="$PATH" "${TAGTSO_TEST_COMMAND:-tagtso}" -l "$TAGTSO_LIB" "$@"; }
echo "a line to compress, a line to compress" >data
work=("$amd64/zstd" -T2 -q -c data)
without "${work[@]}" >wanted

# lines TEXT FILE: of the preload's own lines, how many there are and how many hold TEXT
lines() { echo "$(grep -c '^tagtso: ' "$2") $(grep '^tagtso: ' "$2" | grep -cF -e "$1")"; }

tagtso -s report.json --strict -- box64 "${work[@]}" >got 2>err
is "tagtso -- COMMAND runs the command with the preload" "$? $(cmp got wanted && echo same)" "0 same"
check "the report of tagtso -s is read by tagtso report" "${TAGTSO_TEST_COMMAND:-tagtso}" report report.json >/dev/null
check "the report says that zstd's threads were seen" grep -q '"state": *"active"' report.json
tagtso -- box64 "$amd64/dash" -c 'exit 33'
is "tagtso keeps the command's status" "$?" 33
tagtso -- box64 "$amd64/dash" -c 'kill -TERM $$'
is "tagtso keeps the status of a command that a signal ended" "$?" 143
tagtso -m off -v -- box64 "${work[@]}" >got 2>err
is "with -m off the program runs, and one line says inert" "$? $(cmp got wanted && echo same) $(lines inert err)" "0 same 1 1"
tagtso -v -- box64 "${work[@]}" >got 2>err
is "with -v the preload says what it decided" "$? $([ "$(lines enforce err | cut -d' ' -f2)" -ge 1 ] && echo said)" "0 said"

preload() { env LD_PRELOAD="$TAGTSO_LIB" "$@" box64 "${work[@]}"; }
knob() { # SENTENCE NAME=VALUE TEXT
    preload "$2" >got 2>err
    is "$1: one line, and the program runs" "$? $(cmp got wanted && echo same) $(lines "$3" err)" "0 same 1 1"
    preload "$2" TAGTSO_STRICT=1 >got 2>err
    is "$1: status 125 with TAGTSO_STRICT=1" "$? $(wc -c <got) $(lines "$3" err)" "125 0 1 1"
}
knob "an unknown knob" TAGTSO_NONSENSE=1 TAGTSO_NONSENSE
knob "a number out of range" TAGTSO_THRESHOLD=1000001 TAGTSO_THRESHOLD
knob "a number that is none" TAGTSO_WINDOW=many TAGTSO_WINDOW
knob "an unknown choice" TAGTSO_MODE=sometimes TAGTSO_MODE
knob "a backing file that cannot be made" TAGTSO_BACKING=tmpfs:/nonexistent backing

preload TAGTSO_BACKING=tmpfs:/dev/shm TAGTSO_STATS=backing.json TAGTSO_STRICT=1 >got 2>err
is "guest memory on a tmpfs works" "$? $(cmp got wanted && echo same) $(find /dev/shm -mindepth 1 | wc -l)" "0 same 0"
preload TAGTSO_NATIVE=share TAGTSO_STRICT=1 >got 2>err
is "TAGTSO_NATIVE=share works" "$? $(cmp got wanted && echo same)" "0 same"
preload TAGTSO_STACKS=1 TAGTSO_STRICT=1 >got 2>err
is "TAGTSO_STACKS=1 works" "$? $(cmp got wanted && echo same)" "0 same"
preload TAGTSO_MODE=observe TAGTSO_STATS=observe.json >got 2>err
is "TAGTSO_MODE=observe rewrites nothing" "$? $(cmp got wanted && echo same) $(grep -c '"sites_rewritten": *0\b' observe.json)" "0 same 1"
preload TAGTSO_MODE=relax >got 2>err
is "TAGTSO_MODE=relax is refused for box64, in one line" "$? $(cmp got wanted && echo same) $(lines relax err)" "0 same 1 1"

preload TAGTSO_STATS=- >got 2>err
is "TAGTSO_STATS=- writes the report to standard error" "$? $(cmp got wanted && echo same) $(grep -c '"schema"' err)" "0 same 1"
"${TAGTSO_TEST_COMMAND:-tagtso}" report err >/dev/null 2>err2
is "and nothing else" "$? $(cat err2)" "0 "
preload TAGTSO_STATS=dir-%e-%p.json >got 2>err
is "TAGTSO_STATS: %e is the program, %p the process" "$? $(find . -name 'dir-[a-z]*-[0-9]*.json' | wc -l)" "0 1"
preload TAGTSO_STATS=/nonexistent/report >got 2>err
is "a report that cannot be written is one line, and the status stays" "$? $(cmp got wanted && echo same) $(lines /nonexistent/report err)" "0 same 1 1"
tagtso -o THRESHOLD=0 -s never.json -- box64 "${work[@]}" >got 2>err
is "tagtso -o sets a knob" "$? $(grep -c '"threshold": *0\b' never.json)" "0 1"

env LD_PRELOAD="$TAGTSO_LIB" TAGTSO_STATS=native.json TAGTSO_STRICT=1 cat data >got 2>err
is "a program that is no emulator runs, silently and without a report" "$? $(cmp got data && echo same) $(wc -c <err) $(ls native.json 2>/dev/null)" "0 same 0 "
