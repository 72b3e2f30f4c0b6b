package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/envcfg"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/internal/watch"
	"github.com/hotswap-init/entrypoint/reaper"
)

var checkCommand = &command{
	name:    "check",
	summary: "check the configuration in the environment",
	options: []option{jsonOption},
	args:    "[--] [CMD…]",
	words:   true,
	details: "Reads the environment exactly as the init does, and looks at the program, its signature, and the files and directories that are named. " +
		"Prints every fault at once, code 78; or one line about what the init would do. What works but is probably not meant is a warning. Nothing is " +
		"started, and no port is tried. `entrypoint doctor` looks at what surrounds it.",
	run: runCheck,
}

// checkReport is what check --json prints.
type checkReport struct {
	Schema   int         `json:"schema"`
	Code     int         `json:"code"`
	Text     string      `json:"text"`
	Faults   []checkItem `json:"faults"`
	Warnings []checkItem `json:"warnings"`
}

// checkItem is one sentence, and the variable that it is about, where it is one.
type checkItem struct {
	Variable string `json:"variable,omitempty"`
	Text     string `json:"text"`
}

func runCheck(c *call) int {
	r := examineConfiguration(os.Environ(), c.args)
	if c.json {
		c.object(r)
		return r.Code
	}
	if r.Code != codeDone {
		var sentences []string
		for _, f := range r.Faults {
			sentences = append(sentences, f.Text)
		}
		c.faults(r.Text, sentences)
	} else {
		c.answer("%s", r.Text)
	}
	for _, w := range r.Warnings {
		c.fault("warning: " + w.Text)
	}
	return r.Code
}

// examineConfiguration is the whole of check.
func examineConfiguration(environ, arguments []string) checkReport {
	r := checkReport{Schema: 1, Faults: []checkItem{}, Warnings: []checkItem{}}
	s, apps, err := loadAll(environ, arguments)
	if len(apps) == 0 && s != nil {
		apps = []*setup{s}
	}
	var all []error
	var texts []string
	if err == nil {
		for _, s := range apps {
			r.warn(s)
			all = append(all, s.surroundings(environ, &r))
			texts = append(texts, s.summary())
		}
		err = errors.Join(all...)
	}
	for _, e := range parts(err) {
		item := checkItem{Text: e.Error()}
		var f *envcfg.Fault
		if errors.As(e, &f) {
			item.Variable = f.Name
		}
		r.Faults = append(r.Faults, item)
	}
	if len(r.Faults) > 0 {
		r.Code, r.Text = codeConfig, count(len(r.Faults), "fault")+" in the configuration:"
	} else {
		r.Text = strings.Join(texts, "\n")
	}
	return r
}

// warn adds the warnings of one app; the container's are every app's, and are there once.
func (r *checkReport) warn(s *setup) {
	for _, w := range s.cfg.Warnings() {
		if item := (checkItem{Text: w}); !slices.Contains(r.Warnings, item) {
			r.Warnings = append(r.Warnings, item)
		}
	}
}

// summary is what the init would do with this configuration, in one line.
func (s *setup) summary() string {
	does := "hold the sockets and wait for `entrypoint run`"
	if len(s.command) > 0 {
		does = fmt.Sprintf("run %q", strings.Join(s.command, " "))
	}
	whose := "the configuration"
	if s.name != "" {
		whose += " of the app " + s.name
	}
	return fmt.Sprintf(whose+" is good: %s, %s, ready by %s, handoff %s", does, count(len(s.addresses), "held socket"), s.cfg.Ready, s.cfg.Handoff)
}

// programTime bounds the look at the program, which reads all of it.
const programTime = 30 * time.Second

// surroundings looks at what the configuration names: with these files the init would not start, or not do what is meant. The
// former is the error, the latter are warnings of r.
func (s *setup) surroundings(environ []string, r *checkReport) error {
	var faults []error
	warn := func(name, format string, a ...any) {
		r.Warnings = append(r.Warnings, checkItem{"ENTRYPOINT_" + name, fmt.Sprintf(format, a...)})
	}
	c := s.cfg
	try := reaper.New().TryExec
	store, err := artifact.NewStore(artifact.StoreOptions{Exec: artifact.Exec(c.Exec), Try: try, Verify: s.verify})
	if err != nil {
		return err
	}
	defer store.Close() // it keeps nothing on disk
	if c.StateDir != "" && c.Exec != "path" {
		switch err := artifact.DirectoryExecutable(c.StateDir, try); {
		case err != nil && c.Exec == "copy":
			faults = append(faults, s.fault("ENTRYPOINT_STATE_DIR", err))
		case err != nil:
			warn("STATE_DIR", "%v: private copies are in memory, and nothing survives a restart of the container", err)
		}
	}
	p := &initProcess{setup: s}
	app := &swap.App{Store: store, Environ: p.environment(environ), Dir: c.Dir}
	if err := s.lookAtProgram(app, warn); err != nil {
		faults = append(faults, err)
	}
	if len(c.HookWatch) > 0 {
		if _, err := app.Find(c.HookWatch); err != nil {
			warn("HOOK_WATCH", "the hook would fail: %v", err)
		}
	}
	for _, list := range []struct {
		name   string
		checks []probe.Check
	}{{"READY", s.checks}, {"SMOKE", s.smoke}, {"HEALTH", s.health}} {
		for _, check := range list.checks {
			if check.Kind != probe.Exec {
				continue
			}
			if _, err := app.Find(check.Argv); err != nil {
				warn(list.name, "the check would fail: %v", err)
			}
		}
	}
	return errors.Join(append(faults, s.places(environ, warn))...)
}

// lookAtProgram finds, checks and verifies the program as the init does before it starts it.
func (s *setup) lookAtProgram(app *swap.App, warn func(name, format string, a ...any)) error {
	if len(s.command) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), programTime)
	defer cancel()
	program, err := app.Check(ctx, s.command)
	switch {
	case err == nil:
		program.Close()
	case s.cfg.OnFatal == "wait":
		warn("COMMAND", "%v: the init would hold the sockets and wait for another program (ENTRYPOINT_ON_FATAL=wait)", err)
	default:
		return s.fault("ENTRYPOINT_COMMAND", err)
	}
	return nil
}

// places looks for the files and directories that are named.
func (s *setup) places(environ []string, warn func(name, format string, a ...any)) error {
	c := s.cfg
	var faults []error
	for _, a := range s.addresses {
		if dir := filepath.Dir(a.Path); a.Path != "" && !strings.HasPrefix(a.Path, "@") && !exists(dir) {
			faults = append(faults, s.fault("ENTRYPOINT_LISTEN", fmt.Errorf("cannot listen on %q: there is no directory %q; make it, or mount it", a.Raw, dir)))
		}
	}
	for _, w := range s.watched {
		switch path := w.Path; {
		case path == watch.Auto && len(s.command) == 0:
			warn("WATCH", "auto is the app's own file, and no command is configured: it would not be watched")
		case path == watch.Auto:
		case w.Glob && !exists(filepath.Dir(path)):
			warn("WATCH", "there is no directory %q: its files are watched as soon as it is there", filepath.Dir(path))
		case !w.Glob && !exists(path):
			warn("WATCH", "there is no %q: it is watched as soon as it is there", path)
		}
	}
	for root := range strings.SplitSeq(c.TarRoots, ",") {
		if root = strings.TrimSpace(root); root != "" && !exists(root) {
			warn("TAR_ROOTS", "there is no directory %q: nothing can be uploaded to it", root)
		}
	}
	if dir := filepath.Dir(c.Control); filepath.IsAbs(c.Control) && !exists(dir) {
		warn("CONTROL", "there is no directory %q: no command could reach the init", dir)
	}
	if c.Handoff == "inherit" && len(s.addresses) == 0 && lookupEnv(environ, "LISTEN_FDS") == "" {
		warn("HANDOFF", "inherit passes held sockets on, and ENTRYPOINT_LISTEN is not set: nothing is held, and a swap stops the app before it starts the next one")
	}
	return errors.Join(faults...)
}

// exists tells whether something is there. What may not be looked at counts as there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// parts takes a joined error apart. Only a join is taken apart, not an error that wraps several by a text of its own.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, parts(e)...)
		}
		return all
	}
	return []error{err}
}

// split is parts, as sentences.
func split(err error) []string {
	var sentences []string
	for _, e := range parts(err) {
		sentences = append(sentences, e.Error())
	}
	return sentences
}

// count writes n and the word in the right number.
func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
