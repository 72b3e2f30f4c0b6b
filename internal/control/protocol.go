package control

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// Version is the version of the protocol, the "v" of each request and each result.
const Version = 1

// MaxRequest is the longest request line, in bytes, its newline included. A command line of 64 KiB is longer than any that
// people write, and 16 of them are still small beside the init itself.
const MaxRequest = 64 << 10

// maxTimeout keeps a timeout in milliseconds far from the overflow of a time.Duration.
const maxTimeout = 1000 * time.Hour

// The operations of a request.
const (
	OpReload  = "reload"  // swap to the bytes that the app's path has now
	OpRun     = "run"     // swap to another command line
	OpRestart = "restart" // stop the app, then start the same bytes
	// OpPut swaps to the program that comes with the request as a second descriptor: a sealed memfd.
	OpPut      = "put"
	OpScale    = "scale"    // another number of workers
	OpRollback = "rollback" // swap to the bytes before the present ones
	OpPromote  = "promote"  // take the candidate on trial one step further
	OpAbort    = "abort"    // cancel the swap under way
	OpStop     = "stop"     // end the app and the init
	OpSignal   = "signal"   // send a signal to the active generation
	OpReopen   = "reopen"   // open the log files of the app anew
	// OpUpgrade gives the proxy the program of the init that comes with the request, as OpPut has it.
	OpUpgrade = "upgrade"
	OpStatus  = "status"  // what the init knows
	OpHealth  = "health"  // is there an active, ready generation?
	OpPS      = "ps"      // which processes belong to which generation
	OpConfig  = "config"  // the init's effective configuration
	OpVersion = "version" // the init's version
)

// Ops lists the operations of this version.
func Ops() []string {
	return []string{OpReload, OpRun, OpPut, OpRollback, OpPromote, OpAbort, OpRestart, OpScale, OpStop, OpSignal, OpReopen, OpUpgrade, OpStatus, OpHealth, OpPS, OpConfig, OpVersion}
}

// Request is the one line that a client sends. A field that the operation has no use for is refused: nothing is silently ignored.
type Request struct {
	V  int    `json:"v"`
	Op string `json:"op"`
	// App is which one of several apps is meant; empty in a container with one. What is not about an app (stop, ps, config, version) has none,
	// and health and status without one are about all.
	App string `json:"app,omitempty"`
	// Command is the command line of run, argv[0] included.
	Command []string `json:"command,omitempty"`
	// Wait false (of every swap) asks for an answer as soon as the swap has begun: code 124, since its end is not known.
	// Nil and true wait for the end.
	Wait *bool `json:"wait,omitempty"`
	// Until (of every swap) is "promoted", as when it is empty, or "drained": wait for the end of what was replaced too.
	Until string `json:"until,omitempty"`
	// Force (reload) swaps in bytes that were rolled back.
	Force bool `json:"force,omitempty"`
	// Workers (scale) is how many workers there are to be.
	Workers int `json:"workers,omitempty"`
	// Full (promote) takes it through all of the steps at once.
	Full bool `json:"full,omitempty"`
	// Path (put) is the file that the upload is meant for, absolute; empty: the app's own, and any other is refused.
	Path string `json:"path,omitempty"`
	// SHA256 (put) is what the hash of the upload must be, in hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
	// Signature (put) is the text of a minisign signature of the upload.
	Signature string `json:"signature,omitempty"`
	// Upload (put) is the program, as a sealed memfd. On the wire it is a descriptor. It stays the caller's.
	Upload *os.File `json:"-"`
	// TimeoutMS (of every swap) bounds the waiting, in milliseconds; 0 is no bound. The swap goes on after it.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
	// Now (stop) skips the delay and the grace: KILL at once.
	Now bool `json:"now,omitempty"`
	// Signal (signal) is a name with or without SIG, RTMIN+n, RTMAX-n, or a number of 1 to 64.
	Signal string `json:"signal,omitempty"`
}

// Timeout is TimeoutMS as a duration.
func (r Request) Timeout() time.Duration { return time.Duration(r.TimeoutMS) * time.Millisecond }

// swaps reports whether the request asks for a swap.
func (r Request) swaps() bool {
	return slices.Contains([]string{OpReload, OpRun, OpPut, OpRollback, OpRestart, OpScale}, r.Op)
}

// The values of Request.Until.
const (
	UntilPromoted = "promoted"
	UntilDrained  = "drained"
)

// Event is one phase of a swap as a client sees it.
type Event struct {
	Event string `json:"event"` // always "phase" in this version
	swap.Progress
}

// Result is the last line of an answer. The fields of [swap.Result] are always there; of the others only
// the one that was asked for.
type Result struct {
	Event string `json:"event"` // always "result"
	V     int    `json:"v"`
	Op    string `json:"op,omitempty"`
	swap.Result
	Status    *swap.Status    `json:"status,omitempty"`    // status: of the main app, or of the one that was named
	Apps      []swap.Status   `json:"apps,omitempty"`      // status, where there are several apps and none was named: of each
	Processes []Process       `json:"processes,omitempty"` // ps
	Config    json.RawMessage `json:"config,omitempty"`    // config
	Version   string          `json:"version,omitempty"`   // version
}

// Process is a process that the init knows of: the main process of a generation, or another descendant of the init.
type Process struct {
	PID        int    `json:"pid"`
	App        string `json:"app,omitempty"`    // of several apps, whose it is
	Generation int    `json:"gen,omitempty"`    // 0: a descendant that is no generation's main process
	Worker     int    `json:"worker,omitempty"` // of that generation, from 0
	State      string `json:"state,omitempty"`  // the state of that generation, or of that worker if it has several
}

// usageError is a request that makes no sense: it is answered with code 2.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, a ...any) error { return usageError{fmt.Sprintf(format, a...)} }

// DecodeRequest reads a request line, with or without its newline, and checks all of it. It allocates no more than a small multiple of the
// line. Each error is one sentence, to be answered with code 2.
func DecodeRequest(line []byte) (Request, error) {
	if len(line) > MaxRequest {
		return Request{}, usagef("cannot read the request: longer than %d bytes", MaxRequest)
	}
	var r Request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Request{}, refusedJSON(line, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Request{}, usagef("cannot read the request: more than one value on the line")
	}
	return r, r.check()
}

// refusedJSON prefers the sentence about another version to the one about the field that the other version brought.
func refusedJSON(line []byte, err error) error {
	var head struct {
		V int `json:"v"`
	}
	if json.Unmarshal(line, &head) == nil && head.V != Version && head.V != 0 {
		return badVersion(head.V)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return usagef("cannot read the request: the line ends in the middle of the JSON value")
	}
	return usagef("cannot read the request: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func badVersion(v int) error {
	return usagef("cannot answer protocol version %d: this init speaks version %d", v, Version)
}

func (r Request) check() error {
	if r.V != Version {
		return badVersion(r.V)
	}
	if !slices.Contains(Ops(), r.Op) {
		return usagef("unknown operation %q: this init knows %s", r.Op, strings.Join(Ops(), ", "))
	}
	if err := r.checkFields(); err != nil {
		return err
	}
	if r.Op == OpRun {
		return checkCommand(r.Command)
	}
	if r.Op == OpScale && (r.Workers < 1 || r.Workers > swap.MaxWorkers) {
		return usagef("cannot scale to %d workers: a generation has 1 to %d", r.Workers, swap.MaxWorkers)
	}
	return nil
}

// checkFields refuses what the operation has no use for.
func (r Request) checkFields() error {
	unused := []struct {
		name string
		bad  bool
	}{
		{"command", len(r.Command) > 0 && r.Op != OpRun},
		{"app", r.App != "" && slices.Contains([]string{OpStop, OpReopen, OpUpgrade, OpPS, OpConfig, OpVersion}, r.Op)},
		{"until", r.Until != "" && (!r.swaps() || r.Op == OpScale)},
		{"workers", r.Workers != 0 && r.Op != OpScale},
		{"force", r.Force && r.Op != OpReload},
		{"full", r.Full && r.Op != OpPromote},
		{"path", r.Path != "" && r.Op != OpPut},
		{"sha256", r.SHA256 != "" && !r.uploads()},
		{"signature", r.Signature != "" && !r.uploads()},
		{"wait", r.Wait != nil && !r.swaps()},
		{"timeout_ms", r.TimeoutMS != 0 && !r.swaps()},
		{"now", r.Now && r.Op != OpStop},
		{"signal", r.Signal != "" && r.Op != OpSignal},
	}
	for _, f := range unused {
		if f.bad {
			return usagef("operation %q has no field %q", r.Op, f.name)
		}
	}
	if r.Until != "" && r.Until != UntilPromoted && r.Until != UntilDrained {
		return usagef("cannot wait until %q: write %s or %s", r.Until, UntilPromoted, UntilDrained)
	}
	if err := r.checkUpload(); err != nil {
		return err
	}
	if r.TimeoutMS < 0 || r.TimeoutMS > maxTimeout.Milliseconds() {
		return usagef("cannot wait %d ms: a timeout is between 0 and %d", r.TimeoutMS, maxTimeout.Milliseconds())
	}
	return nil
}

// uploads tells whether a program comes with the operation.
func (r Request) uploads() bool { return r.Op == OpPut || r.Op == OpUpgrade }

// checkUpload refuses words about an upload that cannot be meant.
func (r Request) checkUpload() error {
	if r.Path != "" && (!filepath.IsAbs(r.Path) || strings.ContainsRune(r.Path, 0)) {
		return usagef("cannot put %q: the path must be absolute", r.Path)
	}
	if b, err := hex.DecodeString(r.SHA256); r.SHA256 != "" && (err != nil || len(b) != sha256.Size) {
		return usagef("cannot compare with %q: a SHA-256 is 64 hexadecimal digits", r.SHA256)
	}
	return nil
}

// checkCommand refuses what execve could not take.
func checkCommand(argv []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return usagef("cannot run an empty command line: give the program and its arguments")
	}
	for _, word := range argv {
		if strings.ContainsRune(word, 0) {
			return usagef("cannot run %q: a word has a NUL byte", word)
		}
		if !utf8.ValidString(word) {
			return usagef("cannot send %q: a word is not UTF-8, which JSON cannot carry", word)
		}
	}
	return nil
}

// encodeLine is v as one line. A value of ours always encodes; if it ever does not, the client learns that.
func encodeLine(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		b, _ = json.Marshal(Result{Event: "result", V: Version, Result: swap.Result{
			Code: swap.CodeRejected, Text: "internal error: cannot encode the answer: " + err.Error()}})
	}
	return append(b, '\n')
}
