package applet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// toolLines are the command lines that tools run in containers, as their sources and documents have them.
var toolLines = []struct {
	tool, line string
	want       tarArgs
}{
	{"kubectl cp, to a pod", "tar -xmf - -C /app", tarArgs{extract: true, touch: true, archive: "-", dir: "/app"}},
	{"kubectl cp --no-preserve", "tar --no-same-permissions --no-same-owner -xmf - -C /app",
		tarArgs{extract: true, touch: true, archive: "-", dir: "/app", samePermissions: no, setBits: no, sameOwner: no}},
	{"kubectl cp, older", "tar xf - -C /app", tarArgs{extract: true, archive: "-", dir: "/app"}},
	{"kubectl cp, older, with times", "tar xmf - -C /", tarArgs{extract: true, touch: true, archive: "-", dir: "/"}},
	{"kubectl cp, from a pod", "tar cf - /var/log/app", tarArgs{create: true, archive: "-", sources: []source{{"", "/var/log/app"}}}},
	{"kubectl exec, as its help has it", "tar xf - -C /tmp/bar", tarArgs{extract: true, archive: "-", dir: "/tmp/bar"}},
	{"Skaffold", "tar xmf - -C / --no-same-owner", tarArgs{extract: true, touch: true, archive: "-", dir: "/", sameOwner: no}},
	{"Tilt", "tar -C / -x -v -f -", tarArgs{extract: true, verbose: true, archive: "-", dir: "/"}},
	{"Tilt, older", "tar -C / -x -f -", tarArgs{extract: true, archive: "-", dir: "/"}},
	{"Tilt, oldest", "tar -C / -x -f /dev/stdin", tarArgs{extract: true, archive: "/dev/stdin", dir: "/"}},
	{"Docker Compose watch", "tar -v -C / -x -f -", tarArgs{extract: true, verbose: true, archive: "-", dir: "/"}},
	{"a gzip stream by hand", "tar xzf - -C /app", tarArgs{extract: true, gzip: true, archive: "-", dir: "/app"}},
	{"a download by hand", "tar -czf - -C /data .", tarArgs{create: true, gzip: true, archive: "-", dir: "/data", sources: []source{{"/data", "."}}}},
	{"long options", "tar --extract --file=- --directory=/ --verbose --touch --gzip",
		tarArgs{extract: true, archive: "-", dir: "/", verbose: true, touch: true, gzip: true}},
	{"long options, values apart", "tar --create --file - --directory /x -- -odd",
		tarArgs{create: true, archive: "-", dir: "/x", sources: []source{{"/x", "-odd"}}}},
	{"letters with two values", "tar xfC - /app", tarArgs{extract: true, archive: "-", dir: "/app"}},
	{"a value in the word", "tar -xf- -C/app -ppo", tarArgs{extract: true, archive: "-", dir: "/app", samePermissions: yes, setBits: yes, sameOwner: no}},
	{"several directories", "tar c -C /a x -C b y", tarArgs{create: true, dir: "/a/b", sources: []source{{"/a", "x"}, {"/a/b", "y"}}}},
	{"options without effect", "tar x --warning=no-timestamp -U --no-overwrite-dir --numeric-owner", tarArgs{extract: true}},
}

func TestToolLines(t *testing.T) {
	for _, row := range toolLines {
		got, err := parseTar(strings.Fields(row.line)[1:])
		if err != nil {
			t.Errorf("%s: %s: %v", row.tool, row.line, err)
			continue
		}
		if diff := cmp.Diff(row.want, got, cmp.AllowUnexported(tarArgs{}, source{})); diff != "" {
			t.Errorf("%s: %s:\n%s", row.tool, row.line, diff)
		}
	}
}

func TestRefusedLines(t *testing.T) {
	for line, want := range map[string]string{
		"":                         "give -x or -c",
		"xk":                       `"k"`,
		"-xjf -":                   `"-j"`,
		"-x --strip-components=1":  `"--strip-components"`,
		"-x --absolute-names":      `"--absolute-names"`,
		"-xP":                      `"-P"`,
		"-x --to-command=sh":       `"--to-command"`,
		"-x --checkpoint-action=x": `"--checkpoint-action"`,
		"-c -I sh x":               `"-I"`,
		"-x -c":                    "either -x or -c",
		"-v":                       "either -x or -c",
		"-xf /tmp/archive":         `"/tmp/archive"`,
		"-cf /dev/stdin x":         `"/dev/stdin"`,
		"-xf - name":               "whole archives",
		"-cf -":                    "name a file",
		"-xf":                      "value is missing",
		"xfC -":                    "value is missing",
		"-x --verbose=yes":         "takes no value",
	} {
		if _, err := parseTar(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

func TestRmLines(t *testing.T) {
	for line, want := range map[string]rmArgs{
		"-rf /app/a /app/b":        {recursive: true, force: true, paths: []string{"/app/a", "/app/b"}},
		"-r -f -- -x":              {recursive: true, force: true, paths: []string{"-x"}},
		"-f":                       {force: true},
		"a -Rv":                    {recursive: true, verbose: true, paths: []string{"a"}},
		"--recursive --force -- a": {recursive: true, force: true, paths: []string{"a"}},
	} {
		got, err := parseRm(strings.Fields(line))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(rmArgs{})); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", line, err, diff)
		}
	}
	for _, line := range []string{"", "-i a", "--no-preserve-root -rf /", "-r"} {
		if _, err := parseRm(strings.Fields(line)); err == nil {
			t.Errorf("%q is taken", line)
		}
	}
}

func FuzzArgs(f *testing.F) {
	for _, row := range toolLines {
		f.Add(strings.Join(strings.Fields(row.line)[1:], "\x00"))
	}
	f.Add("-f\xff")
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, "\x00")
		if a, err := parseTar(words); err == nil && !a.help && a.extract == a.create {
			t.Errorf("%q: neither or both: %+v", words, a)
		}
		if a, err := parseRm(words); err == nil && len(a.paths) == 0 && !a.force {
			t.Errorf("%q: nothing to remove: %+v", words, a)
		}
	})
}
