# Forks a child of the same process group; both say which signals they got.
use strict;
use warnings;
$| = 1;
my $name = "leader";
my $child = fork();
$name = "child" if !$child;
for my $signal (qw(USR1 USR2)) {
    $SIG{$signal} = sub { syswrite STDOUT, "$name got $signal\n" };
}
$SIG{TERM} = sub { kill 'KILL', $child if $child; exit 0 };
syswrite STDOUT, "$name is ready\n";
select undef, undef, undef, 3600 while 1;
