package applog

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// stamp is the time in the name of a rotated file: names sort as times do.
const stamp = "20060102T150405.000000"

const (
	packed = ".gz"
	// half ends the name of a file that is being packed.
	half = ".gz.half"
)

// rotatedName is a name that nothing has yet.
func rotatedName(path string, now time.Time) (string, error) {
	for range 1000 {
		name := path + "." + now.UTC().Format(stamp)
		_, plain := os.Lstat(name)
		_, zipped := os.Lstat(name + packed)
		if errors.Is(plain, fs.ErrNotExist) && errors.Is(zipped, fs.ErrNotExist) {
			return name, nil
		}
		now = now.Add(time.Microsecond)
	}
	return "", fmt.Errorf("no free name beside %q", path)
}

// rotated lists the rotated files of a log, the oldest first.
func rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if _, err := time.Parse(stamp, strings.TrimSuffix(rest, packed)); ok && err == nil {
			names = append(names, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	sort.Slice(names, func(i, j int) bool {
		return strings.TrimSuffix(names[i], packed) < strings.TrimSuffix(names[j], packed)
	})
	return names, nil
}

// archive packs what was rotated and removes what is too old. It is called on a goroutine of its own, one at a time for a path: nobody
// who writes lines waits for it. What the end of ctx interrupts is begun anew by the next call.
func archive(ctx context.Context, path string, spec Spec) error {
	names, err := rotated(path)
	if err != nil {
		return err
	}
	var faults []error
	for spec.Count > 0 && len(names) > spec.Count {
		if err := os.Remove(names[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
		names = names[1:]
	}
	for _, name := range names {
		if !spec.Gzip || strings.HasSuffix(name, packed) || ctx.Err() != nil {
			continue
		}
		if err := pack(ctx, name); err != nil && ctx.Err() == nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// pack replaces a file by a packed one: at any time one of the two is whole.
func pack(ctx context.Context, name string) (err error) {
	from, err := os.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := os.OpenFile(name+half, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(name + half)
		}
	}()
	z, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err == nil {
		_, err = io.Copy(z, untilDone{ctx, from})
		err = errors.Join(err, z.Close())
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return fmt.Errorf("cannot pack %q: %w", name, err)
	}
	_ = os.Chtimes(name+half, info.ModTime(), info.ModTime()) // for people
	if err = os.Rename(name+half, name+packed); err != nil {
		return err
	}
	return os.Remove(name)
}

type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(b []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(b)
}
