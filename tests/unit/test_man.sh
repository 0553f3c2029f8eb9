#!/bin/sh
# SPDX-License-Identifier: MIT
# Manual pages: they lint, and they say of every knob, counter and option what the tables and the command say.
# usage: tests/unit/test_man.sh        alone: TAGTSO_TEST_SRCDIR=TOP TAGTSO_TEST_BUILDDIR=BUILD tests/unit/test_man.sh
# shellcheck disable=SC2013 # names have no blanks
top=${TAGTSO_TEST_SRCDIR:-$(dirname "$0")/../..}
build=${TAGTSO_TEST_BUILDDIR:-$top}
status=0

fail() {
    echo "FAIL: $*" >&2
    status=1
}

# The lines of a page between one tag and the next.
item() { # PAGE NAME
    awk -v name="$2" '/^\.It / { on = 0 } $0 ~ "^\\.It (Va|Ev) " name "( |$)" { on = 1 } /^\.El/ { on = 0 } on' "$1"
}

pages_lint() {
    # Which pages are installed on this machine, and in which case mandoc says so, is no matter of ours.
    for page in "$top"/man/*.[1-8]; do
        lint=$(mandoc -Tlint -W style "$page" 2>&1 | grep -v -e 'referenced manual not found' -e 'outdated mandoc.db')
        [ -z "$lint" ] || fail "$lint"
    done
}

knobs_have_entries_with_their_defaults_and_values() {
    sed -n 's/^\(ENUM\|UINT\|TEXT\)(.*/&/p' "$top/shim/knobs.def" | while IFS= read -r row; do
        name=$(echo "$row" | sed 's/^[A-Z]*([a-z]*, "\([A-Z]*\)".*/\1/')
        entry=$(item "$top/man/libtagtso.7" "TAGTSO_$name")
        [ -n "$entry" ] || { echo "libtagtso.7: TAGTSO_$name: no entry"; continue; }
        case $row in
        UINT*)
            default=$(echo "$row" | awk -F', ' '{ print $3 }')
            range=$(echo "$row" | awk -F', ' '{ gsub("\"", "", $6); print $4 " to " $5 " " $6 "." }')
            echo "$entry" | grep -qF "default: $default" || echo "libtagtso.7: TAGTSO_$name: does not say 'default: $default'"
            echo "$entry" | grep -q "^${range%.}[.;]" || echo "libtagtso.7: TAGTSO_$name: does not say '${range%.}'"
            ;;
        ENUM*)
            default=$(echo "$row" | sed 's/^[^"]*"[A-Z]*", "\([^"]*\)".*/\1/')
            choices=$(echo "$row" | sed 's/^[^"]*"[A-Z]*", "[^"]*", "\([^"]*\)".*/\1/')
            echo "$entry" | grep -qF "default: $default" || echo "libtagtso.7: TAGTSO_$name: does not say 'default: $default'"
            for choice in $(echo "$choices" | tr , ' '); do
                echo "$entry" | grep -qw -e "$choice" || echo "libtagtso.7: TAGTSO_$name: does not name '$choice'"
            done
            ;;
        TEXT*)
            default=$(echo "$row" | sed 's/^[^"]*"[A-Z]*", "\([^"]*\)".*/\1/')
            echo "$entry" | grep -qF "default: ${default:-none}" || echo "libtagtso.7: TAGTSO_$name: does not say 'default: ${default:-none}'"
            ;;
        esac
    done >"$work/knobs"
    [ ! -s "$work/knobs" ] || fail "$(cat "$work/knobs")"
}

entries_are_of_knobs_that_exist() {
    for name in $(sed -n 's/^\.It Ev TAGTSO_\([A-Z]*\) Pq.*/\1/p' "$top/man/libtagtso.7"); do
        grep -q "^[A-Z]*([a-z]*, \"$name\"" "$top/shim/knobs.def" || fail "libtagtso.7: TAGTSO_$name: no such knob"
    done
}

counters_have_entries_and_are_in_the_schema() {
    for name in $(sed -n 's/^STAT(\([a-z_]*\),.*/\1/p' "$top/shim/stats.def"); do
        [ -n "$(item "$top/man/tagtso-report.5" "$name" | sed 1d)" ] || fail "tagtso-report.5: $name: no entry"
        grep -q "\"$name\": {\"type\"" "$top/man/tagtso-report.schema.json" || fail "schema: $name: not there"
    done
}

counters_that_are_documented_exist() {
    for name in $(sed -n '/^\.Ss Counters/,$s/^\.It Va \([a-z_]*\) Pq.*/\1/p' "$top/man/tagtso-report.5"); do
        grep -q "^STAT($name," "$top/shim/stats.def" || fail "tagtso-report.5: $name: no such counter"
    done
}

members_of_the_schema_have_entries() {
    command -v jq >/dev/null || return 0
    for name in $(jq -r '.properties | keys[]' "$top/man/tagtso-report.schema.json"); do
        [ -n "$(item "$top/man/tagtso-report.5" "$name")" ] || fail "tagtso-report.5: $name: no entry"
    done
}

options_of_the_command_have_entries() {
    [ -x "$build/tagtso" ] && [ -z "$TAGTSO_TEST_RUNNER" ] || return 0
    for option in $("$build/tagtso" --help | sed -n 's/^ *\(-[a-zA-Z]\)[ ,].*/\1/p; s/^  .*\(--[a-z]*\) .*/\1/p' | sed 's/^-//'); do
        grep -q "^\.It Fl \(.*, \)\?$option\( \|$\)" "$top/man/tagtso.1" || fail "tagtso.1: -$option: no entry"
    done
}

command -v mandoc >/dev/null || { echo "no mandoc: install mandoc" >&2; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
pages_lint
knobs_have_entries_with_their_defaults_and_values
entries_are_of_knobs_that_exist
counters_have_entries_and_are_in_the_schema
counters_that_are_documented_exist
members_of_the_schema_have_entries
options_of_the_command_have_entries
exit $status
