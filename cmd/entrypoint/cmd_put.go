package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hotswap-init/entrypoint/internal/control"
)

var putCommand = &command{
	name:    "put",
	summary: "swap to the program that comes on standard input",
	args:    "[PATH]",
	usage:   "[OPTION…]",
	options: signedOptions(option{"keep-file", "", "leave the app's file as it is"}, appOption, waitOption, timeoutOption, jsonOption),
	details: "Reads the app's new program into memory, checks it, and swaps to it: no tar, no shell, no writable path is needed, and nothing happens before all of it has " +
		"arrived. If the app's file can be written, it is replaced as well once the new generation is active, in one step, so that a restart of the container keeps it. " +
		"PATH, if given, must be that file: it guards against putting one app's program into another's container. For example: kubectl exec -i POD -- /entrypoint put < server",
	run: runPut,
}

// signedOptions are those of a command that takes a program, and more.
func signedOptions(more ...option) []option {
	return append([]option{
		{"sha256", "HASH", "refuse it unless this is its SHA-256"},
		{"signature", "FILE", "a minisign signature of it, where ENTRYPOINT_VERIFY demands one"},
		{"signature-text", "TEXT", "the same, given here: for a container that has no place to copy a file to"},
	}, more...)
}

// putResult is what --json prints.
type putResult struct {
	control.Result
	File     string `json:"file,omitempty"` // what was replaced
	NotSaved string `json:"not_saved,omitempty"`
}

func runPut(c *call) int {
	r := control.Request{Op: control.OpPut, App: c.values["app"], SHA256: c.values["sha256"]}
	switch {
	case len(c.args) > 1:
		return c.usage("put takes one path: got %q as well", c.args[1])
	case isTerminal(0):
		return c.usage("put reads the program from standard input: entrypoint put < FILE, or docker exec -i … put < FILE")
	case len(c.args) == 1:
		path, err := filepath.Abs(c.args[0])
		if err != nil {
			return c.end(failed(r, codeRejected, fmt.Sprintf("cannot put %q: %v", c.args[0], err)))
		}
		r.Path = path
	}
	if code, ok := c.signature(&r); !ok {
		return code
	}
	known := c.ask(control.Request{Op: control.OpStatus, App: r.App}) // before anything is sent through a slow line
	if known.Code != codeDone || known.Status == nil {
		known.Op = r.Op
		return c.end(known)
	}
	upload, err := receiveUpload(os.Stdin, programName(known.Status.Command))
	if err != nil {
		return c.end(failed(r, codeRejected, "cannot take the upload: "+err.Error()))
	}
	defer upload.Close()
	r.Upload = upload
	return c.changeThen(r, func(result control.Result) int { return c.endPut(result, r) })
}

// signature reads the signature that is given, if one is. Where that cannot be, it says so, and the result is the exit code and false.
func (c *call) signature(r *control.Request) (code int, ok bool) {
	switch name, file := c.values["signature"]; {
	case file && c.has("signature-text"):
		return c.usage("--signature and --signature-text are one too many"), false
	case file:
		text, err := readSignature(name)
		if err != nil {
			return c.end(failed(*r, codeUsage, err.Error())), false
		}
		r.Signature = text
	case c.has("signature-text"):
		r.Signature = c.values["signature-text"]
	}
	return 0, true
}

// programName is what the upload is called where the kernel shows its name.
func programName(command []string) string {
	if len(command) == 0 {
		return "upload"
	}
	return filepath.Base(command[0])
}

// maxSignature is far more than a minisign file has, with the longest comments.
const maxSignature = 16 << 10

func readSignature(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("cannot read the signature: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSignature+1))
	if err == nil && len(b) > maxSignature {
		err = fmt.Errorf("%q has more than %d bytes", name, maxSignature)
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the signature: %w", err)
	}
	return string(b), nil
}

// endPut replaces the app's file after a swap that was made, and says what happened.
func (c *call) endPut(result control.Result, r control.Request) int {
	done := putResult{Result: result}
	if result.Code == codeDone && result.Path != "" && !c.has("keep-file") {
		if err := saveUpload(r.Upload, result.Path, r.Signature, func() error { return c.stillActive(r.App, result.Generation) }); err != nil {
			done.NotSaved = fmt.Sprintf("a restart of the container runs the old program: %v", err)
		} else {
			done.File = result.Path
		}
	}
	if c.json {
		c.object(done)
		return result.Code
	}
	code := c.end(result)
	switch {
	case done.File != "":
		c.note("replaced " + done.File)
	case done.NotSaved != "":
		c.note(done.NotSaved)
	}
	return code
}

// stillActive keeps an upload from replacing the file of a later one: the container would start with other bytes than it runs.
func (c *call) stillActive(app string, gen int) error {
	known := c.ask(control.Request{Op: control.OpStatus, App: app})
	st := known.Status
	if known.Code != codeDone || st == nil || st.Active <= gen {
		return nil // whoever cannot be asked has nothing against it
	}
	return fmt.Errorf("generation %d took the place of generation %d before its file was written", st.Active, gen)
}
