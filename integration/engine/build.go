package engine

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Binaries are the two programs that every container has.
type Binaries struct {
	Entrypoint string // the init
	TestApp    string // the app and the tools
}

// Build makes both into dir. With ENTRYPOINT_BINARY set that file is taken as the
// init instead of building one.
func Build(dir string) (Binaries, error) {
	root, err := moduleRoot()
	if err != nil {
		return Binaries{}, err
	}
	b := Binaries{Entrypoint: filepath.Join(dir, "entrypoint"), TestApp: filepath.Join(dir, "testapp")}
	app := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.TestApp, "./integration/testapp")
	app.Dir = root
	app.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := app.CombinedOutput(); err != nil {
		return b, fmt.Errorf("cannot build the test app: %w\n%s", err, out)
	}
	if given := os.Getenv("ENTRYPOINT_BINARY"); given != "" {
		return b, copyFile(given, b.Entrypoint)
	}
	make := exec.Command("make", "-s", "build", "BIN="+dir)
	make.Dir = root
	if out, err := make.CombinedOutput(); err != nil {
		return b, fmt.Errorf("cannot build the init: %w\n%s", err, out)
	}
	return b, nil
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("cannot find the module: %w", err)
	}
	return string(out[:len(out)-1]), nil
}

// Stamp copies the test app to dst with settings behind the ELF image, which makes it
// a version of its own: Stamp(app, "v2", "version=v2 fail=1").
func (b Binaries) Stamp(dst, settings string) error {
	os.Remove(dst)
	if err := copyFile(b.TestApp, dst); err != nil {
		return err
	}
	syscall.ForkLock.RLock() // see copyFile
	defer syscall.ForkLock.RUnlock()
	f, err := os.OpenFile(dst, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(f, "\n#TESTAPP# "+settings); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
