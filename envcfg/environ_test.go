package envcfg

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// linkForms says again, in another way, what isServiceLink accepts.
var linkForms = regexp.MustCompile(`^ENTRYPOINT(_[A-Z0-9_]+)?(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT|_PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)$`)

// kubernetesLinks is what a pod gets for the Services "entrypoint" and
// "entrypoint-db".
var kubernetesLinks = []string{
	"ENTRYPOINT_SERVICE_HOST=10.96.0.7", "ENTRYPOINT_SERVICE_PORT=80", "ENTRYPOINT_SERVICE_PORT_HTTP=80",
	"ENTRYPOINT_PORT=tcp://10.96.0.7:80", "ENTRYPOINT_PORT_80_TCP=tcp://10.96.0.7:80", "ENTRYPOINT_PORT_80_TCP_PROTO=tcp",
	"ENTRYPOINT_PORT_80_TCP_PORT=80", "ENTRYPOINT_PORT_80_TCP_ADDR=10.96.0.7",
	"ENTRYPOINT_DB_SERVICE_HOST=10.96.0.8", "ENTRYPOINT_DB_SERVICE_PORT=53", "ENTRYPOINT_DB_SERVICE_PORT_DNS_TCP=53",
	"ENTRYPOINT_DB_PORT=udp://10.96.0.8:53", "ENTRYPOINT_DB_PORT_53_UDP=udp://10.96.0.8:53", "ENTRYPOINT_DB_PORT_53_UDP_PROTO=udp",
	"ENTRYPOINT_DB_PORT_53_UDP_PORT=53", "ENTRYPOINT_DB_PORT_53_UDP_ADDR=10.96.0.8",
	"ENTRYPOINT_DB_PORT_9_SCTP=sctp://10.96.0.8:9", "ENTRYPOINT_SERVICE_PORT_FILE=81",
}

func TestServiceLinksPass(t *testing.T) {
	c, err := Load(kubernetesLinks)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kubernetesLinks, c.AppEnv(kubernetesLinks)); diff != "" {
		t.Error(diff)
	}
	if w := c.Warnings(); len(w) != 1 {
		t.Errorf("warnings: %q", w)
	}
	want, _ := Load(nil)
	if diff := cmp.Diff(want.Entries(), c.Entries()); diff != "" {
		t.Error(diff)
	}
}

func hookWordsWithPrefix() []string {
	var names []string
	for _, word := range hookWords {
		names = append(names, "HOOK_"+word)
	}
	return names
}

// TestNoVariableLooksLikeAServiceLink guards every name of ours, now and
// later, against the forms that Kubernetes makes up.
func TestNoVariableLooksLikeAServiceLink(t *testing.T) {
	names := laterNames()
	for _, f := range newTable().fields {
		names = append(names, f.name)
	}
	for _, name := range append([]string{"GENERATION", "WORKER"}, hookWordsWithPrefix()...) {
		if !handedDown(Prefix + name) {
			t.Errorf("%s%s is an error in a nested init", Prefix, name)
		}
		names = append(names, Prefix+name)
	}
	for _, name := range names {
		for _, form := range []string{name, name + fileSuffix} {
			if isServiceLink(form) || linkForms.MatchString(form) {
				t.Errorf("%s has the form of a service link", form)
			}
		}
	}
}

// laterNames are variables of the design that later versions will have.
func laterNames() []string {
	return prefixed(strings.Fields(`APP_WEB_COMMAND APP_WEB_LISTEN`))
}

func TestServiceLinkForms(t *testing.T) {
	names := []string{"ENTRYPOINT_PORT_TCP", "ENTRYPOINT_PORT_80", "ENTRYPOINT_PORT_80_ICMP", "ENTRYPOINT_PORT_80_TCP_HOST",
		"ENTRYPOINT_PORT_80_TCP_PORT_PROTO", "ENTRYPOINT_PORT__TCP", "ENTRYPOINT_PORT_8x_TCP", "ENTRYPOINT_SERVICE_PORT_", "ENTRYPOINTX_PORT",
		"ENTRYPOINT_x_PORT", "entrypoint_port", "ENTRYPOINT_HOST", "ENTRYPOINT_SERVICE", "ENTRYPOINT_X-Y_PORT", "ENTRYPOINT_PORT_80_TCP_PORT_ADDR",
		"ENTRYPOINT_A_PORT_1_TCP_PORT_2_UDP", "ENTRYPOINT_", "ENTRYPOINT", "ENTRYPOINT_PORTS", "ENTRYPOINT_SERVICE_HOSTS"}
	for _, kv := range kubernetesLinks {
		name, _, _ := strings.Cut(kv, "=")
		names = append(names, name)
	}
	for _, name := range names {
		if got, want := isServiceLink(name), linkForms.MatchString(name); got != want {
			t.Errorf("isServiceLink(%s) = %v, want %v", name, got, want)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	tests := []struct{ set, want string }{
		{"ENTRYPOINT_LISTN=x", `cannot use "ENTRYPOINT_LISTN": there is no such variable: did you mean ENTRYPOINT_LISTEN?`},
		{"ENTRYPOINT_LISTEN_FIEL=x", `cannot use "ENTRYPOINT_LISTEN_FIEL": there is no such variable`},
		{"ENTRYPOINT_LITSEN_FILE=x", `cannot use "ENTRYPOINT_LITSEN_FILE": there is no such variable: did you mean ENTRYPOINT_LISTEN_FILE?`},
		{"ENTRYPOINT_START_TIMEUOT=x", `cannot use "ENTRYPOINT_START_TIMEUOT": there is no such variable: did you mean ENTRYPOINT_START_TIMEOUT?`},
		{"ENTRYPOINT_DRI=x", `cannot use "ENTRYPOINT_DRI": there is no such variable: did you mean ENTRYPOINT_DIR?`},
		{"entrypoint_listen=x", `cannot use "entrypoint_listen": names are upper case: write ENTRYPOINT_LISTEN`},
		{"Entrypoint_Listen_File=x", `cannot use "Entrypoint_Listen_File": names are upper case: write ENTRYPOINT_LISTEN_FILE`},
		{"ENTRYPOINT_listen=", `cannot use "ENTRYPOINT_listen": names are upper case: write ENTRYPOINT_LISTEN`},
		{"ENTRYPOINT_=", `cannot use "ENTRYPOINT_": there is no such variable`},
		{"ENTRYPOINT_GENERATION_FILE=", `cannot use "ENTRYPOINT_GENERATION_FILE": there is no such variable`},
		{"ENTRYPOINT_DIR_FILE_FILE=", `cannot use "ENTRYPOINT_DIR_FILE_FILE": there is no such variable`},
	}
	for _, tt := range tests {
		if _, err := Load([]string{tt.set}); err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", tt.set, err, tt.want)
		}
	}
}

// TestLaterNamesAreUnknown: what does not exist yet is refused, and no
// unrelated variable is suggested for it.
func TestLaterNamesAreUnknown(t *testing.T) {
	for _, name := range laterNames() {
		want := `cannot use "` + name + `": there is no such variable`
		if _, err := Load([]string{name + "=1"}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAppEnvStripsOurs(t *testing.T) {
	environ := []string{
		"PATH=/bin", "ENTRYPOINT_DIR=/", "B=ENTRYPOINT_X=1", "ENTRYPOINT_GENERATION=3", "ENTRYPOINT_WORKER=1", "no-equals-sign",
		"ENTRYPOINT_APP_ENV_FILE=/dev/null", "A=", "ENTRYPOINT_PORT=tcp://1:2", "ENTRYPOINT=keep", "entrypoint_theme=dark", "=odd", "PATH=/twice",
	}
	want := []string{"PATH=/bin", "B=ENTRYPOINT_X=1", "no-equals-sign", "A=", "ENTRYPOINT_PORT=tcp://1:2", "ENTRYPOINT=keep", "entrypoint_theme=dark", "=odd", "PATH=/twice"}
	c, err := Load(slicesWithout(environ, "ENTRYPOINT_APP_ENV_FILE=/dev/null"))
	if err != nil {
		t.Fatal(err) // an inherited GENERATION and WORKER are no errors
	}
	before := strings.Join(environ, "\n")
	if diff := cmp.Diff(want, c.AppEnv(environ)); diff != "" {
		t.Error(diff)
	}
	if strings.Join(environ, "\n") != before {
		t.Error("the argument was changed")
	}
}

func slicesWithout(list []string, drop string) []string {
	var out []string
	for _, s := range list {
		if s != drop {
			out = append(out, s)
		}
	}
	return out
}

func TestMerge(t *testing.T) {
	got := Merge([]string{"A=1", "B=2", "C=3"}, []string{"B=x", "D=4"}, nil, []string{"D=5", "A="})
	if diff := cmp.Diff([]string{"A=", "B=x", "C=3", "D=5"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNearest(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"LISTEN", "LISTEN"}, {"LISTN", "LISTEN"}, {"ILSTEN", "LISTEN"}, {"LISTENER", "LISTEN"}, {"LISTENERS", ""}, {"LIST", ""},
		{"HU", ""}, {"HUPP", "HUP"}, {"PUH", ""}, {"", ""}, {strings.Repeat("LISTEN", 100), ""},
	} {
		if got := nearest(tt.name, []string{"LISTEN", "HUP"}); got != tt.want {
			t.Errorf("nearest(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abcd", "badc", 2}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want || distance(tt.b, tt.a) != tt.want {
			t.Errorf("distance(%s, %s) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
