#!/bin/sh
# SPDX-License-Identifier: MIT
# HACKING.md's table of instruction classes is what interp/encodings.def says.
# usage: tests/unit/decode_table.sh        checks it; with -w: renews it; with -p: prints it
top=${TAGTSO_TEST_SRCDIR:-$(dirname "$0")/../..}
begin='<!-- made by tests/unit/decode_table.sh -w -->' end='<!-- end -->'

# One line per row of the table: class, format, group, name.
rows() {
    {
        printf '%s\n' '#define GROUP(name) GROUP_BEGINS name ROW_END' \
            '#define ENCODING(mask, value, cls, format, size, flags, name) ROW cls format name ROW_END'
        cat "$top/interp/encodings.def"
    } | ${CPP:-cc -E} -P -x c - | tr '\n' ' ' | sed 's/ROW_END/&\n/g' | sed 's/" *"//g; s/"//g' |
        awk '$1 == "GROUP_BEGINS" { group = $2 }
            $1 == "ROW" { cls = $2; format = $3; sub(/^ *ROW [A-Z_]* [A-Z_0-9]* /, ""); sub(/ ROW_END *$/, ""); print cls, format, group, $0 }'
}

table() {
    { sed -n 's/.*\[TAGTSO_\([A-Z_]*\)\] = "\(.*\)",/@ \1 \2/p' "$top/interp/decode.c"; rows; } | awk '
    $1 == "@" { called[$2] = $3; next }
    function how(cls, format) {
        if (cls == "TAG") return "not checked by the architecture: never traps"
        if (cls == "UNKNOWN") return "not executable by user space"
        if (cls ~ /_EX/) return "own code: its loop as a unit, the loop elsewhere, or one by one"
        if (cls != "OUT_OF_LINE") return "own code"
        if (format == "NEAR") return "out of line; the pages around the fault are shared first"
        if (format == "COPY" || format == "FILL") return "out of line; all that is left to copy or to set is shared first"
        return "out of line; the page of each active element is shared first"
    }
    function kind(format, group) { return format ~ /^SVE_/ ? "elements" : format == "FILL" ? "COPY" : group ~ /^S[VM]E$/ ? group : format }
    {
        cls = $1; format = $2; group = $3
        $1 = $2 = $3 = ""
        gsub(/\([^)]*\)/, "")
        key = cls == "OUT_OF_LINE" ? cls " " kind(format, group) : cls
        if (!(key in names)) { order[++n] = key; text[key] = how(cls, format) }
        count = split($0, parts, ",")
        for (i = 1; i <= count; i++) {
            gsub(/^ +| +$/, "", parts[i])
            if (parts[i] ~ /^([HSDQ]|post-index)$/) continue # "LDR B, H, S, D"; "LD1R, post-index"
            sub(/ [BSQ]$/, " of SIMD\\&FP", parts[i])
            gsub(/  +/, " ", parts[i])
            if (parts[i] != "" && !((key, parts[i]) in seen)) {
                seen[key, parts[i]] = 1
                names[key] = names[key] (names[key] == "" ? "" : ", ") parts[i]
            }
        }
    }
    END {
        print "| class | instructions | executed |"
        print "|---|---|---|"
        for (pass = 0; pass < 2; pass++)
            for (i = 1; i <= n; i++) {
                cls = order[i]; sub(/ .*/, "", cls)
                if ((cls == "OUT_OF_LINE" || cls == "TAG" || cls == "UNKNOWN") != pass) continue
                family = order[i] ~ / (SVE|elements)$/ ? "SVE: " : order[i] ~ / SME$/ ? "SME: " : ""
                print "| " called[cls] " | " family names[order[i]] " | " text[order[i]] " |"
            }
    }' | sed 's/\*/\\*/g'
}

document() {
    awk -v begin="$begin" -v end="$end" -v table="$1" '
    $0 == begin { print; print ""; while ((getline line <table) > 0) print line; print ""; on = 1 }
    $0 == end { on = 0 }
    !on || $0 == end && $0 != begin { if ($0 != begin) print }' "$top/HACKING.md"
}

command -v "$(echo "${CPP:-cc}" | cut -d' ' -f1)" >/dev/null || { echo "no C preprocessor: set CPP" >&2; exit 77; }
new=$(mktemp)
trap 'rm -f "$new" "$new.document"' EXIT
table >"$new"
[ "$(wc -l <"$new")" -gt 10 ] || { echo "FAIL: encodings.def was not read" >&2; exit 1; }
[ "${1-}" != -p ] || { cat "$new"; exit 0; }
document "$new" >"$new.document"
if [ "${1-}" = -w ]; then
    cat "$new.document" >"$top/HACKING.md"
elif ! cmp -s "$new.document" "$top/HACKING.md"; then
    diff "$top/HACKING.md" "$new.document" >&2
    echo "FAIL: HACKING.md's table is not encodings.def's: tests/unit/decode_table.sh -w" >&2
    exit 1
fi
