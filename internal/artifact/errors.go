package artifact

import (
	"errors"
	"fmt"
	"syscall"
)

// The exit codes of a shell for a program that cannot be started.
const (
	CannotRun = 126 // it was found but cannot be run
	NotFound  = 127 // it, or the interpreter it names, does not exist
)

// An Error says why a program cannot be run. errors.Is finds the error number that execve(2) would have answered:
// ENOENT, EACCES, ENOEXEC, EISDIR and so on.
type Error struct {
	Path string // the program, as far as it was found: a path, or the name looked for
	Code int    // CannotRun or NotFound
	Err  error  // the sentence
}

// ExitCode is Code: what a shell would exit with.
func (e *Error) ExitCode() int { return e.Code }

func (e *Error) Error() string { return fmt.Sprintf("cannot run %q: %v", e.Path, e.Err) }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// fault is one sentence and the error number that stands behind it.
type fault struct {
	text  string
	errno syscall.Errno
	short bool // the file ends before it should: it may still be on its way
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.errno }

func missing(format string, args ...any) error {
	return &fault{text: fmt.Sprintf(format, args...), errno: syscall.ENOENT}
}

func denied(format string, args ...any) error {
	return &fault{text: fmt.Sprintf(format, args...), errno: syscall.EACCES}
}

func noExec(format string, args ...any) error {
	return &fault{text: fmt.Sprintf(format, args...), errno: syscall.ENOEXEC}
}

// short says that a file of size bytes needs at least need.
func short(size int64, need uint64) error {
	text := fmt.Sprintf("it is cut short: %d of at least %d bytes are there; was it still being copied?", size, need)
	return &fault{text: text, errno: syscall.ENOEXEC, short: true}
}

func isShort(err error) bool {
	var f *fault
	return errors.As(err, &f) && f.short
}

// refuse turns a sentence into the error that Open returns.
func refuse(path string, err error) *Error {
	e := &Error{Path: path, Code: CannotRun, Err: err}
	if errors.Is(err, syscall.ENOENT) {
		e.Code = NotFound
	}
	return e
}

// unprovenError is a program that did not show what ENTRYPOINT_VERIFY, or its sender, demands.
type unprovenError struct {
	error
	reason string
}

func unproven(reason string, err error) error { return &unprovenError{err, reason} }

// VerifyReason says what was wanting, for those who count: missing (no signature), signature (none that is good), pin, sha256.
func (e *unprovenError) VerifyReason() string { return e.reason }
func (e *unprovenError) Unwrap() error        { return e.error }
