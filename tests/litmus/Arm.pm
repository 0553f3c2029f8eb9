# SPDX-License-Identifier: MIT
# The same program on Arm as tagtso has it done: accesses by mapping, tags as memory, and the transitions of alloc/owner-arm64.c.
#
# A tag is a location of its own (tx for x): STG is a store to it, a tag check a load from it with a branch to the access, which
# orders a store after its check and leaves a load unordered, as the architecture does (memtag/ holds that against herd7's tags).
# A thread that finds the tag of a transition under way traps and comes again, so executions that read it are left out: what
# remains of such a thread is the check that passed. Left out too is all that would order more: the check of the thread that
# made the transition, the trap, and the page's lock where a test does not need it to say who came first.
#
# Letters of a tag: 0 its first state (the owner's, or undecided; for a probe, shared), 1 busy, 2 the new owner's or shared, 3 busy, 4 shared or the
# first owner's again, 5 the claimer's.
package Arm;
use strict;
use warnings;
use Tso;

my %address = (x => 'X0', y => 'X1', z => 'X2', tx => 'X3', ty => 'X4', tz => 'X5', lock => 'X6');
my %call = (1 => 'DMB OSH', 2 => 'DSB OSH', 3 => 'DSB SY'); # membarrier.cat
my $point = 'DMB NSH';

# Instructions of one access. How it is ordered: halfst (interp/form.c put_ordered, interp/exec-arm64.c after_load,
# before_store, around_atomic), as an emulator emits it (mode relax): rcpc (FEX-Emu) or before (QEMU: a DMB before each access), or plain, as emitted: between
# barriers (box64's LOCK'd operations), or bare. exclusives: halfst, with loops of exclusives in place of SWPAL and CASAL (interp/patch-arm64.c write_loop); of a
# loop, the round that ends it: its store-exclusive has succeeded, or its comparison has failed.
sub access {
    my ($op, $order, $bare) = @_;
    my ($kind, $at, $reg) = ($op->{op}, "[$address{$op->{at} // 'x'}]", $op->{reg});
    my $r = $reg ? 'W' . (substr($reg, 1) + 10) : '';
    my @around = $order eq 'halfst' || !$bare ? ('DMB ISH') : ();

    if ($order =~ /^exclusives/) {
        my @before = $order eq 'exclusives-no-before' ? () : 'DMB ISH';
        my @behind = $order eq 'exclusives-no-behind' ? () : 'DMB ISH';
        return ("MOV W7,#$op->{value}", @before, "LDAXR $r,$at", "STLXR W$op->{status},W7,$at", @behind) if $kind eq 'X';
        return (@before, "LDAXR $r,$at", @behind) if $kind eq 'C';
        $order = 'halfst';
    }
    return ('DMB ISH') if $kind eq 'F';
    return ("MOV W7,#$op->{value}", @around, "SWPAL W7,$r,$at", @around) if $kind eq 'X';
    return ("MOV W7,#$op->{value}", @around, "STADDL W7,$at", @around) if $kind eq 'D';
    return ("MOV $r,#99", @around, "CASAL $r,W7,$at", @around) if $kind eq 'C';
    if ($op->{value}) {
        my $store = $kind eq 'L' || $order eq 'rcpc' ? 'STLR' : 'STR';
        return ("MOV W7,#$op->{value}", $order eq 'halfst' ? 'DMB ISHST' : $order eq 'before' ? 'DMB ISH' : (), "$store W7,$at");
    }
    my $load = $kind eq 'Q' ? 'LDAR' : $order eq 'rcpc' ? 'LDAPR' : 'LDR';
    return ($order eq 'before' ? 'DMB ISHLD' : (), "$load $r,$at", $order eq 'halfst' ? 'DMB ISHLD' : ());
}

# test(PROGRAM, NAME, GROUPS, OPTIONS): the litmus test. Second result: herd7's register names to ours.
# A group is one transition: { kind, at => [locations], owner, by, call }.
sub test {
    my ($program, $name, $groups, $option, @comment) = @_;
    my $self = { program => $program, groups => $groups, option => $option, order => $option->{order} // 'halfst', tag => {}, label => 0, filter => [], names => {} };
    my (@columns, $init);

    # A transition to a CPU is made by a thread that is not on it any more: one beside the program's.
    for my $t (0 .. $#{ $program->{threads} } + ((grep { $_->{kind} =~ /^cpu/ } @$groups) ? 1 : 0)) {
        push @columns, thread($self, $t);
        $init .= join(' ', map { "$t:$address{$_}=$_;" } sort keys %address) . "\n";
    }
    # The prober is a thread of its own, with nothing else to do.
    for my $g (grep { $_->{kind} eq 'probe' } @$groups) {
        push @columns, [stg(1, @{ $g->{at} }), 'MOV W7,#1', "STLR W7,[$address{lock}]"];
        $init .= join(' ', map { "$#columns:$address{$_}=$_;" } sort keys %address) . "\n";
    }
    my @shown = map { "$_;" } sort(keys %{ $self->{names} }), @{ $program->{locations} };
    return (Tso::litmus('AArch64', $name, $init, \@columns, \@shown, join(' /\\ ', @{ $self->{filter} }), @comment), $self->{names});
}

sub mark { return ($point) }

# A load of a tag, or of another thing of ours, whose value has to be in a set; a register for it.
sub look {
    my ($self, $t, $what, @wanted) = @_;
    my $r = 16 + ($self->{tag}{$t}++ || 0);
    push @{ $self->{filter} }, '(' . join(' \\/ ', map { "$t:X$r=$_" } @wanted) . ')';
    return ("W$r", ($what eq 'lock' ? 'LDAR' : 'LDR') . " W$r,[$address{$what}]");
}

sub stg {
    my ($tag, @at) = @_;
    return ("MOV W7,#$tag", map { "STR W7,[$address{\"t$_\"}]" } @at);
}

sub thread {
    my ($self, $t) = @_;
    my (@code, %done);
    my @ops = @{ $self->{program}{threads}[$t] // [] };
    my $o = $self->{option};

    for my $g (@{ $self->{groups} }) {
        # A thread that took over the owner's lease (tagtso_owner_lease), or was started by it (tagtso_wake): after it.
        if ($g->{kind} eq 'lease' && $t == $g->{heir} || $g->{kind} eq 'wake' && $t != $g->{owner}) {
            my (undef, $load) = look($self, $t, 'lock', 1);
            $load =~ s/LDAR/LDR/ if $g->{kind} eq 'lease';
            push @code, $load;
            push @code, 'DMB ISH' if $g->{kind} eq 'lease' && !$o->{no_start_barrier};
        }
    }
    for my $k (0 .. $#ops) {
        my $op = $ops[$k];
        $self->{names}{"$t:X" . (substr($op->{reg}, 1) + 10)} = $op->{reg} if $op->{reg};
        if ($op->{op} eq 'X' && $self->{order} =~ /^exclusives/) {
            $op = { %$op, status => 26 + $k };
            push @{ $self->{filter} }, "$t:X$op->{status}=0";
        }
        push @code, mark();
        for my $g (@{ $self->{groups} }) {
            push @code, wake_up($self, $g) if $g->{kind} eq 'wake' && $t == $g->{owner} && $k == $g->{split};
        }
        my ($g) = grep { my $g = $_; $op->{at} && grep { $_ eq $op->{at} } @{ $g->{at} } } @{ $self->{groups} };
        if (!$g) {
            push @code, access($op, $self->{order}, 1);
        } else {
            push @code, granule($self, $g, $t, $k, $op, \%done);
        }
    }
    push @code, mark();
    for my $g (@{ $self->{groups} }) {
        push @code, transition($self, $g, $t) if $g->{kind} =~ /^cpu/ && $t == $g->{by};
        # do_exit passes a full barrier before the thread's id is free
        push @code, $o->{no_end_barrier} ? () : 'DMB ISH', 'MOV W7,#1', "STR W7,[$address{lock}]", mark() if $g->{kind} eq 'lease' && $t == $g->{owner};
        push @code, wake_up($self, $g) if $g->{kind} eq 'wake' && $t == $g->{owner} && @ops == $g->{split};
    }
    return \@code;
}

# tagtso_window_wake tags what is resident, then clone starts the thread; a release at least.
sub wake_up {
    my ($self, $g) = @_;
    my $store = $self->{option}{no_start_release} ? 'STR' : 'STLR';
    return (stg(5, @{ $g->{at} }), 'MOV W7,#1', "$store W7,[$address{lock}]");
}

# An access to a granule with a transition.
sub granule {
    my ($self, $g, $t, $k, $op, $done) = @_;
    my $kind = $g->{kind};
    my $o = $self->{option};
    my $ordered = sub { access($op, $self->{order}, 1) };
    my $plain = sub { access($op, 'plain', $o->{bare}) };

    return probed($self, $g, $t, $k, $op, $done, $plain, $ordered) if $kind eq 'probe';
    return handed_back($self, $g, $t, $k, $op, $done, $plain) if $kind eq 'hand-over-back' && $t == $g->{owner};
    if ($t == $g->{by}) {
        my $first = !$done->{$g}++;
        my $own = $kind =~ /^hand/ ? $plain : $o->{plain_visitor} ? $plain : $ordered;
        return ($own->(), mark(), transition($self, $g, $t)) if $first && $o->{access_first};
        return transition($self, $g, $t), $own->() if $first;
        return checked($self, $t, $op, [2], [], $plain, $ordered) if $kind eq 'hand-over-back';
        return $kind eq 'hand-over+revoke' ? checked($self, $t, $op, [2], [4], $plain, $ordered) : $own->();
    }
    # Before a claim it was shared: nobody had it for himself.
    return checked($self, $t, $op, [], [0], $plain, $ordered) if $kind eq 'cpu-claim' && $t == $g->{owner};
    return checked($self, $t, $op, [0], [], $plain, $ordered) if $kind eq 'cpu-hand-over' && $t == $g->{owner};
    if ($t == ($g->{owner} // -1) || $kind eq 'lease' && $t == $g->{heir}) {
        return claimed($self, $g, $t, $op, $done, $plain, $ordered) if $kind =~ /^(claim|first-touch)/;
        return $plain->() if $kind eq 'wake' && $k < $g->{split};
        return under_lock($self, $g, $t, $k, $plain, $ordered, $op) if $kind eq 'straddle';
        return checked($self, $t, $op, [$kind eq 'wake' ? 5 : 0], [$kind =~ /^hand-over$/ ? () : $kind eq 'hand-over+revoke' ? 4 : 2], $plain, $ordered);
    }
    # A thread on the CPU that the memory is given to: it runs on there, and has no part in the transition.
    return checked($self, $t, $op, [2], [], $plain, $ordered) if $kind =~ /^cpu/;
    if (defined $g->{third} && $t == $g->{third} && !$done->{"third$g"}++) {
        # The second transition of a hand-over: its page lock was free again.
        my (undef, $load) = look($self, $t, 'lock', 1);
        return ($load, stg(3, @{ $g->{at} }), mark(), $call{2}, mark(), stg(4, @{ $g->{at} }), mark(), $ordered->());
    }
    return $ordered->() if defined $g->{third} && $t == $g->{third};
    # A third thread: its pointer carries the shared tag, and passes when the granule's tag is that.
    return checked($self, $t, $op, [], [$g->{kind} eq 'hand-over+revoke' ? 4 : 2], $plain, $o->{plain_third} ? $plain : $ordered);
}

# What the check reads decides: the owner's tag lets a plain access pass, shared an ordered one.
sub checked {
    my ($self, $t, $op, $own, $shared, $plain, $ordered) = @_;
    my $o = $self->{option};
    my ($r, $load) = look($self, $t, "t$op->{at}", @$own, @$shared);
    my ($else, $end) = ('L' . $self->{label}++, 'L' . $self->{label}++);
    # The access of a software check can be interrupted after it.
    my @gap = $o->{software_check} ? mark() : ();

    return ($load, "CBZ $r,$end", "$end:", @gap, $plain->()) if !@$shared;
    return ($load, "CBZ $r,$end", "$end:", $ordered->()) if !@$own;
    return ($load, "SUB W8,$r,#$own->[0]", "CBNZ W8,$else", @gap, $plain->(), "B $end", "$else:", ($o->{plain_owner} ? $plain : $ordered)->(), "$end:");
}

# hand_over, revoke_granule, revoke_page; the ways to do it wrong.
sub transition {
    my ($self, $g, $t) = @_;
    my $o = $self->{option};
    my @at = @{ $g->{at} };
    my @call = ($call{ $g->{call} }, $o->{twice} ? (mark(), $call{3}) : ());
    my @busy = (stg(1, @at), mark());
    my @new = (stg(2, @at), mark());
    my @lock;

    if ($g->{kind} =~ /^(claim|first-touch|straddle)/ && !$o->{no_lock}) {
        (undef, my $load) = look($self, $t, 'lock', 1);
        @lock = $load;
    }
    @new = (@new, 'MOV W7,#1', "STLR W7,[$address{lock}]") if $g->{kind} eq 'hand-over+revoke' || $g->{kind} eq 'hand-over-back';
    return (@lock, @busy, @new) if $o->{no_barrier};
    return (@lock, @new, @call, mark()) if $o->{no_busy};
    return (@lock, @call, mark(), @busy, @new) if $o->{barrier_first};
    return (@lock, @busy, @call, mark(), @new);
}

# claim, and tagtso_window_open: at the first access; unlocking the page is a release. Then as an owner.
sub claimed {
    my ($self, $g, $t, $op, $done, $plain, $ordered) = @_;
    my $o = $self->{option};

    return checked($self, $t, $op, [5], [2], $plain, $ordered) if $done->{$g}++;
    my @barrier = $o->{no_claim_barrier} ? () : $g->{kind} =~ /^claim/ ? $call{3} : 'DMB ISH';
    return (stg(5, @{ $g->{at} }), @barrier, mark(), 'MOV W7,#1', "STLR W7,[$address{lock}]", checked($self, $t, $op, [5], [2], $plain, $ordered));
}

# Memory that all share (tag 0), until the prober has made it undecided: the owner claims it at its access `split` and accesses it plainly from then on, `by`
# revokes it at its own access `revoke`, if there is one. All other accesses are ordered, before the probe or after the revocation.
sub probed {
    my ($self, $g, $t, $k, $op, $done, $plain, $ordered) = @_;
    my $o = $self->{option};
    my $lock = $address{lock};

    if ($t == $g->{owner}) {
        return checked($self, $t, $op, [], [0, 2], $plain, $ordered) if $k < $g->{split};
        return checked($self, $t, $op, [5], [2], $plain, $ordered) if $done->{$g}++;
        my (undef, $load) = look($self, $t, 'lock', 1);
        my @tag = stg(5, @{ $g->{at} });
        my @barrier = $o->{no_claim_barrier} ? () : ($call{3}, mark());
        return ($load, @tag, mark(), @barrier, 'MOV W7,#2', "STLR W7,[$lock]", checked($self, $t, $op, [5], [2], $plain, $ordered));
    }
    if (defined $g->{by} && $t == $g->{by} && $k == $g->{revoke}) {
        my (undef, $load) = look($self, $t, 'lock', 2);
        return ($load, stg(3, @{ $g->{at} }), mark(), $call{2}, mark(), stg(2, @{ $g->{at} }), mark(), $ordered->());
    }
    return $ordered->() if defined $g->{by} && $t == $g->{by} && $k > $g->{revoke};
    return checked($self, $t, $op, [], [0, 2], $plain, $ordered);
}

# The first owner, which takes it back at its access `split`.
sub handed_back {
    my ($self, $g, $t, $k, $op, $done, $plain) = @_;
    my $o = $self->{option};

    return checked($self, $t, $op, [0], [], $plain, undef) if $k < $g->{split};
    return checked($self, $t, $op, [4], [], $plain, undef) if $done->{"back$g"}++;
    my (undef, $load) = look($self, $t, 'lock', 1);
    my @barrier = $o->{no_barrier_back} ? () : ($call{2}, mark());
    return ($load, stg(3, @{ $g->{at} }), mark(), @barrier, stg(4, @{ $g->{at} }), mark(), $plain->());
}

# access_straddling: its first access looks at the tags with the page locked, and is unchecked.
sub under_lock {
    my ($self, $g, $t, $k, $plain, $ordered, $op) = @_;
    my @unlock = ('MOV W7,#1', "STLR W7,[$address{lock}]");
    my ($first) = grep { my $at = $self->{program}{threads}[$t][$_]{at} // ''; grep { $_ eq $at } @{ $g->{at} } } 0 .. $k;

    return checked($self, $t, $op, [0], [2], $plain, $ordered) if $first != $k;
    my ($r, $load) = look($self, $t, "t$op->{at}", 0);
    my $end = 'L' . $self->{label}++;
    return ($load, "CBZ $r,$end", "$end:", mark(), $plain->(), @unlock);
}

1;
