package artifact

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/sys/unix"
)

// signer is a minisign key made by hand.
type signer struct {
	id     [8]byte
	public ed25519.PublicKey
	secret ed25519.PrivateKey
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	s := new(signer)
	_, _ = rand.Read(s.id[:])
	var err error
	s.public, s.secret, err = ed25519.GenerateKey(nil)
	must(t, err)
	return s
}

func encode(parts ...[]byte) string {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return base64.StdEncoding.EncodeToString(all)
}

func (s *signer) key() string { return "minisign:" + encode([]byte("Ed"), s.id[:], s.public) }

// sign writes a signature file of algorithm "Ed" or "ED".
func (s *signer) sign(alg string, body []byte, comment string) []byte {
	if alg == "ED" {
		sum := blake2b.Sum512(body)
		body = sum[:]
	}
	sig := ed25519.Sign(s.secret, body)
	global := ed25519.Sign(s.secret, append(append([]byte{}, sig...), comment...))
	return fmt.Appendf(nil, "untrusted comment: any\n%s\ntrusted comment: %s\n%s\n", encode([]byte(alg), s.id[:], sig), comment, encode(global))
}

func verifier(t testing.TB, items ...string) *Verifier {
	t.Helper()
	v, err := ParseVerify(strings.Join(items, ","))
	must(t, err)
	return v
}

func TestParseVerify(t *testing.T) {
	good := newSigner(t).key()
	sum := strings.Repeat("aB", 32)
	if v, err := ParseVerify(""); v != nil || err != nil {
		t.Errorf("nothing: %v, %v", v, err)
	}
	v, err := ParseVerify(good + " , sha256:" + sum)
	if err != nil || len(v.keys) != 1 || !v.pins[strings.ToLower(sum)] {
		t.Errorf("%+v, %v", v, err)
	}
	zeros := "minisign:" + encode([]byte("Ed"), make([]byte, 40))
	for _, text := range []string{
		" ", ",", good + ",", "sha256:", "sha256:abc", "sha256:" + sum + "00", "minisign:", "minisign:RW", sum, "md5:" + sum,
		"minisign:" + encode([]byte("XX"), make([]byte, 40)), zeros, "minisign:/etc/key.pub", good[:len(good)-4],
	} {
		if v, err := ParseVerify(text); err == nil || v != nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if _, err := ParseVerify("one:1," + good + ",two"); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not both faults: %v", err)
	}
}

// TestSignatures has each thing that can be wrong with one.
func TestSignatures(t *testing.T) {
	mine, other, stranger := newSigner(t), newSigner(t), newSigner(t)
	path := server(t, tempDir(t))
	body, sigfile := contents(t, path), path+signatureSuffix
	tampered := append([]byte{}, body...)
	tampered[len(tampered)-1]++
	edit := func(line int, with string) string {
		lines := strings.Split(string(mine.sign("ED", body, "v1")), "\n")
		lines[line] = with
		return strings.Join(lines, "\n")
	}
	imposter := *stranger
	imposter.id = mine.id
	good := mine.sign("Ed", body, "v1")
	cases := map[string]struct{ text, refusal string }{
		"legacy":           {string(good), ""},
		"prehashed":        {string(mine.sign("ED", body, "v1")), ""},
		"second key":       {string(other.sign("ED", body, "v1")), ""},
		"CR LF":            {strings.ReplaceAll(string(good), "\n", "\r\n"), ""},
		"other bytes":      {string(mine.sign("Ed", tampered, "v1")), "does not fit"},
		"other bytes, ED":  {string(mine.sign("ED", tampered, "v1")), "does not fit"},
		"unknown key":      {string(stranger.sign("ED", body, "v1")), "is by the key " + keyID(stranger.id)},
		"same number":      {string(imposter.sign("ED", body, "v1")), "does not fit"},
		"comment changed":  {edit(2, "trusted comment: v2"), "does not fit"},
		"no comment":       {edit(2, "comment: v1"), "no trusted comment"},
		"unknown":          {string(mine.sign("Ex", body, "v1")), "unknown algorithm"},
		"empty":            {"", "malformed"},
		"half":             {string(good[:len(good)/2]), "malformed"},
		"something else":   {strings.Repeat("hello\n", 9), "malformed"},
		"very long":        {strings.Repeat("x", maxSignature+1), "longer than"},
		"legacy said ED":   {strings.Replace(string(good), encode([]byte("Ed"))[:2], encode([]byte("ED"))[:2], 1), ""},
		"signature of key": {mine.key(), "malformed"},
	}
	delete(cases, "legacy said ED")
	s, _ := store(t, StoreOptions{Verify: verifier(t, other.key(), mine.key())})
	refusedBy(t, s, path, "does not exist; sign it")
	for name, c := range cases {
		write(t, sigfile, c.text, 0o644)
		if c.refusal != "" {
			t.Run(name, func(t *testing.T) { refusedBy(t, s, path, c.refusal) })
			continue
		}
		if i := opened(t, s, path).Info(); !strings.HasPrefix(i.Verified, "minisign key ") || i.Comment != "v1" {
			t.Errorf("%s: %+v", name, i)
		}
	}
	must(t, os.Remove(sigfile))
	must(t, unix.Mkfifo(sigfile, 0o644))
	refusedBy(t, s, path, "FIFO")
}

// TestSignatureOfLink finds it beside the link and beside its target.
func TestSignatureOfLink(t *testing.T) {
	k := newSigner(t)
	dir := tempDir(t)
	target := server(t, filepath.Join(dir, "v2"))
	link := filepath.Join(dir, "current")
	must(t, os.Symlink("v2/server", link))
	s, _ := store(t, StoreOptions{Verify: verifier(t, k.key())})
	refusedBy(t, s, link, link+".minisig")
	good, bad := k.sign("ED", contents(t, target), "2"), k.sign("ED", []byte("old"), "1")
	write(t, target+signatureSuffix, string(good), 0o644)
	must(t, opened(t, s, link).Close())
	write(t, link+signatureSuffix, string(bad), 0o644) // left from before: the other one is good
	must(t, opened(t, s, link).Close())
	write(t, target+signatureSuffix, string(bad), 0o644)
	refusedBy(t, s, link, "does not fit")
}

// TestMinisign verifies what the program minisign signs, both ways.
func TestMinisign(t *testing.T) {
	dir := tempDir(t)
	path := server(t, dir)
	minisign := func(args ...string) {
		cmd := exec.Command("minisign", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("minisign %q: %v: %s", args, err, out)
		}
	}
	minisign("-G", "-W", "-p", "key.pub", "-s", "key.sec")
	key := "minisign:" + strings.Split(string(contents(t, filepath.Join(dir, "key.pub"))), "\n")[1]
	s, _ := store(t, StoreOptions{Verify: verifier(t, key)})
	for _, mode := range []string{"-H", "-l"} {
		minisign("-S", mode, "-s", "key.sec", "-m", path, "-t", "release 7")
		if i := opened(t, s, path).Info(); i.Comment != "release 7" || !strings.Contains(string(contents(t, filepath.Join(dir, "key.pub"))), strings.TrimPrefix(i.Verified, "minisign key ")) {
			t.Errorf("%s: %+v", mode, i)
		}
	}
}

func TestPins(t *testing.T) {
	path := server(t, tempDir(t))
	s, _ := store(t, StoreOptions{Verify: verifier(t, "sha256:"+strings.Repeat("00", 32))})
	refusedBy(t, s, path, "is not pinned")
	k := newSigner(t)
	s.verify = verifier(t, "sha256:"+strings.Repeat("00", 32), k.key())
	refusedBy(t, s, path, "is not signed")
	write(t, path+signatureSuffix, string(k.sign("ED", contents(t, path), "x")), 0o644)
	must(t, opened(t, s, path).Close())
}

// TestVerifiedFile: a copy in a file that was verified is executed by descriptor, not by a name that could lead elsewhere by then.
func TestVerifiedFile(t *testing.T) {
	path := server(t, tempDir(t))
	s, _ := store(t, StoreOptions{StateDir: tempDir(t), Verify: verifier(t, fmt.Sprintf("sha256:%x", sha256.Sum256(contents(t, path))))})
	s.sealed = func() error { return errors.New("not here") }
	a := opened(t, s, path)
	if _, fd := a.Exec(); a.Info().Exec != inFile || fd != a.FD() {
		t.Errorf("%+v, descriptor %d", a.Info(), fd)
	}
}

// TestTruncatedWhileVerified has a copy in a file that somebody of our own uid cuts off.
func TestTruncatedWhileVerified(t *testing.T) {
	s, _ := store(t, StoreOptions{StateDir: tempDir(t)})
	a := opened(t, s, server(t, tempDir(t)))
	must(t, os.Truncate(a.copy.path, 0))
	err := a.mapped(func(b []byte) error {
		blake2b.Sum512(b)
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Error(err)
	}
}

// upload is a memory file as a client makes it.
func upload(t testing.TB, body []byte, seals int) int {
	t.Helper()
	return uploadOf(t, body, int64(len(body)), seals)
}

func withMode(t testing.TB, fd int, mode uint32) int {
	t.Helper()
	must(t, unix.Fchmod(fd, mode))
	return fd
}

func aPipe(t testing.TB) int {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return int(r.Fd())
}

// uploadOf is one of so many bytes, with a hole behind body.
func uploadOf(t testing.TB, body []byte, size int64, seals int) int {
	t.Helper()
	f, err := NewMemory("upload")
	must(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.Write(body)
	must(t, err)
	must(t, f.Truncate(size))
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	must(t, err)
	return int(f.Fd())
}

func TestAdopt(t *testing.T) {
	body, err := small()
	must(t, err)
	dir := tempDir(t)
	for _, state := range []string{"", tempDir(t)} {
		s, _ := store(t, StoreOptions{StateDir: state})
		fd := upload(t, body, allSeals)
		a, err := s.Adopt(t.Context(), fd, "./server", dir, Want{})
		must(t, err)
		if i := a.Info(); i.Exec != inMemory || i.Memory < int64(len(body)) || !i.Modified.IsZero() || a.Path() != dir+"/./server" || a.Same() || a.FD() == fd {
			t.Errorf("%+v, path %q, same %v", i, a.Path(), a.Same())
		}
		if run(t, a) != 3 {
			t.Error("it does not run")
		}
		sum, err := a.Hash(t.Context())
		must(t, err)
		must(t, a.Close())
		var st unix.Stat_t
		must(t, unix.Fstat(fd, &st)) // still the caller's
		s.sealed = func() error { return errors.New("not here") }
		if a, err = s.Adopt(t.Context(), fd, "./server", dir, Want{SHA256: strings.ToUpper(sum)}); state == "" {
			if err == nil || !strings.Contains(err.Error(), "ENTRYPOINT_STATE_DIR") {
				t.Errorf("%v", err)
			}
			continue
		}
		must(t, err)
		if i := a.Info(); i.Exec != inFile || !strings.Contains(i.Why, "not here") || run(t, a) != 3 {
			t.Errorf("%+v", i)
		}
		must(t, a.Close())
	}
}

// TestUploadsRefused has each thing that can be wrong with one.
func TestUploadsRefused(t *testing.T) {
	body, err := small()
	must(t, err)
	s, _ := store(t, StoreOptions{})
	cases := map[string]struct {
		fd   int
		want Want
		part string
	}{
		"closed":      {999, Want{}, "bad file descriptor"},
		"file":        {int(openFile(t, server(t, tempDir(t))).Fd()), Want{}, "no memory file"},
		"directory":   {int(openFile(t, "/").Fd()), Want{}, "is a directory"},
		"not sealed":  {upload(t, body, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK), Want{}, "not sealed"},
		"writable":    {upload(t, body, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL), Want{}, "not sealed"},
		"may grow":    {upload(t, body, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL), Want{}, "not sealed"},
		"may shrink":  {upload(t, body, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SEAL), Want{}, "not sealed"},
		"no right":    {withMode(t, upload(t, body, allSeals), 0o600), Want{}, "may not be executed (mode 0600)"},
		"pipe":        {aPipe(t), Want{}, "is a FIFO"},
		"holes":       {uploadOf(t, body, 1<<40, allSeals), Want{}, "has holes"},
		"empty":       {upload(t, nil, allSeals), Want{}, "is empty"},
		"half":        {upload(t, body[:len(body)/2], allSeals), Want{}, "cut short"},
		"script":      {upload(t, []byte("#!/bin/sh\n"), allSeals), Want{}, "it is a script"},
		"text":        {upload(t, []byte("hello, world"), allSeals), Want{}, "no known format"},
		"other sum":   {upload(t, body, allSeals), Want{SHA256: strings.Repeat("0", 64)}, "was expected"},
		"bad sum":     {upload(t, body, allSeals), Want{SHA256: "x"}, "no SHA-256 sum"},
		"no verifier": {upload(t, body, allSeals), Want{Signature: []byte{}}, "names no minisign key"},
	}
	for name, c := range cases {
		a, err := s.Adopt(t.Context(), c.fd, "/app/server", "", c.want)
		if err == nil {
			a.Close()
			t.Errorf("%s: accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), c.part) || !strings.HasPrefix(err.Error(), `cannot run "/app/server": `) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func openFile(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// TestVerifiedUploads need a signature or a pin.
func TestVerifiedUploads(t *testing.T) {
	body, err := small()
	must(t, err)
	k := newSigner(t)
	s, _ := store(t, StoreOptions{Verify: verifier(t, k.key())})
	fd := upload(t, body, allSeals)
	for part, sig := range map[string][]byte{
		"came without a signature": nil, "the signature that came with it is malformed": {}, "does not fit": k.sign("ED", []byte("x"), "c"), "": k.sign("ED", body, "c"),
	} {
		a, err := s.Adopt(t.Context(), fd, "/app/server", "", Want{Signature: sig})
		switch {
		case part != "" && (err == nil || !strings.Contains(err.Error(), part)):
			t.Errorf("%s: %v", part, err)
		case part == "":
			must(t, err)
			if i := a.Info(); i.Comment != "c" {
				t.Errorf("%+v", i)
			}
			must(t, a.Close())
		}
	}
}

// TestPinnedUploads pass by the pin alone, but a signature that came along has to be good.
func TestPinnedUploads(t *testing.T) {
	body, err := small()
	must(t, err)
	k := newSigner(t)
	s, _ := store(t, StoreOptions{Verify: verifier(t, fmt.Sprintf("sha256:%x", sha256.Sum256(body)), k.key())})
	fd := upload(t, body, allSeals)
	a, err := s.Adopt(t.Context(), fd, "/app/server", "", Want{})
	must(t, err)
	if i := a.Info(); i.Verified != "sha256 pin" {
		t.Errorf("%+v", i)
	}
	must(t, a.Close())
	if _, err := s.Adopt(t.Context(), fd, "/app/server", "", Want{Signature: k.sign("ED", []byte("x"), "c")}); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("a bad signature of a pinned program: %v", err)
	}
	other := upload(t, append(append([]byte{}, body...), 0), allSeals)
	if _, err := s.Adopt(t.Context(), other, "/app/server", "", Want{}); err == nil || !strings.Contains(err.Error(), "without a signature") {
		t.Errorf("another program: %v", err)
	}
}

func FuzzSignature(f *testing.F) {
	k := newSigner(f)
	body := []byte("the bytes")
	v := verifier(f, k.key())
	for _, alg := range []string{"Ed", "ED"} {
		f.Add(k.sign(alg, body, "comment"))
	}
	f.Add([]byte("untrusted comment: \n\ntrusted comment: \n"))
	memory, err := NewMemory("x")
	must(f, err)
	_, err = memory.Write([]byte("other bytes"))
	must(f, err)
	a := &Artifact{file: memory}
	a.measure()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := v.check(a, signature{"it", text}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v", err)
		}
	})
}

func FuzzParseVerify(f *testing.F) {
	f.Add("")
	f.Add("sha256:" + strings.Repeat("0f", 32))
	f.Add(newSigner(f).key() + ", sha256:")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVerify(text)
		if (v == nil) != (text == "" || err != nil) || v != nil && len(v.pins)+len(v.keys) == 0 {
			t.Errorf("%+v, %v", v, err)
		}
	})
}
