//go:build integration

package integration

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// A clock that is set while the container runs, without a change to the machine's: the kernel's function that tells the time in user
// space (vDSO) is replaced, in the init alone, by one that asks the kernel and adds to the wall clock. The page is the process's own from then on.

// wallClock is that of a process.
type wallClock struct {
	s   *scene
	pid int
	at  int64  // of the function in the process's memory
	own []byte // what was there
}

// told is the function: clock_gettime(rdi, rsi), and of the wall clock (0) so many seconds more.
func told(ahead time.Duration) []byte {
	code := []byte{
		0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi
		0x75, 0x07, // jnz over the next
		0x48, 0x81, 0x06, 0, 0, 0, 0, // add qword [rsi], ahead
		0xc3, // ret
	}
	binary.LittleEndian.PutUint32(code[14:], uint32(int32(ahead/time.Second)))
	return code
}

// wallClockOf finds the function.
func wallClockOf(s *scene, pid int) *wallClock {
	s.t.Helper()
	if runtime.GOARCH != "amd64" {
		s.t.Skip("the machine code is that of amd64")
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	must(s, err)
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(line, "[vdso]\n") {
			continue
		}
		var from, to int64
		_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
		must(s, err)
		w := &wallClock{s: s, pid: pid}
		image := w.read(from, int(to-from))
		f, err := elf.NewFile(bytes.NewReader(image))
		must(s, err)
		symbols, err := f.DynamicSymbols()
		must(s, err)
		for _, symbol := range symbols {
			if symbol.Name == "__vdso_clock_gettime" && int(symbol.Size) >= len(told(0)) {
				w.at, w.own = from+int64(symbol.Value), image[symbol.Value:symbol.Value+symbol.Size]
				return w
			}
		}
	}
	s.t.Fatalf("process %d has no function that tells the time: %s", pid, maps)
	return nil
}

func (w *wallClock) memory() *os.File {
	w.s.t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", w.pid), os.O_RDWR, 0)
	must(w.s, err)
	return f
}

func (w *wallClock) read(at int64, n int) []byte {
	w.s.t.Helper()
	f := w.memory()
	defer f.Close()
	b := make([]byte, n)
	_, err := f.ReadAt(b, at)
	must(w.s, err)
	return b
}

// set puts the clock that much ahead of the machine's, or back where that is negative. The process stands still meanwhile, with no
// thread inside the function.
func (w *wallClock) set(ahead time.Duration) {
	w.s.t.Helper()
	w.s.eventually("no thread asks for the time", func() error {
		must(w.s, syscall.Kill(w.pid, syscall.SIGSTOP))
		defer syscall.Kill(w.pid, syscall.SIGCONT)
		for range 2 { // one that sleeps is told to stop only when the thread that took the signal has stopped, which the first look may have seen later
			if err := w.still(); err != nil {
				return err
			}
		}
		f := w.memory()
		defer f.Close()
		_, err := f.WriteAt(told(ahead), w.at)
		must(w.s, err)
		return nil
	})
}

// still tells whether all threads are stopped, and elsewhere.
func (w *wallClock) still() error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", w.pid))
	must(w.s, err)
	for _, task := range tasks {
		b, err := os.ReadFile(task) // "NUMBER ARGUMENTS… STACK PC", "-1 STACK PC" outside of system calls, or "running"
		words := strings.Fields(string(b))
		if err != nil || len(words) < 3 {
			return fmt.Errorf("%s: %q %v", task, b, err)
		}
		pc, err := strconv.ParseInt(strings.TrimPrefix(words[len(words)-1], "0x"), 16, 64)
		if err != nil || pc >= w.at && pc < w.at+int64(len(w.own)) {
			return fmt.Errorf("%s: %q %v", task, b, err)
		}
	}
	return nil
}

// clockSet: the wall clock goes two days ahead at one phase, and a day back at the next.
func clockSet(t *testing.T, e engine.Engine, at []string) {
	began := time.Now()
	o := endure(t, e, engine.Spec{Env: []string{ // a candidate is asked as well, so that somebody is under each clock
		"ENTRYPOINT_SMOKE=exec:/testapp tool hold smoke,http://HERE/healthz", "ENTRYPOINT_HEALTH=http://HERE/healthz", "ENTRYPOINT_HEALTH_INTERVAL=100ms",
	}})
	wall := wallClockOf(o.scene, o.c.PID())
	steps := []time.Duration{48 * time.Hour, -24 * time.Hour}
	n := 0
	o.goodEnd(at, func(o *ordeal, _ string) {
		wall.s = o.scene
		wall.set(steps[n%2])
		n++
	})
	// It was the init's clock: its log has days of before and after.
	logs := o.c.Logs()
	for _, ahead := range steps {
		day := func(now time.Time) string { return now.Add(ahead).UTC().Format("2006-01-02") }
		if first, last := day(began), day(time.Now()); !strings.Contains(logs, first) && !strings.Contains(logs, last) { // midnight may be between them
			t.Errorf("no line of the log has the date %s, or %s", first, last)
		}
	}
	st, err := o.status()
	must(o.scene, err)
	for _, r := range st.LastSwaps { // during most of them the clock was set
		if r.ElapsedMS < 0 || r.ElapsedMS > time.Hour.Milliseconds() {
			t.Errorf("a swap that took %d ms", r.ElapsedMS)
		}
	}
}
