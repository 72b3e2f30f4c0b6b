package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Files name a certificate and its key.
type Files struct {
	Name      string // of the listener; "": all that have none of their own
	Cert, Key string
}

// ParseTLS reads "[name=]cert.pem:key.pem", several separated by commas.
func ParseTLS(text string) ([]Files, error) {
	var list []Files
	var faults []error
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		f, err := parseFiles(item)
		if err == nil && slices.ContainsFunc(list, func(o Files) bool { return o.Name == f.Name }) {
			err = errors.New("that socket has a certificate already")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("cannot use the certificate %q: %w", item, err))
			continue
		}
		list = append(list, f)
	}
	return list, errors.Join(faults...)
}

func parseFiles(item string) (Files, error) {
	var f Files
	if name, rest, ok := strings.Cut(item, "="); ok && !strings.Contains(name, "/") {
		f.Name, item = name, rest
		if name == "" {
			return f, errors.New("the name before = is empty")
		}
	}
	var ok bool
	f.Cert, f.Key, ok = strings.Cut(item, ":")
	if !ok || f.Cert == "" || f.Key == "" || strings.Contains(f.Key, ":") {
		return f, errors.New("write the file of the certificate, a colon, and the file of its key")
	}
	return f, nil
}

// covers tells whether a listener speaks TLS.
func covers(list []Files, name string) bool {
	return slices.ContainsFunc(list, func(f Files) bool { return f.Name == "" || f.Name == name })
}

// fingerprint tells whether files have changed.
type fingerprint []stamp

type stamp struct {
	size     int64
	modified time.Time
	node     uint64
}

// maxPEM bounds a certificate file: a chain has some kilobytes.
const maxPEM = 1 << 20

// readPairs looks at the certificate files, and reads them if they are not those that the run has. They are not parsed here.
func (f *Front) readPairs(r *run, number uint64) *Pairs {
	answer := &Pairs{For: number}
	var now fingerprint
	for _, files := range f.o.TLS {
		for _, name := range []string{files.Cert, files.Key} {
			info, err := os.Stat(name) // through links: those of a volume are flipped
			if err != nil {
				answer.Err = fmt.Sprintf("cannot read a certificate: %v", err)
				return answer
			}
			now = append(now, stamp{info.Size(), info.ModTime(), inode(info)})
		}
	}
	if len(r.known) > 0 && slices.Equal(now, r.known) {
		answer.Same = true
		return answer
	}
	for _, files := range f.o.TLS {
		cert, err := readPEM(files.Cert)
		key, errKey := readPEM(files.Key)
		if err = errors.Join(err, errKey); err != nil {
			answer.Err = fmt.Sprintf("cannot read a certificate: %v", err)
			return answer
		}
		answer.List = append(answer.List, Pair{Name: files.Name, Cert: cert, Key: key})
	}
	r.known = now
	return answer
}

func readPEM(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%q has more than %d bytes", name, maxPEM)
	}
	return b, err
}

// inode is the number of a file.
func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
