package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// options is one use of the plugin, checked.
type options struct {
	action string // push, reload, rollback, promote, abort, status; help, version
	file   string // push
	kind   string // of the target, in the spelling of kubectl get; empty with a selector
	name   string

	selector, namespace, context, kubeconfig, container string

	entrypoint string // path in the container; empty: found out
	sha256     string
	signature  string
	wait       string
	timeout    time.Duration // for each pod
	most       int           // pods at once

	undo, dryRun, json, force, full bool
}

// target is what the user named.
func (o *options) target() string {
	if o.selector != "" {
		return "-l " + o.selector
	}
	return o.kind + "/" + o.name
}

// changes tells whether the action starts something in the pods.
func (o *options) changes() bool { return o.action != "status" }

const (
	// podTime is what one pod may take by default: a start, its checks, and the upload. A trial can need more.
	podTime = 10 * time.Minute
	// maxAtOnce bounds the processes of kubectl.
	maxAtOnce = 64
)

// flag is an option: where its value goes, and for which actions it makes sense.
type flag struct {
	long, short string
	text        *string // nil: a switch
	on          *bool
	actions     string // those that take it; empty: all
}

func (o *options) flags(most, timeout *string, helped *bool) []flag {
	return []flag{
		{long: "namespace", short: "n", text: &o.namespace}, {long: "context", text: &o.context}, {long: "kubeconfig", text: &o.kubeconfig},
		{long: "container", short: "c", text: &o.container}, {long: "selector", short: "l", text: &o.selector},
		{long: "entrypoint", text: &o.entrypoint}, {long: "json", on: &o.json}, {long: "help", short: "h", on: helped}, {long: "timeout", text: timeout},
		{long: "max-unavailable", text: most, actions: "push reload rollback"},
		{long: "dry-run", on: &o.dryRun, actions: "push reload rollback"},
		{long: "wait", text: &o.wait, actions: "push reload rollback"},
		{long: "undo-on-failure", on: &o.undo, actions: "push reload"},
		{long: "force", on: &o.force, actions: "push reload"},
		{long: "sha256", text: &o.sha256, actions: "push"}, {long: "signature", text: &o.signature, actions: "push"},
		{long: "full", on: &o.full, actions: "promote"},
	}
}

// parse reads the arguments. The options are there for usageLine also when they are wrong.
func parse(args []string) (*options, error) {
	o := &options{}
	var most, timeout string
	var helped bool
	words, given, err := split(args, o.flags(&most, &timeout, &helped))
	if len(words) > 0 {
		o.action, words = words[0], words[1:]
	}
	switch {
	case helped, o.action == "help", o.action == "" && len(args) == 0:
		o.action = "help"
		return o, nil
	case err != nil:
		return o, err
	case o.action == "version":
		return o, nil
	case usages[o.action] == "":
		return o, fmt.Errorf("there is no action %q", o.action)
	}
	for _, f := range given {
		if f.actions != "" && !contains(f.actions, o.action) {
			return o, fmt.Errorf("%s takes no --%s", o.action, f.long)
		}
	}
	if err := o.words(words); err != nil {
		return o, err
	}
	return o, o.values(most, timeout)
}

func contains(list, word string) bool { return strings.Contains(" "+list+" ", " "+word+" ") }

// split takes the options out of the arguments: --name VALUE, --name=VALUE, -n VALUE, -n=VALUE, -nVALUE.
func split(args []string, flags []flag) (words []string, given []flag, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return append(words, args...), given, nil
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			words = append(words, arg)
			continue
		}
		f, value, has := lookup(arg, flags)
		switch {
		case f == nil:
			err = first(err, fmt.Errorf("there is no option %q", arg))
			continue
		case f.text == nil && has:
			return words, given, fmt.Errorf("--%s takes no value: got %q", f.long, value)
		case f.text == nil:
			*f.on = true
		case !has && len(args) == 0:
			return words, given, fmt.Errorf("--%s needs a value", f.long)
		case !has:
			value, args = args[0], args[1:]
		}
		if f.text != nil {
			*f.text = value
		}
		given = append(given, *f)
	}
	return words, given, err
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// lookup finds the flag that an argument means, and the value that is in it.
func lookup(arg string, flags []flag) (f *flag, value string, has bool) {
	name, value, has := strings.Cut(arg, "=")
	for i := range flags {
		f := &flags[i]
		switch {
		case name == "--"+f.long, f.short != "" && name == "-"+f.short:
			return f, value, has
		case f.short != "" && f.text != nil && !strings.HasPrefix(arg, "--") && strings.HasPrefix(arg, "-"+f.short):
			return f, arg[2:], true
		}
	}
	return nil, "", false
}

// kinds are the targets, by what people write.
var kinds = map[string]string{
	"deploy": "deployment", "deployment": "deployment", "deployments": "deployment", "deployments.apps": "deployment", "deployment.apps": "deployment",
	"sts": "statefulset", "statefulset": "statefulset", "statefulsets": "statefulset", "statefulset.apps": "statefulset",
	"ds": "daemonset", "daemonset": "daemonset", "daemonsets": "daemonset", "daemonset.apps": "daemonset",
	"rs": "replicaset", "replicaset": "replicaset", "replicasets": "replicaset", "replicaset.apps": "replicaset",
	"po": "pod", "pod": "pod", "pods": "pod",
}

// words takes the file and the target.
func (o *options) words(words []string) error {
	if o.action == "push" {
		if len(words) == 0 {
			return fmt.Errorf("push needs the file of the program")
		}
		o.file, words = words[0], words[1:]
	}
	switch {
	case o.selector != "" && len(words) > 0:
		return fmt.Errorf("a target is a name or a selector: got %q and -l %s", words[0], o.selector)
	case o.selector != "":
		return nil
	case len(words) == 0:
		return fmt.Errorf("%s needs a target", o.action)
	case len(words) == 2 && !strings.Contains(words[0], "/"): // deploy web, as kubectl takes it too
		words = []string{words[0] + "/" + words[1]}
	case len(words) > 1:
		return fmt.Errorf("%s takes one target: got %q as well", o.action, words[1])
	}
	kind, name, ok := strings.Cut(words[0], "/")
	if !ok {
		kind, name = "pod", words[0]
	}
	if o.kind = kinds[strings.ToLower(kind)]; o.kind == "" || name == "" || strings.HasPrefix(name, "-") {
		return fmt.Errorf("cannot use %q as a target: write deploy/NAME, statefulset/NAME, daemonset/NAME, pod/NAME or -l SELECTOR", words[0])
	}
	o.name = name
	return nil
}

// values checks what the options were given.
func (o *options) values(most, timeout string) (err error) {
	o.most, o.timeout = 1, podTime
	if most != "" {
		if o.most, err = strconv.Atoi(most); err != nil || o.most < 1 || o.most > maxAtOnce {
			return fmt.Errorf("--max-unavailable: cannot use %q: write a number of 1 to %d", most, maxAtOnce)
		}
	}
	if timeout != "" {
		if o.timeout, err = duration(timeout); err != nil {
			return fmt.Errorf("--timeout: %v", err)
		}
	}
	switch o.wait {
	case "", "promoted", "drained":
	default:
		return fmt.Errorf("--wait: cannot wait until %q: write promoted or drained", o.wait)
	}
	if o.entrypoint != "" && !strings.HasPrefix(o.entrypoint, "/") {
		return fmt.Errorf("--entrypoint: %q is not an absolute path", o.entrypoint)
	}
	o.sha256 = strings.ToLower(strings.TrimPrefix(o.sha256, "sha256:"))
	if o.sha256 != "" && (len(o.sha256) != 64 || strings.Trim(o.sha256, "0123456789abcdef") != "") {
		return fmt.Errorf("--sha256: %q is not 64 hexadecimal digits", o.sha256)
	}
	return nil
}

// duration reads a time as entrypoint does: a bare number is seconds.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if _, bare := strconv.ParseFloat(s, 64); bare == nil {
		d, err = time.ParseDuration(s + "s")
	}
	if err != nil || d < time.Millisecond {
		return 0, fmt.Errorf("cannot use %q as a time: write 30, 30s or 1m30s", s)
	}
	return d, nil
}

// usages are the actions and their usage lines.
var usages = map[string]string{
	"push":     "push FILE TARGET [OPTION…]",
	"reload":   "reload TARGET [OPTION…]",
	"rollback": "rollback TARGET [OPTION…]",
	"promote":  "promote TARGET [--full]",
	"abort":    "abort TARGET",
	"status":   "status TARGET [--json]",
}

func (o *options) usageLine() string {
	if line := usages[o.action]; line != "" {
		return line
	}
	return "push FILE TARGET | reload | rollback | promote | abort | status TARGET; `kubectl hotswap help` says more"
}

const help = `Swaps the program of the entrypoint in running pods, pod after pod, and stops at the first that refuses.

usage:
  kubectl hotswap push FILE TARGET      the program FILE, by "entrypoint put" in each pod
  kubectl hotswap reload TARGET         the program that is at the app's path in each pod now
  kubectl hotswap rollback TARGET       the program before the present one
  kubectl hotswap promote TARGET        a candidate on trial goes one step further; --full: all of them
  kubectl hotswap abort TARGET          the swap under way is cancelled
  kubectl hotswap status TARGET         which generation and program each pod runs
  kubectl hotswap version | help

TARGET is deploy/NAME, statefulset/NAME, daemonset/NAME, replicaset/NAME, pod/NAME or --selector SELECTOR (-l).
Pods that are not Ready, or that end, are left out, and said so.

options:
  -n, --namespace NS, --context NAME, --kubeconfig FILE   as of kubectl
  -c, --container NAME     default: what the annotation kubectl.kubernetes.io/default-container says, or the first
  --entrypoint PATH        where it is in the container; default: the container's command if that is one, else /entrypoint
  --max-unavailable N      so many pods at once (1); none of them is unavailable meanwhile
  --undo-on-failure        when a pod refuses, put the earlier ones back, the last one first
  --timeout D              what each pod may take: 30, 30s, 2m (10m)
  --wait WHEN              promoted (default), or drained: until the replaced generation has ended
  --dry-run                show the pods and what they run; change nothing
  --force                  push: also where these very bytes run already; reload: also bytes that were rolled back
  --sha256 HASH            push: refuse unless FILE has it
  --signature FILE         push: a minisign signature of it, a file of this machine
  --json                   one object on standard output

exit codes:
  0    done in all pods
  1    a pod refused, and goes on as before; the pods behind it were not touched
  2    wrong usage
  3    in a pod another swap is under way
  4    a pod has no entrypoint to talk to, there is no pod, or kubectl failed
  5    a pod took the program back after its promotion; or, with --undo-on-failure, one refused and all the others were put back
  124  timed out or interrupted; what was under way in a pod goes on

The kubectl of $PATH is used, or the one that $KUBECTL names.
A pod that is restarted or made anew runs the program of its image.
`
