package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestIsApplet(t *testing.T) {
	for argv0, want := range map[string]bool{
		"tar": true, "/bin/tar": true, "rm": true, "./rm": true,
		"entrypoint": false, "/tar/entrypoint": false, "tar2": false, "tar:": false, "": false, "TAR": false, "busybox": false,
	} {
		if got := isApplet(argv0, 100); got != want {
			t.Errorf("%q: %v", argv0, got)
		}
		if isApplet(argv0, 1) {
			t.Errorf("%q is an applet as PID 1", argv0)
		}
	}
}

// appletLink makes a link of that name to this binary.
func appletLink(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// archive has one file of 100,000 bytes.
func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := bytes.Repeat([]byte("x"), 100_000)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: int64(len(text)), Mode: 0o644})
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestApplets calls the binary by links.
func TestApplets(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(appletLink(t, "tar"), "xvmf", "-", "-C", dir)
	cmd.Stdin = bytes.NewReader(archive(t))
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "f\n" {
		t.Fatalf("%v: %s", err, out)
	}
	f := filepath.Join(dir, "f")
	if info, err := os.Stat(f); err != nil || info.Size() != 100_000 {
		t.Error(info, err)
	}
	if out, err := exec.Command(appletLink(t, "rm"), "-rf", f).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(f); err == nil {
		t.Error("it is still there")
	}
	out, err := exec.Command(appletLink(t, "tar"), "--frobnicate").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 2 || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v: %q", err, out)
	}
}

// TestAppletSignal: a signal in the middle of a file leaves nothing behind.
func TestAppletSignal(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(appletLink(t, "tar"), "-xf", "-", "-C", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(archive(t)[:50_000]); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if list, _ := os.ReadDir(dir); len(list) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is staged")
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+15 || !strings.Contains(errs.String(), "ended by the signal") {
		t.Errorf("code %d: %s", code, errs.String())
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}
