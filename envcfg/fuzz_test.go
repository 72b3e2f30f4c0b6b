package envcfg

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// FuzzLoad gives any text to any variable and to two at once: no panic, no
// trace in the process environment, sentences of one line, and what is
// accepted can be shown and read back.
func FuzzLoad(f *testing.F) {
	for i, text := range []string{"30s", "-1", "auto", "HUP=reload,15=3", `{"A":"1"}`, `a "b`, "[]", "143=0", "\x00", "\xff", " ", "1,2,,=", "ENTRYPOINT_X=1"} {
		for n := range 3 {
			f.Add(uint8(i*3+n), text, "X", "1")
		}
	}
	f.Add(uint8(0), "/\x98\xae \x02", "X", "1")
	f.Add(uint8(0), "", "entrypoint_dir", "x")
	f.Add(uint8(0), "", "ENTRYPOINT_PORT", "80")
	fields := newTable().fields
	for n := range fields { // each says what is wrong with a long value in a short sentence
		for _, unit := range []string{"x", "\xc5", "\u200b", "\U0010ffff", ",", "=", "x,", "\xc5=\xc5,", "7:", "/\xc5", "http:\xc5", "\"\xc5"} {
			f.Add(uint8(n), strings.Repeat(unit, 110/len(unit)), "X", "1")
			f.Add(uint8(n), strings.Repeat(unit, 5000), "X", "1")
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, value, name, other string) {
		variable := fields[int(which)%len(fields)]
		if variable.name == Prefix+"ENV_FILE" || strings.HasSuffix(strings.ToUpper(name), fileSuffix) {
			return // would read arbitrary files
		}
		environ := []string{variable.name + "=" + value, name + "=" + other, Prefix + name + "=" + other}
		if strings.Contains(name, "=") || strings.EqualFold(name, "ENV_FILE") {
			return
		}
		before := os.Environ()
		c, err := Load(environ)
		if !slices.Equal(before, os.Environ()) {
			t.Fatal("the process environment was changed")
		}
		if err != nil {
			for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
				if text := e.Error(); strings.ContainsAny(text, "\n\x00") || strings.Contains(text, "internal error") || len(text) > 1000 {
					t.Errorf("not a good sentence: %q", text)
				}
			}
			return
		}
		roundTrip(t, c)
	})
}

func roundTrip(t *testing.T, c *Config) {
	t.Helper()
	var environ []string
	for _, e := range c.Entries() {
		if !e.Secret {
			environ = append(environ, e.Name+"="+e.Value)
		}
	}
	again, err := Load(environ)
	if err != nil {
		t.Fatalf("what is shown cannot be read: %v", err)
	}
	for i, e := range again.Entries() {
		if want := c.Entries()[i]; !want.Secret && e.Value != want.Value {
			t.Errorf("%s: %q became %q", e.Name, want.Value, e.Value)
		}
	}
}

func FuzzParseEnvFile(f *testing.F) {
	for _, text := range []string{"", "A=1\nB=\"x\ny\" # c\n", "export A='1'", "A='", "A", "=", "\ufeff#\r\n", "A=\\\n", "A=\"\\", "A=1\x00", "A=hunter2\nhunter2"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		vars, err := ParseEnvFile(data)
		if err != nil && vars != nil {
			t.Fatal("both variables and an error")
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error quotes the file: %v", err)
		}
		seen := map[string]bool{}
		for _, kv := range vars {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || !validName(name) || strings.Contains(kv, "\x00") || seen[name] {
				t.Errorf("not a variable: %q", kv)
			}
			seen[name] = true
		}
	})
}

// FuzzSplitWords: words quoted again are split into the same words.
func FuzzSplitWords(f *testing.F) {
	for _, line := range []string{"", "a b", `a 'b c' "d\"e" f\ g`, "a \\\n b", "'", `"\`, "a | b", "\xff'\xfe'", `""`, `\`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, w := range words {
			b.WriteString(" '" + strings.ReplaceAll(w, "'", `'\''`) + "'")
		}
		again, err := splitWords(b.String())
		if err != nil || !slices.Equal(words, again) {
			t.Errorf("%q: %q, then %q, %v", line, words, again, err)
		}
	})
}

func FuzzAppEnv(f *testing.F) {
	for _, text := range []string{"A=1,B='x,y'", `{"A":1}`, `["A=1"]`, `A="`, ",", "[", "{", `"A=1"x`, "A='hunter2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var e AppEnv
		err := e.Decode(text)
		if err != nil {
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error quotes the value: %v", err)
			}
			return
		}
		for _, kv := range e {
			if name, _, ok := strings.Cut(kv, "="); !ok || !validName(name) {
				t.Errorf("not a variable: %q", kv)
			}
		}
	})
}
