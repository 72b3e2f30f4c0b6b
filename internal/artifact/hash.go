package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// hashChunk is read between two looks at the context: well below a millisecond of work, yet few system calls.
const hashChunk = 128 << 10

// hashOnce keeps a sum once it is known. turn holds one token: whoever has it may compute.
type hashOnce struct {
	init sync.Once
	turn chan struct{}
	sum  string
}

// Hash is the SHA-256 of the program's bytes in lower-case hexadecimal. The first call reads the whole file, so it
// takes as long as that takes, or until ctx is done; later calls return the same answer at once. It fails when the
// file may be executed but not read, and when it was written to since it was opened: the sum would then be of bytes
// that were never there together. A failure is not remembered.
func (a *Artifact) Hash(ctx context.Context) (string, error) {
	if !a.readable {
		return "", fmt.Errorf("cannot hash %q: uid %d may execute but not read it", a.path, os.Geteuid())
	}
	h := &a.sum
	h.init.Do(func() { h.turn = make(chan struct{}, 1) })
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("cannot hash %q: %w", a.path, context.Cause(ctx))
	}
	if h.sum != "" {
		return h.sum, nil
	}
	sum, err := a.digest(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot hash %q: %w", a.path, err)
	}
	h.sum = sum
	return sum, nil
}

func (a *Artifact) digest(ctx context.Context) (string, error) {
	sum := sha256.New()
	if err := feed(ctx, sum, io.NewSectionReader(a.file, 0, a.own.Size)); err != nil {
		return "", err
	}
	var now unix.Stat_t
	if err := a.fstat(&now); err != nil {
		return "", err
	}
	// The change time is left out: a hard link or an unlink changes it, but not a byte.
	if now.Size != a.own.Size || now.Mtim != a.own.Mtim {
		return "", errors.New("it was written to since it was opened")
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// feed copies r into sum, piece by piece, until its end or the end of ctx.
func feed(ctx context.Context, sum hash.Hash, r io.Reader) error {
	buf := make([]byte, hashChunk)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		sum.Write(buf[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fstat looks at the open file, and fails cleanly when it was closed.
func (a *Artifact) fstat(st *unix.Stat_t) error {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = retry(func() error { return unix.Fstat(int(fd), st) })
	})
	return errors.Join(err, failed)
}
