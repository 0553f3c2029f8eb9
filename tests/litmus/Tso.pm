# SPDX-License-Identifier: MIT
# x86 programs and what x86-TSO lets them do: a machine with store buffers, and the same program as a litmus test for herd7.
package Tso;
use strict;
use warnings;

# "NAME: Wx Ry | Wy Rx" to { name, text, threads => [[ { op, at, value, reg } ]], locations, regs }.
# `reg` counts the loads of all threads in order; a store's value is 1 + how many to that location came before it.
sub parse {
    my ($name, $text) = @_;
    my (@threads, %stores, %seen, @regs);
    for my $thread (split / *\| */, $text) {
        my @ops;
        for my $word (split ' ', $thread) {
            my ($op, $at) = $word =~ /^([WRXDCQL])([xyz])$|^F$/ ? ($1 // 'F', $2) : die "$name: $word: no such access\n";
            my %op = (op => $op, at => $at);
            $seen{$at} = 1 if $at;
            $op{value} = ++$stores{$at} if $op =~ /[WLXD]/;
            if ($op =~ /[RQXC]/) {
                $op{reg} = "r" . @regs;
                push @regs, scalar @threads;
            }
            push @ops, \%op;
        }
        push @threads, \@ops;
    }
    return { name => $name, text => $text, threads => \@threads, locations => [sort keys %seen], regs => \@regs };
}

# All final states, "r0=1 r1=0 x=1 y=1", of the store-buffer machine.
sub outcomes {
    my ($program) = @_;
    my @threads = @{ $program->{threads} };
    my (%seen, %final);
    # pc of each thread; its buffer, "x1 y2 "; registers; memory
    my @todo = ([[map { 0 } @threads], [map { '' } @threads], {}, { map { $_ => 0 } @{ $program->{locations} } }]);
    while (my $state = pop @todo) {
        my ($pc, $buffer, $reg, $mem) = @$state;
        my $key = join ',', @$pc, @$buffer, map({ $_ . $reg->{$_} } sort keys %$reg), map { $mem->{$_} } sort keys %$mem;
        next if $seen{$key}++;
        my $moved = 0;
        for my $t (0 .. $#threads) {
            if ($buffer->[$t] =~ /^(\w)(\d+) (.*)$/) {
                my @b = @$buffer;
                $b[$t] = $3;
                push @todo, [$pc, \@b, $reg, { %$mem, $1 => $2 }];
                $moved = 1;
            }
            my $op = $threads[$t][ $pc->[$t] ] or next;
            my ($kind, $at) = @$op{qw(op at)};
            next if $kind =~ /[FXDC]/ && $buffer->[$t] ne '';
            my @p = @$pc;
            my @b = @$buffer;
            my %r = %$reg;
            my %m = %$mem;
            $p[$t]++;
            $r{ $op->{reg} } = $b[$t] =~ /.*$at(\d+) / ? $1 : $m{$at} if $op->{reg};
            if ($kind =~ /[XD]/) { $m{$at} = $op->{value} }
            elsif ($op->{value}) { $b[$t] .= "$at$op->{value} " }
            push @todo, [\@p, \@b, \%r, \%m];
            $moved = 1;
        }
        $final{ state($program, { %$reg, %$mem }) } = 1 unless $moved;
    }
    return \%final;
}

# The text of one final state.
sub state {
    my ($program, $value) = @_;
    return join ' ', map { "$_=$value->{$_}" } map({ "r$_" } 0 .. $#{ $program->{regs} }), @{ $program->{locations} };
}

my @x86_registers = qw(EAX EBX ECX EDX ESI EDI);

# The program for herd7's X86; a failed CMPXCHG is a load between two fences, and a LOCK ADD to what nobody else accesses a store between two. Second result: register names to ours.
sub x86 {
    my ($program, $name) = @_;
    my (@columns, %names, $t);
    for my $thread (@{ $program->{threads} }) {
        my ($n, @code) = (0);
        for my $op (@$thread) {
            my $at = $op->{at};
            my $r = $op->{reg} ? $x86_registers[$n++] : '';
            $names{ $#columns + 1 . ":$r" } = $op->{reg} if $r;
            if ($op->{op} =~ /[WL]/) { push @code, "MOV [$at],\$$op->{value}" }
            elsif ($op->{op} =~ /[RQ]/) { push @code, "MOV $r,[$at]" }
            elsif ($op->{op} eq 'X') { push @code, "MOV $r,\$$op->{value}", "XCHG [$at],$r" }
            elsif ($op->{op} eq 'D') { push @code, 'MFENCE', "MOV [$at],\$$op->{value}", 'MFENCE' }
            elsif ($op->{op} eq 'C') { push @code, 'MFENCE', "MOV $r,[$at]", 'MFENCE' }
            else { push @code, 'MFENCE' }
        }
        push @columns, \@code;
    }
    return (litmus('X86', $name, '', \@columns, [(map { "$_;" } sort keys %names), map { "$_;" } @{ $program->{locations} }], ''), \%names);
}

# A litmus test of these columns that shows these places.
sub litmus {
    my ($arch, $name, $init, $columns, $shown, $filter, @comment) = @_;
    my $text = "$arch $name\n" . join('', map { "(* $_ *)\n" } @comment) . "{\n$init}\n";
    my $rows = 0;
    for (@$columns) { $rows = @$_ if @$_ > $rows }
    my @width = map { my $w = 2; for (@$_) { $w = length if length > $w } $w } @$columns;
    for my $row (-1 .. $rows - 1) {
        $text .= ' ' . join(' | ', map { sprintf '%-*s', $width[$_], $row < 0 ? "P$_" : $columns->[$_][$row] // '' } 0 .. $#$columns) . " ;\n";
    }
    return $text . "locations [@$shown]\n" . ($filter ? "filter $filter\n" : '') . "forall (true)\n";
}

1;
