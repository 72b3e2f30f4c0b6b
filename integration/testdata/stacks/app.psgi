# A PSGI app.
use strict;
use warnings;

my $body = "g$ENV{ENTRYPOINT_GENERATION} served\n";
sub {
    my $env = shift;
    select undef, undef, undef, 0.2 if $env->{PATH_INFO} eq '/slow';
    return [200, ['Content-Length' => length $body], [$body]];
};
