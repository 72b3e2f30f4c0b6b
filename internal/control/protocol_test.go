package control

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzDecodeRequest(f *testing.F) {
	for _, seed := range []string{
		`{"v":1,"op":"reload"}`, `{"v":1,"op":"run","command":["/app","-x"],"timeout_ms":5,"wait":false}`, `{"v":1,"op":"stop","now":true}`,
		`{"v":1,"op":"signal","signal":"HUP"}`, `{"v":2}`, `{"v":1e9}`, `[[[[`, `{"v":1,"v":2,"op":"x"}`, `null`, "", "\n", `{"op":"run","command":[""]}`,
		`{"v":1,"op":"run","command":["\ud800"]}`, `{"V":1,"OP":"health"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := DecodeRequest(line)
		if err != nil {
			if _, ok := err.(usageError); !ok || err.Error() == "" {
				t.Errorf("error %T %q", err, err)
			}
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > MaxRequest {
			return // escapes may make it longer
		}
		r2, err := DecodeRequest(again)
		if diff := cmp.Diff(r, r2); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{
		"HUP": 1, "SIGHUP": 1, "hup": 1, "sigterm": 15, "1": 1, "64": 64, "RTMIN": 34, "RTMIN+3": 37, "SIGRTMAX-1": 63, "RTMAX": 64, "WINCH": 28,
	} {
		if got, err := parseSignal(in); got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "65", "-1", "SIG", "FROB", "RTMIN-1", "RTMAX+1", "RTMIN+x", "RTMIN+31", "1.5"} {
		if got, err := parseSignal(in); err == nil {
			t.Errorf("%q: %d, no error", in, got)
		}
	}
}

// What the protocol page says about operations and codes is what the code does.
func TestPageNamesEveryOperation(t *testing.T) {
	page, err := os.ReadFile("../../docs/control-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range Ops() {
		if !strings.Contains(string(page), "| `"+op+"` |") {
			t.Errorf("docs/control-protocol.md has no row for %q", op)
		}
	}
}

// TestForeignFields: each field is refused by the operations that have no use for it, and taken by one that has.
func TestForeignFields(t *testing.T) {
	for _, f := range []struct{ name, value, op, other string }{
		{"command", `["/app"]`, OpRun, OpReload}, {"until", `"drained"`, OpReload, OpStatus}, {"force", `true`, OpReload, OpPut},
		{"full", `true`, OpPromote, OpAbort}, {"path", `"/app"`, OpPut, OpReload}, {"sha256", `"` + strings.Repeat("a", 64) + `"`, OpPut, OpReload},
		{"signature", `"x"`, OpPut, OpRollback}, {"wait", `false`, OpRestart, OpHealth}, {"timeout_ms", `5`, OpRollback, OpStop},
		{"now", `true`, OpStop, OpRestart}, {"signal", `"HUP"`, OpSignal, OpStop},
		{"workers", `3`, OpScale, OpReload},
	} {
		line := func(op string) []byte { return []byte(`{"v":1,"op":"` + op + `","` + f.name + `":` + f.value + `}`) }
		if _, err := DecodeRequest(line(f.op)); err != nil {
			t.Errorf("%s: %v", f.op, err)
		}
		if _, err := DecodeRequest(line(f.other)); err == nil || !strings.Contains(err.Error(), `no field "`+f.name+`"`) {
			t.Errorf("%s with %s: %v", f.other, f.name, err)
		}
	}
}
