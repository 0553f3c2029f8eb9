#!/bin/sh
# SPDX-License-Identifier: MIT
# Behaviour of the tagtso command. What needs the library's own machine is only asked there.
# usage: tests/unit/test_launcher.sh   alone: TAGTSO_TEST_BUILDDIR=BUILD tests/unit/test_launcher.sh; installed: tagtso is found in PATH
build=${TAGTSO_TEST_BUILDDIR:-}
tagtso=tagtso
[ -z "$build" ] || tagtso=$build/tagtso
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

ok() { echo "ok - $1"; }
not_ok() {
    echo "not ok - $1"
    sed 's/^/#   /' "$work/out" "$work/err"
    failures=1
}

# run ARGUMENT…: $status, $work/out and $work/err are what it gave. A word of TAGTSO_TEST_RUNNER runs programs of another machine.
run() {
    # shellcheck disable=SC2086 # the runner is words
    $TAGTSO_TEST_RUNNER "$tagtso" "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
}

# says SENTENCE STATUS TEXT ARGUMENT…: ends with STATUS, and one line of its error output holds TEXT.
says() {
    sentence=$1 wanted=$2 text=$3
    shift 3
    run "$@"
    if [ "$status" = "$wanted" ] && grep -qF -e "$text" "$work/err" && [ "$(wc -l <"$work/err")" = 1 ]; then ok "$sentence"; else
        echo "status $status, wanted $wanted; wanted text: $text"
        not_ok "$sentence"
    fi
}

# prints SENTENCE TEXT ARGUMENT…: ends with 0, says nothing on standard error, and its output holds TEXT.
prints() {
    sentence=$1 text=$2
    shift 2
    run "$@"
    if [ "$status" = 0 ] && grep -qF -e "$text" "$work/out" && [ ! -s "$work/err" ]; then ok "$sentence"; else not_ok "$sentence"; fi
}

# ---- anywhere

prints "--version names the version" "tagtso " --version
prints "--help shows the options" "-o NAME=VALUE" --help
prints "knobs lists each knob" TAGTSO_THRESHOLD knobs
TAGTSO_THRESHOLD=77 prints "knobs shows what the environment sets" "now 77" knobs
prints "knobs --json is JSON" '"name": "TAGTSO_STRICT"' knobs --json
if command -v jq >/dev/null; then
    if jq -e 'length > 10 and all(.[]; .name and .kind and .text and has("default"))' "$work/out" >/dev/null; then
        ok "every knob of --json is complete"
    else not_ok "every knob of --json is complete"; fi
fi

says "no command is an error" 125 "no command given"
says "a bad mode is named with the good ones" 125 "TAGTSO_MODE: 'fast' is not a choice: give one of auto, enforce" -m fast true
says "a bad number is named with its range" 125 "give 0 to 1000000 traps" -o THRESHOLD=12x true
says "a knob that does not exist gets the nearest name" 125 "did you mean TAGTSO_THRESHOLD?" -o treshold=1 true
says "-o without a value is an error" 125 "give NAME=VALUE" -o THRESHOLD true
says "knobs takes no other argument" 125 "tagtso -- knobs" knobs x
says "report wants one file" 125 "give one file" report
says "a report that is not there is named" 125 "$work/none" report "$work/none"
run --wrong true
if [ "$status" = 125 ] && grep -q -- --wrong "$work/err"; then ok "an unknown option is an error"; else not_ok "an unknown option is an error"; fi

echo '{"schema": 1, "program": "x"' >"$work/cut"
says "a cut report is an error that names the place" 125 "byte 29: not JSON" report "$work/cut"
echo '{"schema": 2}' >"$work/new"
says "a report of another schema is an error" 125 "schema 2" report "$work/new"
cat >"$work/report" <<'JSON'
{"schema": 1, "tagtso": "0", "pid": 4, "program": "zstd", "mode": "enforce", "emulator": "box64", "state": "active", "why": "", "knobs": {"threshold": 4},
 "counters": {"traps": 10581, "of_tomorrow": 3}, "sites": {"seen": 7, "by_form": {"local": 5}},
 "unknown": [{"word": "4c400000", "disassembly": "ld4 {v0.8b}", "count": 2}], "memory": {"site_table_bytes": 1234567}}
JSON
prints "report groups digits and explains counters" "10,581  traps                traps         tag check faults" report "$work/report"
prints "report shows counters that it does not know" "of_tomorrow" report "$work/report"
prints "report shows unknown instructions with their text" "4c400000  ld4 {v0.8b}" report "$work/report"
prints "report shows memory" "1,234,567  memory.site_table_bytes" report "$work/report"

# ---- where the library is

if ! run -l /nowhere true || grep -q 'no aarch64 machine' "$work/err"; then
    says "elsewhere than on aarch64 a command is not run, and one line says why" 125 "no aarch64 machine" true
    exit $failures
fi

says "a library that is not there is named" 125 "/nowhere" -l /nowhere true
says "a command that is not there ends with 127" 127 "command not found" no-such-command-anywhere
: >"$work/plain"
says "a file that is no program ends with 126" 126 "cannot be run" "$work/plain"

# The loader of another machine's programs complains of the library: the environment is what is looked at.
shown() { # SENTENCE TEXT ARGUMENT…
    sentence=$1 text=$2
    shift 2
    run "$@"
    if [ "$status" = 0 ] && grep -qxF -e "$text" "$work/out"; then ok "$sentence"; else not_ok "$sentence"; fi
}
shown "options set knobs" TAGTSO_THRESHOLD=9 -o threshold=9 env
shown "a knob may be named in full" TAGTSO_THRESHOLD=9 -o TAGTSO_THRESHOLD=9 env
shown "options overrule the environment" TAGTSO_MODE=off -m off env
shown "-s names the report" TAGTSO_STATS=/dev/null -s /dev/null env
shown "-v -v is level 2" TAGTSO_VERBOSE=2 -v -v env
shown "--strict makes doubts fatal" TAGTSO_STRICT=1 --strict env TAGTSO_STRICT=1
run sh -c 'exit 41'
if [ "$status" = 41 ]; then ok "the command's exit status is kept"; else not_ok "the command's exit status is kept"; fi
run -m off -- printf '%s\n' -v
if [ "$(cat "$work/out")" = -v ]; then ok "the command's own options are left to it"; else not_ok "the command's own options are left to it"; fi
before=$LD_PRELOAD
LD_PRELOAD=/first.so
export LD_PRELOAD
run env 2>/dev/null
LD_PRELOAD=$before
if grep -qE '^LD_PRELOAD=/.*libtagtso\.so:/first\.so$' "$work/out"; then ok "the library comes before what is preloaded already"; else
    not_ok "the library comes before what is preloaded already"
fi
exit $failures
