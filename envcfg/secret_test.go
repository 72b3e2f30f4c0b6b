package envcfg

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// secretValues are wrong for most variables, each in another way; all hold the
// same secret.
const secret = "Zq7-hunter2"

var secretValues = []string{
	secret, "-" + secret + "s", "[\"" + secret, "{\"A\":" + secret + "}", "{\"A\":\"" + secret + "\"", secret + "=" + secret,
	"HUP=" + secret, secret + "=reload", "1=" + secret, "A=\"" + secret, "A='" + secret, "a '" + secret, "| " + secret,
	"A=1," + secret, "A=" + secret + ",A=" + secret, "A=\"1\"" + secret, secret + "\x00", "[1,\"" + secret + "\"]", "{\"" + secret + " \":1}",
	":" + secret, "/" + secret + ":" + strings.Repeat("x", 200), "none", "10h", "0", "1", "TERM", "auto", secret + "\nB", "{\"A\":[\"" + secret + "\"]}",
}

// leaks reports whether the secret or a telling part of it is in text.
func leaks(text string) bool {
	return strings.Contains(text, "hunter") || strings.Contains(text, "Zq7") || strings.Contains(strings.ToLower(text), "zq7-")
}

// TestSecretsAreNeverShown sets every variable from a file, and APP_ENV also
// directly, to every value above.
func TestSecretsAreNeverShown(t *testing.T) {
	for _, value := range secretValues {
		path := write(t, value)
		for _, f := range newTable().fields {
			checkSecret(t, value, f.name+"_FILE="+path)
		}
		checkSecret(t, value, Prefix+"APP_ENV="+value)
		if !strings.HasPrefix(value, "/") { // an absolute path is shown
			checkSecret(t, value, Prefix+"APP_ENV_FILE="+value)
		}
		checkSecret(t, value, Prefix+"ENV_FILE="+path)
	}
}

func checkSecret(t *testing.T, value string, set string) {
	t.Helper()
	// The others bring the pair checks and warnings into play.
	with := []string{set}
	for _, other := range []string{"GRACE=1s", "RESTART_DELAY=20s", "HANDOFF=none"} {
		if name, _, _ := strings.Cut(Prefix+other, "="); !strings.HasPrefix(set, name+fileSuffix) {
			with = append(with, Prefix+other)
		}
	}
	c, err := Load(with)
	if err != nil {
		if leaks(err.Error()) {
			t.Errorf("%s with %q: %v", set, value, err)
		}
		return
	}
	json, err := c.JSON()
	if err != nil || leaks(string(json)) || leaks(fmt.Sprint(c.Entries())) || leaks(strings.Join(c.Warnings(), "\n")) {
		t.Errorf("%s with %q is shown, %v", set, value, err)
	}
}

// TestOthersAreQuoted is the other side: what is not a secret helps to find
// the mistake.
func TestOthersAreQuoted(t *testing.T) {
	got := faults(t, "SIGNALS="+secret+"=reload")
	if len(got) != 1 || !leaks(got[0]) {
		t.Errorf("%q", got)
	}
}

func TestValuesFromFilesAreHiddenInNumbers(t *testing.T) {
	c := load(t, "SHUTDOWN_TIMEOUT_FILE="+write(t, "47"), "GRACE=10")
	if w := c.Warnings(); len(w) != 1 || strings.Contains(w[0], "47") || !strings.Contains(w[0], Hidden) {
		t.Errorf("%q", w)
	}
	got := faults(t, "RESTART_DELAY_FILE="+write(t, "47"))
	if len(got) != 1 || strings.Contains(got[0], "47") {
		t.Errorf("%q", got)
	}
}

// TestFaultsOfOthers: what another package says about a text.
func TestFaultsOfOthers(t *testing.T) {
	name, bad := Prefix+"LISTEN", errors.Join(errors.New("hunter2 is bad"), errors.New("hunter3 is bad"))
	open := load(t, "LISTEN=hunter2,hunter3")
	want := "cannot use ENTRYPOINT_LISTEN: hunter2 is bad\ncannot use ENTRYPOINT_LISTEN: hunter3 is bad"
	if err := open.Fault(name, bad); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if open.Fault(name, nil) != nil {
		t.Error("a fault of nothing")
	}
	closed := load(t, "LISTEN_FILE="+write(t, "hunter2,hunter3"))
	var f *Fault
	if err := closed.Fault(name, bad); leaks(err.Error()) || !errors.As(err, &f) || f.Name != name {
		t.Errorf("%v", err)
	}
}
