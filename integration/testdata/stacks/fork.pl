# A process for each connection.
use strict;
use warnings;
use IO::Socket::INET;

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 128, ReuseAddr => 1) or die $@;
my $body = "g$ENV{ENTRYPOINT_GENERATION} served\n";
$SIG{CHLD} = 'IGNORE';
while (1) {
    my $client = $listener->accept or next;
    if (fork) { close $client; next }
    my $request = '';
    until ($request =~ /\r\n\r\n/) {
        sysread $client, $request, 4096, length $request or exit 0;
    }
    select undef, undef, undef, 0.2 if $request =~ m{^GET /slow};
    print {$client} "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    exit 0;
}
