#!/usr/bin/perl
# A worker for StdioJson, with nothing but Perl's core modules: results, errors, streams and asks. See docs/stdio.md.
use strict;
use warnings;
use JSON::PP;

my $json = JSON::PP->new->utf8->allow_nonref;
binmode STDIN;
binmode STDOUT;
$| = 1;

my %tools = (
    add      => sub { my ($args) = @_; return $args->{a} + $args->{b} },
    reverse  => sub { my ($args) = @_; return scalar reverse $args->{text} },
    fail     => sub { my ($args) = @_; die "$args->{why}\n" },
    remember => sub { my ($args, $id) = @_; return ask($id, "set_variable", $args) },
    recall   => sub { my ($args, $id) = @_; return ask($id, "get_variable", $args) },
    relay    => sub { my ($args, $id) = @_; return ask($id, "call_host_tool", $args) },
);
my %streams = (
    count => sub { my ($args, $put) = @_; $put->($_) for 1 .. $args->{n} },
);

while (my $call = hear()) {
    eval { serve($call); 1 } or tell_error($call->{id}, $@);
}

sub serve {
    my ($call) = @_;
    my ($id, $name, $args) = @$call{qw(id command args)};
    if ($name eq "hello") {
        answer(id => $id, result => {version => "Perl $^V", tools => descriptions()});
    } elsif ($call->{stream}) {
        my $stream = $streams{$name} or die "there is no stream $name\n";
        $stream->($args, sub { answer(id => $id, chunk => $_[0]) });
        answer(id => $id, end => JSON::PP::true);
    } else {
        my $tool = $tools{$name} or die "there is no tool $name\n";
        answer(id => $id, result => $tool->($args, $id));
    }
}

sub descriptions {
    my @plain = map { {name => $_} } sort keys %tools;
    my @streams = map { {name => $_, streaming => JSON::PP::true} } sort keys %streams;
    return [@plain, @streams];
}

sub tell_error {
    my ($id, $why) = @_;
    chomp $why;
    answer(id => $id, error => {type => "PerlError", message => $why});
}

# One call at a time, and no cancel frames: what comes after an ask is its answer.
my $asks;
sub ask {
    my ($id, $command, $args) = @_;
    answer(ask => ++$asks, id => $id, command => $command, args => $args);
    my $found = hear() or exit;
    die "$found->{error}{type}: $found->{error}{message}\n" if $found->{error};
    return $found->{result};
}

sub answer {
    my $data = $json->encode({@_});
    print pack("N", length $data), $data;
}

sub hear {
    (read(STDIN, my $header, 4) // 0) == 4 or return;
    my $size = unpack "N", $header;
    read(STDIN, my $data, $size) == $size or return;
    return $json->decode($data);
}
