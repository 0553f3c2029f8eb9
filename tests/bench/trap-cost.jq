# SPDX-License-Identifier: MIT
# Makes the table of tests/bench/trap-cost, and the limits that it is held to.
#
# in: the lines of `trap_cost count`, slurped. $counts[0]: the file of the count plugin. $timed: the lines of `trap_cost time`, or none.

# Of runs with the same label, what was not disturbed by the shim's own thread or by other programs: the least.
($counts[0].runs | group_by(.label) | map({key: .[0].label, value: {all: {total: map(.all.total) | min}, other: {svc: map(.other.svc) | min}}}) | from_entries) as $run
| ($timed | map({key: "\(.row)", value: .}) | from_entries) as $time
| .[0] as $n
# Per access: what the calls cost beyond the same calls where nothing traps. sigreturn is the only system call that is not the shim's.
| def user($row; $what; $base; $times):
    if $run["\($row) \($what)"] then ($run["\($row) \($what)"].all.total - $run["\($row) \($base)"].all.total) / $times else null end;
  def traps($row; $what): ($run["\($row) \($what)"].other.svc - $run["\($row) none"].other.svc) / $n.traps;
  def over($a; $b): if $a and $b then $a / $b else null end;
  map(select(.row)) | map(.row as $r | {class, access: .text, instructions, where, absent: (.absent // false)} + if .absent then {} else {
    traps: traps($r; "ordered"),
    plain: {user: user($r; "plain"; "none"; $n.traps), time: $time["\($r)"].plain},
    ordered: {user: user($r; "ordered"; "none"; $n.traps), time: $time["\($r)"].ordered},
    first: {user: over(user($r; "first"; "unseen"; $n.fresh); user($r; "again"; "unseen"; $n.fresh)), time: $time["\($r)"].first}}
    | if .traps == 0 then .plain = {} | .ordered = {} | .first = {} else . end end)
| . as $rows
| map(select(.access == "8-byte load"))[0] as $load
| map(select(.absent | not) | .plain.over_load = {user: over(.plain.user; $load.plain.user), time: over(.plain.time; $load.plain.time)}) as $measured
| def limit($text; $most; $value): if $value == null then empty else {limit: $text, most: $most, measured: $value, holds: ($value <= $most)} end;
  def worst(f): map(f | numbers) | max;
  ($measured | map(select(.where == "own"))) as $own
| ($measured | map(select(.access | test("^16-byte vector (load|store)$|^atomic add$")))) as $vectors
| {schema: 1,
   bare: {user: user(0; "bare"; "none"; $n.traps)},
   rows: ($measured + map(select(.absent))),
   limits: [
     limit("8-byte load, plain, cached: user instructions from handler entry to sigreturn"; 250; $load.plain.user),
     limit("16-byte vector and atomic add: user instructions, times the load"; 1.5; $vectors | worst(.plain.over_load.user)),
     limit("first sight of a site: user instructions, times a cached one"; 4; $own | worst(.first.user)),
     limit("8-byte load, plain, cached: time, times a bare SIGSEGV"; 1.25; $load.plain.time),
     limit("16-byte vector and atomic add: time, times the load"; 1.5; $vectors | worst(.plain.over_load.time)),
     limit("first sight of a site: time, times a cached one"; 4; $own | worst(.first.time))]}
