//go:build integration

package integration

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// minisigner signs as minisign does, by its description of the format.
type minisigner struct {
	id   [8]byte
	key  ed25519.PrivateKey
	text string // the public key, as minisign prints it
}

func newMinisigner(t *testing.T) *minisigner {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &minisigner{key: private}
	_, _ = rand.Read(m.id[:]) // never fails
	m.text = base64.StdEncoding.EncodeToString(append(append([]byte("Ed"), m.id[:]...), public...))
	return m
}

// number is the id as it is shown to people.
func (m *minisigner) number() string {
	return fmt.Sprintf("%X", binary.LittleEndian.Uint64(m.id[:]))
}

// sign writes FILE.minisig of a file, prehashed, and returns its name.
func (m *minisigner) sign(t *testing.T, file, comment string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	hash := blake2b.Sum512(b)
	signature := ed25519.Sign(m.key, hash[:])
	global := ed25519.Sign(m.key, append(append([]byte{}, signature...), comment...))
	text := fmt.Sprintf("untrusted comment: made by a test\n%s\ntrusted comment: %s\n%s\n",
		base64.StdEncoding.EncodeToString(append(append([]byte("ED"), m.id[:]...), signature...)), comment,
		base64.StdEncoding.EncodeToString(global))
	if err := os.WriteFile(file+".minisig", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file + ".minisig"
}

// verified starts a scene whose app is signed, with more of a Spec.
func (s *scene) verified(e engine.Engine, m *minisigner, settings string, spec engine.Spec) {
	s.t.Helper()
	spec.Env = append([]string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr, "ENTRYPOINT_VERIFY=minisign:" + m.text}, spec.Env...)
	spec.Files = map[string]string{server + ".minisig": m.sign(s.t, s.stamp(settings), "release one")}
	s.start(e, settings, spec)
	s.waitVersion(versionOf(settings))
}

// signed: put with and without a signature where one is demanded; what was put starts again after a restart.
func signed(t *testing.T, e engine.Engine) {
	s, m, other := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, newMinisigner(t), newMinisigner(t)
	s.verified(e, m, "version=v1", engine.Spec{})
	if facts, _ := s.facts(); facts.Exec != "memfd" || facts.Verified != "minisign key "+m.number() || facts.Comment != "release one" {
		t.Errorf("status: %+v", facts)
	}
	s.underLoad()
	file := s.stamp("version=v2")
	s.says(s.upload("version=v2"), 1, "it came without a signature, which ENTRYPOINT_VERIFY demands")
	s.copyIn(filepath.Join(s.dir, "server-v1.minisig"), "/tmp/of-another-file")
	s.copyIn(other.sign(t, file, "x"), "/tmp/by-a-stranger")
	s.copyIn(m.sign(t, file, "release two"), "/tmp/good")
	s.says(s.upload("version=v2", "--signature", "/tmp/by-a-stranger"), 1, "is by the key "+other.number()+", which ENTRYPOINT_VERIFY does not name")
	s.says(s.upload("version=v2", "--signature", "/tmp/of-another-file"), 1, "the signature that came with it does not fit")
	s.serves("v1", 1)
	s.says(s.uploaded("version=v2", "--signature", "/tmp/good"), 0, "replaced /app/server")
	if facts, _ := s.facts(); facts.Comment != "release two" {
		t.Errorf("status: %+v", facts)
	}
	s.lossless()
	s.again()
	s.waitVersion("v2")
}

// copyIn is `docker cp`.
func (s *scene) copyIn(file, path string) {
	s.t.Helper()
	if err := s.c.Copy(file, path); err != nil {
		s.t.Fatal(err)
	}
}

// signedStart: a container whose app is not what it should be does not start.
func signedStart(t *testing.T, e engine.Engine) {
	dir, m, other := t.TempDir(), newMinisigner(t), newMinisigner(t)
	file := filepath.Join(dir, "server")
	if err := binaries.Stamp(file, "version=v1"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		files  map[string]string
		verify string
		want   string
	}{
		{map[string]string{server: file}, "minisign:" + m.text, "it is not signed, as ENTRYPOINT_VERIFY demands"},
		{map[string]string{server: file, server + ".minisig": other.sign(t, file, "x")}, "minisign:" + m.text, "is by the key " + other.number()},
		{map[string]string{server: file}, "sha256:" + strings.Repeat("0", 64), "is not pinned in ENTRYPOINT_VERIFY"},
	} {
		c := startPlain(t, e, engine.Spec{Files: r.files, Command: []string{server, "listen=none"}, Env: []string{"ENTRYPOINT_VERIFY=" + r.verify}})
		if code, err := c.Wait(limit(t)); err != nil || code != 126 || !strings.Contains(c.Logs(), r.want) {
			t.Errorf("exit code %d (%v), want 126 and %q", code, err, r.want)
		}
	}
}

// signedWatch: signature and program come by docker cp; one that does not fit is refused and what serves goes on.
func signedWatch(t *testing.T, e engine.Engine) {
	s, m := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, newMinisigner(t)
	s.verified(e, m, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_WATCH=auto"}})
	s.underLoad()
	s.copyIn(s.stamp("version=bad"), server)
	st := s.waitStatus("a swap is refused", func(st status) bool { return len(st.swaps()) > 0 })
	if r := st.swaps()[0]; r.Code != 1 || !strings.Contains(r.Text, "minisig\" does not fit") {
		t.Errorf("swap %+v", r)
	}
	s.serves("v1", 1)
	s.copyIn(m.sign(t, s.stamp("version=v2"), "release two"), server+".minisig")
	s.copyIn(s.stamp("version=v2"), server)
	s.waitVersion("v2")
	// Both files are watched: the signature is refused with the bad program where the good one comes later than the watch waits.
	swaps := s.settled().swaps()
	for i, r := range swaps {
		if last := i == len(swaps)-1; (r.Code == 0) != last || !last && !strings.Contains(r.Text, "minisig\" does not fit") {
			t.Errorf("swaps %+v", swaps)
		}
	}
	if len(swaps) > 3 {
		t.Errorf("%d swaps, want at most three: %+v", len(swaps), swaps)
	}
	s.lossless()
}

// pinnedSums: one of several sums is enough, and no other program runs.
func pinnedSums(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	pins := "sha256:" + fileSum(t, s.stamp("version=v1")) + ",sha256:" + fileSum(t, s.stamp("version=v2"))
	s.start(e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr, "ENTRYPOINT_VERIFY=" + pins}})
	s.waitVersion("v1")
	s.underLoad()
	s.says(s.upload("version=v3"), 1, "is not pinned in ENTRYPOINT_VERIFY")
	s.put("version=v3")
	s.reload(1)
	s.serves("v1", 1)
	s.uploaded("version=v2")
	if facts, _ := s.facts(); facts.Verified != "sha256 pin" {
		t.Errorf("status: %+v", facts)
	}
	s.lossless()
}
