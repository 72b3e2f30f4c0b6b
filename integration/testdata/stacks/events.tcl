# An event loop.
set body "g$env(ENTRYPOINT_GENERATION) served\n"

proc accepted {client address port} {
	fconfigure $client -blocking 0 -translation {crlf binary}
	fileevent $client readable [list request $client ""]
}

proc request {client path} {
	if {[gets $client line] < 0} {
		if {[eof $client]} {close $client}
		return
	}
	if {$line ne ""} {
		if {$path eq ""} {set path [lindex $line 1]}
		fileevent $client readable [list request $client $path]
		return
	}
	fileevent $client readable {}
	after [expr {[string match /slow* $path] ? 200 : 0}] [list answer $client]
}

proc answer {client} {
	global body
	puts -nonewline $client "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: [string length $body]\r\n\r\n$body"
	close $client
}

socket -server accepted -myaddr 127.0.0.1 [lindex $argv 0]
vwait forever
