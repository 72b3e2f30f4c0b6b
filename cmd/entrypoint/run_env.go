package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hotswap-init/entrypoint/envcfg"
	"github.com/hotswap-init/entrypoint/handoff"
)

// environment gives the function that makes the app's environment anew at each start: the container's without what is
// ours, then the file, then ENTRYPOINT_APP_ENV; the last of equal names wins.
func (p *initProcess) environment(environ []string) func() (env, expand []string, err error) {
	base := handoff.StripEnv(p.cfg.AppEnv(environ))
	if p.proxied() { // the container's PORT is the service's, which the proxy has; the app is told its own
		base = slices.DeleteFunc(base, func(kv string) bool { return strings.HasPrefix(kv, "PORT=") })
	}
	if p.home != "" && !slices.ContainsFunc(base, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") && kv != "HOME=/root" }) {
		base = envcfg.Merge(base, []string{"HOME=" + p.home})
	}
	extra := p.cfg.Variables.AppEnv
	return func() ([]string, []string, error) {
		file, err := p.cfg.ReadEnvFile()
		if err != nil {
			return nil, nil, err
		}
		return without(envcfg.Merge(base, file), extra), extra, nil
	}
}

// without drops from env what extra sets.
func without(env, extra []string) []string {
	if len(extra) == 0 {
		return env
	}
	set := map[string]bool{}
	for _, kv := range extra {
		k, _, _ := strings.Cut(kv, "=")
		set[k] = true
	}
	return slices.DeleteFunc(env, func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return set[k]
	})
}

// savedRun is a command line given with `run`, kept over a restart of the container. It is in force only while the
// configured one is what it replaced: a new image, or a new configuration, wins.
type savedRun struct {
	Command  []string `json:"command"`
	Replaces []string `json:"replaces"`
}

func (p *initProcess) savedPath() string { return filepath.Join(p.cfg.StateDir, "command.json") }

func (p *initProcess) savedCommand() []string {
	if p.cfg.StateDir == "" {
		return nil
	}
	b, err := os.ReadFile(p.savedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var s savedRun
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		p.log.Warn("cannot read the saved command line: the configured one is used", "path", p.savedPath(), "err", err)
		return nil
	}
	if len(s.Command) == 0 || !slices.Equal(s.Replaces, p.command) {
		return nil
	}
	return s.Command
}

// saveCommand replaces the file atomically: a crash leaves the old one or the new one.
func (p *initProcess) saveCommand(command []string) {
	if p.cfg.StateDir == "" {
		return
	}
	b, err := json.Marshal(savedRun{Command: command, Replaces: p.command})
	if err == nil {
		err = writeFile(p.savedPath(), b)
	}
	if err != nil {
		p.log.Error("cannot save the command line: a restart of the container will use the configured one", "err", err)
	}
}

func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".entrypoint-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
