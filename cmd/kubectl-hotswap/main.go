// Command kubectl-hotswap is a kubectl plugin: it swaps the app's program in the pods of a Deployment, StatefulSet or DaemonSet, one after the
// other, and stops at the first pod that refuses.
//
// It has no rights and no connection of its own. All that it knows and does goes through the user's kubectl: `get` for the pods, and `exec` of
// the entrypoint that is PID 1 there, which takes the program, judges it and answers. So it needs what `kubectl exec` needs, and
// nothing is installed in the cluster.
//
// Two facts are its safety. A pod is touched only after the one before it has answered "done"; and a pod whose answer is lost on the way
// is asked again what became of it, so that no row of the table is a guess.
//
// It keeps nothing: a pod that is restarted, or made anew, runs the program of its image. It uses the standard library only.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
)

// version is set by the linker.
var version = "0.1.0-dev"

// The exit codes: those of the commands inside the pods, as far as they speak of several.
const (
	codeDone       = 0   // all pods
	codeRejected   = 1   // a pod refused; the pods behind it were not touched
	codeUsage      = 2   // wrong usage
	codeBusy       = 3   // in a pod another swap is under way
	codeNoInit     = 4   // no entrypoint to talk to, no pod, or kubectl failed
	codeRolledBack = 5   // a pod took it back after its promotion, or a refusal made us put the earlier pods back
	codeTimeout    = 124 // timed out or interrupted
)

func main() { os.Exit(run(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }

// run is the whole program; os.Exit is called nowhere else.
func run(args []string, getenv func(string) string, out, errs io.Writer) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(errs, "kubectl hotswap: %s\nusage: kubectl hotswap %s\n", printable(err.Error()), o.usageLine())
		return codeUsage
	}
	switch o.action {
	case "help":
		fmt.Fprint(out, help)
		return codeDone
	case "version":
		fmt.Fprintln(out, "kubectl-hotswap", version)
		return codeDone
	}
	k, err := newKubectl(o, getenv("KUBECTL"))
	if err != nil {
		return finish(o, out, errs, &report{Action: o.action, Target: o.target(), Code: codeNoInit, Text: err.Error()})
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	s := &session{options: o, kubectl: k, err: errs, interrupted: make(chan struct{})}
	defer s.watchInterrupts(cancel)()
	return finish(o, out, errs, s.run(ctx))
}
