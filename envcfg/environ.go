package envcfg

import (
	"fmt"
	"slices"
	"strings"
)

// fileSuffix makes the name of the variable that names a file with the value.
const fileSuffix = "_FILE"

// hookWords end the names of the variables that a hook is told of its occasion.
var hookWords = []string{"EVENT", "APP", "GENERATION", "PREVIOUS", "ACTIVE", "PID", "PIDS", "PATH", "SHA256", "CAUSE", "CODE", "RESULT", "SOCKETS", "REASON"}

// handedDown reports whether name is a variable that an outer init gives to
// the app it runs, which may be this one. It is not configuration, and it is
// not passed on.
func handedDown(name string) bool {
	if hook, ok := strings.CutPrefix(name, Prefix+"HOOK_"); ok {
		return slices.Contains(hookWords, hook)
	}
	return name == Prefix+"GENERATION" || name == Prefix+"WORKER"
}

// AppEnv returns environ without the variables that are ours, in the same
// order. What Kubernetes made for a Service named like us stays: it is the
// app's. The slice is new; ENTRYPOINT_APP_ENV and ENTRYPOINT_ENV_FILE are not
// applied (see Merge).
func (c *Config) AppEnv(environ []string) []string {
	out := make([]string, 0, len(environ))
	for _, kv := range environ {
		name, _, found := strings.Cut(kv, "=")
		if found && strings.HasPrefix(name, Prefix) && !isServiceLink(name) {
			continue
		}
		out = append(out, kv)
	}
	return out
}

// Merge returns base with the K=V texts of more set in it: a variable that is
// there keeps its place and gets the last value given, a new one is appended.
// The slice is new and no variable is in it twice.
func Merge(base []string, more ...[]string) []string {
	out := make([]string, 0, len(base))
	at := make(map[string]int, len(base))
	for _, list := range append([][]string{base}, more...) {
		for _, kv := range list {
			name, _, _ := strings.Cut(kv, "=")
			if i, ok := at[name]; ok {
				out[i] = kv
				continue
			}
			at[name] = len(out)
			out = append(out, kv)
		}
	}
	return out
}

// isServiceLink reports whether name has one of the forms that Kubernetes
// gives to the variables of a Service called "entrypoint" or "entrypoint-x":
//
//	ENTRYPOINT[_X]_SERVICE_HOST
//	ENTRYPOINT[_X]_SERVICE_PORT[_NAME]
//	ENTRYPOINT[_X]_PORT
//	ENTRYPOINT[_X]_PORT_<number>_TCP|UDP|SCTP[_PROTO|_PORT|_ADDR]
func isServiceLink(name string) bool {
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(Prefix, "_"))
	if !ok || !upperWords(rest) {
		return false
	}
	if strings.HasSuffix(rest, "_SERVICE_HOST") || strings.HasSuffix(rest, "_SERVICE_PORT") || strings.HasSuffix(rest, "_PORT") {
		return true
	}
	if at := strings.Index(rest, "_SERVICE_PORT_"); at >= 0 && at+len("_SERVICE_PORT_") < len(rest) {
		return true
	}
	for _, part := range []string{"_PROTO", "_ADDR"} {
		if whole, found := strings.CutSuffix(rest, part); found {
			return isPortLink(whole)
		}
	}
	return isPortLink(rest)
}

// isPortLink reports whether rest ends in _PORT_<number>_<protocol>.
func isPortLink(rest string) bool {
	at := strings.LastIndex(rest, "_PORT_")
	if at < 0 {
		return false
	}
	number, protocol, _ := strings.Cut(rest[at+len("_PORT_"):], "_")
	if number == "" || strings.Trim(number, "0123456789") != "" {
		return false
	}
	return protocol == "TCP" || protocol == "UDP" || protocol == "SCTP"
}

// upperWords reports whether s consists of what a Service's name becomes: an
// underscore, then upper case letters, digits and underscores.
func upperWords(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return strings.HasPrefix(s, "_")
}

// strayLink reports whether the value of a variable that has the name of a
// service link is not what Kubernetes writes there: somebody may have meant to
// configure us. Only the form without a number is easy to write by mistake.
func strayLink(name, value string) bool {
	if strings.HasSuffix(name, "_SERVICE_PORT") || !strings.HasSuffix(name, "_PORT") {
		return false
	}
	if isPortLink(strings.TrimSuffix(strings.TrimPrefix(name, "ENTRYPOINT"), "_PORT")) {
		return false
	}
	scheme, _, found := strings.Cut(value, "://")
	return !found || (scheme != "tcp" && scheme != "udp" && scheme != "sctp")
}

// unknownFault is the fault for a name under the prefix that is not ours.
func unknownFault(name string, table *table) *Fault {
	text := fmt.Sprintf("cannot use %s: there is no such variable", quote(name))
	if upper := strings.ToUpper(name); upper != name && table.knows(upper) {
		text = fmt.Sprintf("cannot use %s: names are upper case: write %s", quote(name), upper)
	} else if near := table.nearest(name); near != "" {
		text += fmt.Sprintf(": did you mean %s?", near)
	}
	return &Fault{Name: name, Text: text}
}
