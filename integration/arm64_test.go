//go:build integration

package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// emulator runs programs for arm64.
const emulator = "qemu-aarch64"

// emulate is a shell script that makes the kernel run arm64 programs by the emulator, in a user namespace of its own (Linux 6.7): the
// machine's settings stay as they are. Then it becomes its arguments.
const emulate = `
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc && cd /proc/sys/fs/binfmt_misc && [ ! -e arm64 ] &&
printf '%s' ':arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$0"':' >register &&
cd / && exec "$@" || exit 77`

// noEmulation is the exit code of emulate where the kernel cannot do it.
const noEmulation = 77

// crashesLater is counted from before the app listens, and an emulated one takes its time for that.
const crashesLater = "crash=3s"

// TestArm64 runs the init and an app, both built for arm64, by an emulator that knows no seccomp notification: the app is served
// all the same, and one sentence says what is missing.
func TestArm64(t *testing.T) {
	qemu, err := exec.LookPath(emulator)
	if err != nil {
		t.Skipf("%s is not installed", emulator)
	}
	init, app := buildFor(t, "arm64")
	t.Run("version", func(t *testing.T) {
		out, err := exec.CommandContext(limit(t), qemu, init, "version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "linux/arm64") {
			t.Fatalf("version: %v\n%s", err, out)
		}
	})
	t.Run("check", func(t *testing.T) {
		cmd := exec.CommandContext(limit(t), qemu, init, "check", "--", app)
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "the configuration is good") {
			t.Fatalf("check: %v\n%s", err, out)
		}
	})
	t.Run("demanded", func(t *testing.T) {
		code, out := emulated(t, qemu, []string{"ENTRYPOINT_HANDOFF=transparent"}, init, "--", app, "listen=none", "crash=1ms", "crashcode=42")
		if want := "cannot use ENTRYPOINT_HANDOFF=transparent: cannot watch bind"; code != 1 || strings.Count(out, want) != 1 {
			t.Errorf("exit code %d, want 1, and %q once:\n%s", code, want, out)
		}
		noCrash(t, out)
	})
	for _, handoff := range []string{"auto", "inherit", "none", "exclusive"} {
		t.Run(handoff, func(t *testing.T) {
			listen := "listen=tcp:" + freeAddress(t)
			code, out := emulated(t, qemu, []string{"ENTRYPOINT_HANDOFF=" + handoff}, init, "--", app, listen, crashesLater, "crashcode=42")
			if code != 42 || !strings.Contains(out, "serving") {
				t.Errorf("exit code %d, want the app's 42, and it says that it serves:\n%s", code, out)
			}
			want := 0
			if handoff == "auto" || handoff == "exclusive" {
				want = 1
			}
			const sentence = "cannot watch bind by seccomp user notification: function not implemented"
			if n := strings.Count(out, sentence); n != want {
				t.Errorf("%d times %q, want %d:\n%s", n, sentence, want, out)
			}
			noCrash(t, out)
		})
	}
	t.Run("held", func(t *testing.T) {
		address := freeAddress(t)
		code, out := emulated(t, qemu, []string{"ENTRYPOINT_LISTEN=tcp://" + address}, init, "--", app, "listen=systemd", crashesLater, "crashcode=42")
		if code != 42 || !strings.Contains(out, "serving") {
			t.Errorf("exit code %d, want the app's 42, and it serves on what it inherited:\n%s", code, out)
		}
		noCrash(t, out)
	})
}

// buildFor builds the init and the test app for another architecture.
func buildFor(t *testing.T, arch string) (init, app string) {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	for name, source := range map[string]string{"entrypoint": "../cmd/entrypoint", "testapp": "./testapp"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cannot build %s for %s: %v\n%s", name, arch, err, out)
		}
	}
	return filepath.Join(dir, "entrypoint"), filepath.Join(dir, "testapp")
}

// emulated runs a program for arm64 as PID 1 of its namespaces. Its arguments may be programs for arm64 too.
func emulated(t *testing.T, qemu string, env []string, argv ...string) (code int, output string) {
	t.Helper()
	args := []string{"-U", "-r", "-m", "-p", "-f", "--mount-proc", "--kill-child", "--", "/bin/sh", "-c", emulate, qemu}
	ctx := limit(t)
	cmd := exec.CommandContext(ctx, "unshare", append(args, argv...)...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "ENTRYPOINT_LOG_FORMAT=json"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%v\n%s", context.Cause(ctx), out)
	}
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	if code = cmd.ProcessState.ExitCode(); code == noEmulation {
		t.Skipf("this kernel has no binfmt_misc in user namespaces: %s", out)
	}
	return code, string(out)
}

func noCrash(t *testing.T, out string) {
	t.Helper()
	for _, word := range []string{"panic:", "fatal error:", "SIGSEGV", "qemu: "} {
		if strings.Contains(out, word) {
			t.Errorf("it says %q:\n%s", word, out)
		}
	}
}
