// Command testapp is the app of every integration test, and an example of an app
// that takes its sockets from its init.
//
// It serves HTTP on the sockets it was given (or bound itself), answers with its
// version, pid and generation, says READY=1 when it listens, and on SIGTERM ends in
// the order that loses nothing: answer `Connection: close`, close the listeners,
// linger until the clients are gone, Shutdown.
// Everything it can do wrong on purpose is a setting.
//
// Settings are words `key=value`. They are read from four places, later ones win:
// a trailer stamped onto the executable (that is how one build yields many versions),
// $TESTAPP, the file named by $TESTAPP_FILE, and the arguments.
//
// `testapp tool NAME …` is a set of small tools for images without any; see tools.go.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "tool" {
		os.Exit(tool(os.Args[2], os.Args[3:]))
	}
	s, err := readSettings(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(64)
	}
	os.Exit(run(s))
}

// run is the life of the app: boot, fail on purpose if told to, serve, drain.
func run(s settings) int {
	a := newApp(s)
	a.catchSignals()
	a.boot()
	if s.fail >= 0 {
		return s.fail
	}
	if s.crash > 0 {
		a.crashLater()
	}
	if s.hang {
		a.say("hangs: accepts nothing, says nothing")
		return a.await()
	}
	if code := a.hold("start"); code >= 0 {
		return code
	}
	if err := a.openSockets(); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		return 1
	}
	a.serve()
	a.feedWatchdog()
	if code := a.hold("ready"); code >= 0 {
		return code
	}
	if s.ready {
		if err := sayReady(); err != nil {
			fmt.Fprintln(os.Stderr, "testapp: cannot say READY=1:", err)
		}
	}
	a.say("serving")
	return a.await()
}
