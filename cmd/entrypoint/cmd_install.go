package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

var installCommand = &command{
	name:    "install",
	summary: "copy this binary to DIR/entrypoint",
	args:    "DIR",
	details: "For an init container that brings the init to an image without it, through a volume of the pod: no shell, cp or tar is needed. DIR must exist. The copy has " +
		"mode 0755, is whole or not there, and takes the place of an older one, also while that one runs.",
	run: func(c *call) int {
		if len(c.args) != 1 {
			return c.usage("install needs exactly one directory, got %d words", len(c.args))
		}
		path, err := installSelf(c.args[0])
		if err != nil {
			c.fault(err.Error())
			return codeRejected
		}
		c.answer("installed %s", path)
		return codeDone
	},
}

// installSelf copies the running binary into the directory, in one step, and returns the path of the copy.
func installSelf(dir string) (path string, err error) {
	path = filepath.Join(dir, "entrypoint")
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("cannot read this binary: %w", err)
	}
	defer self.Close()
	f, err := os.CreateTemp(dir, ".entrypoint-*")
	if err != nil {
		return "", cannotInstall(path, err)
	}
	_, err = io.Copy(f, self)
	err = errors.Join(err, f.Chmod(0o755), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the fault is the better news
		return "", cannotInstall(path, err)
	}
	return path, nil
}

func cannotInstall(path string, err error) error {
	return fmt.Errorf("cannot install %q: %w", path, reason(err))
}
