# A server on the socket of Server::Starter's variable, by its own reader.
use strict;
use warnings;
use IO::Socket::INET;
use Server::Starter qw(server_ports);

open my $file, '<', '/app/version' or die $!;
chomp(my $version = <$file>);
my ($fd) = values %{ server_ports() };
my $listener = IO::Socket::INET->new_from_fd($fd, 'r') or die $!;
my $stop = 0;
$SIG{TERM} = sub { $stop = 1 };
$SIG{CHLD} = 'IGNORE';
until ($stop) {
    my $client = $listener->accept or next;
    my $child = fork();
    if ($child) { close $client; next }
    $SIG{TERM} = 'IGNORE';
    my $request = '';
    until ($request =~ /\r\n\r\n/) {
        sysread $client, $request, 4096, length $request or exit 0;
    }
    select undef, undef, undef, 0.06 if $request =~ m{^GET /slow};
    my $body = "$version served\n";
    print {$client} "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $client;
    exit 0;
}
