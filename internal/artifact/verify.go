package artifact

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/jedisct1/go-minisign"
	"golang.org/x/sys/unix"
)

// A Verifier knows what a program has to show before it is run: one of several SHA-256 sums, or a signature by one of
// several minisign keys. It is not changed after ParseVerify, and may be used by several goroutines at once.
type Verifier struct {
	pins map[string]bool // lower-case hexadecimal
	keys []minisign.PublicKey
}

// ParseVerify reads ENTRYPOINT_VERIFY: a list, separated by commas, of sha256:HEX and minisign:PUBLICKEY, of which a
// program needs to satisfy one. An empty text is nil, which demands nothing; a list of nothing is an error. All faults
// are reported at once.
func ParseVerify(text string) (*Verifier, error) {
	if text == "" {
		return nil, nil
	}
	v := &Verifier{pins: map[string]bool{}}
	var faults []error
	for _, item := range strings.Split(text, ",") {
		if err := v.add(strings.TrimSpace(item)); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return v, nil
}

func (v *Verifier) add(item string) error {
	scheme, value, ok := strings.Cut(item, ":")
	switch {
	case item == "":
		return errors.New("an entry is empty; write sha256:HEX or minisign:PUBLICKEY")
	case ok && scheme == "sha256":
		pin, err := parseSum(value)
		if err != nil {
			return err
		}
		v.pins[pin] = true
		return nil
	case ok && scheme == "minisign":
		key, err := parseKey(value)
		if err != nil {
			return err
		}
		v.keys = append(v.keys, key)
		return nil
	}
	return fmt.Errorf("%.80q is neither sha256:HEX nor minisign:PUBLICKEY", item)
}

// parseSum reads a SHA-256 sum.
func parseSum(text string) (string, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return "", fmt.Errorf("%.80q is no SHA-256 sum of 64 hexadecimal digits", text)
	}
	return strings.ToLower(text), nil
}

// parseKey reads a public key as minisign prints it.
func parseKey(text string) (minisign.PublicKey, error) {
	key, err := minisign.NewPublicKey(text)
	if err != nil {
		return key, fmt.Errorf("%.80q is no minisign public key: 56 characters that begin with RW", text)
	}
	if key.SignatureAlgorithm != [2]byte{'E', 'd'} {
		return key, fmt.Errorf("%.80q is a public key of an unknown algorithm; minisign's begin with RW", text)
	}
	if key.PublicKey == [32]byte{} { // a placeholder, and one under which anybody can sign
		return key, fmt.Errorf("%.80q is a public key of zeros", text)
	}
	return key, nil
}

// keyID is the number of a key as minisign prints it: hexadecimal, without leading zeros.
func keyID(id [8]byte) string { return fmt.Sprintf("%X", binary.LittleEndian.Uint64(id[:])) }

// vouch checks what is demanded of a program's bytes, and notes by what it passed. paths are where its signature may lie,
// if none came with it.
func (s *Store) vouch(ctx context.Context, a *Artifact, want Want, paths []string) error {
	if err := expected(ctx, a, want.SHA256); err != nil {
		return err
	}
	switch v := s.verify; {
	case want.Signature != nil:
		return v.signed(a, []signature{{"the signature that came with it", want.Signature}})
	case v == nil:
		return nil
	default:
		return v.satisfied(ctx, a, paths)
	}
}

// expected compares a program with the sum that its sender gave.
func expected(ctx context.Context, a *Artifact, sum string) error {
	if sum == "" {
		return nil
	}
	want, err := parseSum(sum)
	if err != nil {
		return fmt.Errorf("what it is compared with is wrong: %w", err)
	}
	got, err := a.Hash(ctx)
	if err != nil {
		return err
	}
	if got != want {
		return unproven("sha256", denied("its sha256 is %s, but %s was expected; was it changed on its way?", got, want))
	}
	return nil
}

// satisfied accepts a pinned program, else one with a signature.
func (v *Verifier) satisfied(ctx context.Context, a *Artifact, paths []string) error {
	sum := ""
	if len(v.pins) > 0 {
		var err error
		if sum, err = a.Hash(ctx); err != nil {
			return err
		}
		if v.pins[sum] {
			a.info.Verified = "sha256 pin"
			return nil
		}
	}
	if len(v.keys) == 0 {
		return unproven("pin", denied("its sha256 %s is not pinned in ENTRYPOINT_VERIFY", sum))
	}
	found, err := signatures(paths)
	if err != nil {
		return unproven("missing", err)
	}
	return v.signed(a, found)
}

// signature is the text of a signature file.
type signature struct {
	name string // for messages
	text []byte
}

const (
	signatureSuffix = ".minisig"
	// maxSignature bounds a signature file: four short lines.
	maxSignature = 16 << 10
)

// beside is where the signature of the file at path may lie: beside it, and beside what it is a link to.
func beside(path string) []string {
	paths := []string{path + signatureSuffix}
	if target, err := filepath.EvalSymlinks(path); err == nil && target != path {
		paths = append(paths, target+signatureSuffix)
	}
	return paths
}

// signatures reads the signature files that are there.
func signatures(paths []string) (found []signature, err error) {
	if len(paths) == 0 {
		return nil, denied("it came without a signature, which ENTRYPOINT_VERIFY demands; send one along")
	}
	for _, path := range paths {
		text, err := readSignature(path)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, denied("its signature %q cannot be used: %v", path, err)
		}
		found = append(found, signature{fmt.Sprintf("its signature %q", path), text})
	}
	if len(found) == 0 {
		return nil, denied("it is not signed, as ENTRYPOINT_VERIFY demands: %q does not exist; sign it with minisign -S", paths[0])
	}
	return found, nil
}

// readSignature reads a regular file, and never waits for one.
func readSignature(path string) ([]byte, error) {
	p, err := openProgram(path, false)
	if err != nil {
		return nil, err
	}
	defer p.file.Close()
	if !p.readable {
		return nil, errors.New("it may not be read")
	}
	text, err := io.ReadAll(io.LimitReader(p.file, maxSignature+1))
	if err == nil && len(text) > maxSignature {
		err = fmt.Errorf("it is longer than %d bytes", maxSignature)
	}
	return text, err
}

// signed accepts a program for which one of the signatures is good. The error is about the first one.
func (v *Verifier) signed(a *Artifact, all []signature) error {
	if v == nil || len(v.keys) == 0 {
		return unproven("signature", denied("a signature came with it, but ENTRYPOINT_VERIFY names no minisign key to check it with"))
	}
	var first error
	for _, s := range all {
		err := v.check(a, s)
		if err == nil {
			return nil
		}
		if first == nil {
			first = unproven("signature", denied("%s %v", s.name, err))
		}
	}
	return first
}

// check verifies one signature. The error goes on where the signature's name ends.
func (v *Verifier) check(a *Artifact, s signature) error {
	sig, err := parseSignature(s.text)
	if err != nil {
		return err
	}
	err = fmt.Errorf("is by the key %s, which ENTRYPOINT_VERIFY does not name", keyID(sig.KeyId))
	for i := range v.keys {
		key := &v.keys[i]
		if key.KeyId != sig.KeyId {
			continue
		}
		if err = a.verified(key, sig); err == nil {
			a.info.Verified = "minisign key " + keyID(key.KeyId)
			a.info.Comment = strings.TrimPrefix(sig.TrustedComment, trustedComment)
			return nil
		}
	}
	return err
}

const trustedComment = "trusted comment: "

// parseSignature reads a signature file.
func parseSignature(text []byte) (minisign.Signature, error) {
	sig, err := minisign.DecodeSignature(string(text))
	if err != nil {
		return sig, errors.New("is malformed: four lines are expected, as minisign writes them")
	}
	if alg := sig.SignatureAlgorithm; alg != [2]byte{'E', 'd'} && alg != [2]byte{'E', 'D'} {
		return sig, fmt.Errorf("is of the unknown algorithm %q", alg[:])
	}
	if !strings.HasPrefix(sig.TrustedComment, trustedComment) {
		return sig, errors.New("is malformed: its third line is no trusted comment")
	}
	return sig, nil
}

// verified checks a signature over the bytes that will run, without reading them into our own memory.
func (a *Artifact) verified(key *minisign.PublicKey, sig minisign.Signature) error {
	return a.mapped(func(b []byte) error {
		if ok, err := key.Verify(b, sig); err == nil && ok {
			return nil
		}
		return errors.New("does not fit: the program, the signature or its trusted comment was changed")
	})
}

// mapped calls look with the program's bytes. A file that somebody truncates meanwhile is an error: sealed memory cannot
// be, but files below the state directory are safe only from others than our own uid.
func (a *Artifact) mapped(look func([]byte) error) (err error) {
	b, err := unix.Mmap(a.FD(), 0, int(a.own.Size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return plain("cannot be checked", err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = errors.New("cannot be checked: the private copy was changed meanwhile")
		}
		err = errors.Join(err, unix.Munmap(b))
	}()
	return look(b)
}
