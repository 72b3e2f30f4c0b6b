package artifact

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestVerifyReasons: refusals for want of proof say of which, however deep they are wrapped; others do not.
func TestVerifyReasons(t *testing.T) {
	path := server(t, tempDir(t))
	body := contents(t, path)
	mine, stranger := newSigner(t), newSigner(t)
	pin := "sha256:" + strings.Repeat("0", 64)
	open := func(verify, signature string) error {
		_ = os.Remove(path + signatureSuffix)
		if signature != "" {
			must(t, os.WriteFile(path+signatureSuffix, []byte(signature), 0o600))
		}
		s, err := NewStore(StoreOptions{Verify: verifier(t, verify)})
		must(t, err)
		defer s.Close()
		_, err = s.Open(t.Context(), path, "", "")
		return err
	}
	adopt := func(want Want) error {
		s, err := NewStore(StoreOptions{})
		must(t, err)
		defer s.Close()
		_, err = s.Adopt(t.Context(), upload(t, body, allSeals), "/app/server", "", want)
		return err
	}
	bad := string(stranger.sign("ED", body, "v1"))
	cases := map[string]struct {
		err  error
		want string
	}{
		"not pinned":     {open(pin, ""), "pin"},
		"no signature":   {open(mine.key(), ""), "missing"},
		"a stranger's":   {open(mine.key(), bad), "signature"},
		"not asked for":  {adopt(Want{Signature: []byte(bad)}), "signature"},
		"another sum":    {adopt(Want{SHA256: strings.Repeat("0", 64)}), "sha256"},
		"a faulty sum":   {adopt(Want{SHA256: "x"}), ""},
		"nothing wanted": {errors.Join(unix.ENOENT), ""},
	}
	for name, c := range cases {
		var e interface{ VerifyReason() string }
		got := ""
		if errors.As(c.err, &e) {
			got = e.VerifyReason()
		}
		if c.err == nil || got != c.want {
			t.Errorf("%s: %q, %v", name, got, c.err)
		}
	}
}
