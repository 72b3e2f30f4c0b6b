package envcfg

import (
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSignals(t *testing.T) {
	c := load(t, "SIGNALS= HUP=reload, USR2=RELOAD ,TERM=stop,QUIT=forward,15x=3,WINCH=ignore"[:56]+",SIGUSR1=SIGINT,rtmin+1=rtmax-1")
	want := Signals{
		syscall.SIGHUP: {Action: ActionReload}, syscall.SIGTERM: {Action: ActionStop}, syscall.SIGUSR2: {Action: ActionReload},
		syscall.SIGQUIT: {Action: ActionForward, Signal: syscall.SIGQUIT},
		syscall.SIGUSR1: {Action: ActionForward, Signal: syscall.SIGINT},
		35:              {Action: ActionForward, Signal: 63},
	}
	if diff := cmp.Diff(want, c.Signals); diff != "" {
		t.Error(diff)
	}
	if got := c.Signals.For(syscall.SIGINT); got != (Binding{ActionForward, syscall.SIGINT}) {
		t.Errorf("an unbound signal: %+v", got)
	}
	if got := load(t, "SIGNALS=15=3").Signals.For(syscall.SIGTERM); got != (Binding{ActionForward, syscall.SIGQUIT}) {
		t.Errorf("15=3: %+v", got)
	}
	if got := load(t, "SIGNALS=HUP=forward").Signals; got.For(syscall.SIGHUP).Action != ActionForward || got.For(syscall.SIGTERM).Action != ActionStop {
		t.Errorf("defaults do not stay: %v", got)
	}
}

func TestSignalsRefused(t *testing.T) {
	for set, want := range map[string]string{
		"HUP":            "not a binding of a signal",
		"HUP=restart":    `neither an action nor a signal: "restart"`,
		"KILL=stop":      "cannot be bound",
		"STOP=stop":      "cannot be bound",
		"CHLD=ignore":    "cannot be bound",
		"17=ignore":      "cannot be bound",
		"HUP=stop,1=3":   `a signal is bound twice: "1=3"`,
		"0=stop":         "not a signal number",
		"65=stop":        "not a signal number",
		"RTMIN-1=stop":   "not a signal",
		"RTMIN+31=stop":  "not a signal",
		"RTMAX+1=stop":   "not a signal",
		"RTMIN+=stop":    "not a signal",
		"SIGSIGHUP=stop": "not a signal",
		"=stop":          "not a signal",
		"HPU=reload":     "did you mean HUP?",
	} {
		if got := faults(t, "SIGNALS="+set); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q, want %s", set, got, want)
		}
	}
	if got := faults(t, "SIGNALS=A=stop,B=stop,HUP=stop"); len(got) != 2 {
		t.Errorf("two faults in one list: %q", got)
	}
}

// TestSignalNames: every signal can be written as it is shown.
func TestSignalNames(t *testing.T) {
	for sig := syscall.Signal(1); sig <= sigRTMax; sig++ {
		for _, name := range []string{signalName(sig), strings.ToLower("SIG" + signalName(sig))} {
			if sig == 32 || sig == 33 {
				name = strings.TrimPrefix(name, "sig") // have no name
			}
			if got, p := parseSignal(name); p != nil || got != sig {
				t.Errorf("signal %d is shown as %s, which is read as %d, %v", sig, name, got, p)
			}
		}
	}
	for name, want := range map[string]syscall.Signal{"CLD": syscall.SIGCHLD, "IOT": syscall.SIGABRT, "POLL": syscall.SIGIO, "RTMAX": 64, "RTMIN": 34} {
		if got, _ := parseSignal(name); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
}

func TestExitRemap(t *testing.T) {
	m := load(t, "EXIT_REMAP=143=0,130=0,0=255").ExitRemap
	for code, want := range map[int]int{143: 0, 130: 0, 0: 255, 1: 1, 255: 255} {
		if got := m.Apply(code); got != want {
			t.Errorf("Apply(%d) = %d, want %d", code, got, want)
		}
	}
	if got := ExitRemap(nil).Apply(143); got != 143 {
		t.Errorf("without a map 143 becomes %d", got)
	}
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"a":                         {"a"},
		"  a \t b\nc\r\n":           {"a", "b", "c"},
		`a 'b c' "d e" f\ g`:        {"a", "b c", "d e", "f g"},
		`a''b""c`:                   {"abc"},
		`a '' ""`:                   {"a", "", ""},
		`"a\"b\\c\$d\` + "`" + `e"`: {"a\"b\\c$d`e"},
		`"\n\a"`:                    {`\n\a`},
		`'\n"'`:                     {`\n"`},
		`a#b #c`:                    {"a#b", "#c"},
		`$HOME * ~ a=b {port}`:      {"$HOME", "*", "~", "a=b", "{port}"},
		`find . -exec x {} \;`:      {"find", ".", "-exec", "x", "{}", ";"},
		`a ';' "|" \&\& a|b`:        {"a", ";", "|", "&&", "a|b"},
		"a \\\n b\\\nc":             {"a", "bc"},
		"a\xff\xfe":                 {"a\xff\xfe"},
		"":                          nil,
		" \\\n ":                    nil,
	} {
		got, err := splitWords(line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q:\n%s", line, diff)
		}
	}
}

func TestCommandRefused(t *testing.T) {
	for line, want := range map[string]string{
		`a 'b`: "a quote ' is not closed", `a "b`: `a quote " is not closed`, `a "b\"`: `a quote " is not closed`, `a \`: "ends with a backslash",
		`a > b`: "needs a shell", `a &&`: "needs a shell", `a ; b`: "needs a shell", `[ -f a ]`: "not a JSON array of texts", `["a",1]`: "not a JSON array of texts",
		`["a",null]`: "it has a null", `["a"] x`: "not a JSON array of texts", `["\u0000"]`: "zero byte", `[]`: "without a program", `[""]`: "without a program", `   `: "without a program",
	} {
		if got := faults(t, "COMMAND="+line); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q, want %s", line, got, want)
		}
	}
}

func TestAppEnvForms(t *testing.T) {
	for text, want := range map[string]AppEnv{
		`A=1`:                                    {"A=1"},
		` A=1 , B=2 ,,`:                          {"A=1", "B=2"},
		`A=,B==x`:                                {"A=", "B==x"},
		`A="x,y",B='z,"'`:                        {"A=x,y", `B=z,"`},
		`"A=x,y" , 'B=1 '`:                       {"A=x,y", "B=1 "},
		`A= "x" ,B=it's`:                         {"A=x", "B=it's"},
		`A="\"\\\n"`:                             {`A="\\n`},
		`A={port},B=http://h:1/?a=b`:             {"A={port}", "B=http://h:1/?a=b"},
		`{"Z":"1,2","A":8080,"B":true,"C":1.50}`: {"Z=1,2", "A=8080", "B=true", "C=1.50"},
		`["B=x,y","A="]`:                         {"B=x,y", "A="},
		`[]`:                                     {}, `{}`: nil,
		"A=1\n,B=2": {"A=1", "B=2"},
	} {
		var got AppEnv
		if err := got.Decode(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", text, diff)
		}
	}
}

func TestAppEnvRefused(t *testing.T) {
	for text, want := range map[string]string{
		`A`: "item 1 is not NAME=value", `A=1,B`: "item 2 is not NAME=value", `=1`: "item 1 is not NAME=value", `A B=1`: "item 1 is not NAME=value",
		`A="1`: "item 1: a quote is not closed", `B=1,A='1`: "item 2: a quote is not closed", `A="1"2`: "item 1: there is text after the closing quote",
		`A=1,A=2`: "items 1 and 2 set the same variable", `{"A":null}`: "item 1 is not a text", `{"A":[1]}`: "item 1 is not a text", `{"A":{}}`: "item 1 is not a text",
		`{"A=B":1}`: "item 1 has no usable name", `{"":1}`: "item 1 has no usable name", `{"A":1`: "not valid JSON", `{"A":1} x`: "not valid JSON", `{"A" "b"}`: "not valid JSON",
		`[1]`: "not valid JSON", `["A"]`: "item 1 is not NAME=value", `["A=1"`: "not valid JSON", `[null]`: "item 1 is not NAME=value", `{"A":"\u0000"}`: "item 1 has a zero byte",
		`{"A":1,"A":2}`: "items 1 and 2 set the same variable",
	} {
		if got := faults(t, "APP_ENV="+text); len(got) != 1 || !strings.Contains(got[0], want) || !strings.Contains(got[0], "not shown") {
			t.Errorf("%s: %q, want %s", text, got, want)
		}
	}
}

func TestParseEnvFile(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                  {},
		"A=1":                               {"A=1"},
		"\ufeffA=1\r\n# c\n\n  B = 2 # x\n": {"A=1", "B=2"},
		"export A=1\nexport\tB=2\nexport=3\nexported=4": {"A=1", "B=2", "export=3", "exported=4"},
		"A=a#b\nB=#c\nC=\nD==":                          {"A=a#b", "B=", "C=", "D=="},
		`A='a "b" \n # c' # d`:                          {`A=a "b" \n # c`},
		`A="a\n\"b\" \$X \q 'c' #d"`:                    {"A=a\n\"b\" $X \\q 'c' #d"},
		"A='x\ny'\nB=\"1\n2\"\r\nC=3":                   {"A=x\ny", "B=1\n2", "C=3"},
		"A=1\nB=2\nA=3":                                 {"A=3", "B=2"},
		"A=it's\nB=$HOME `x`":                           {"A=it's", "B=$HOME `x`"},
		"A= 'x' \nB=\"\"":                               {"A=x", "B="},
		`A="\\n"`:                                       {`A=\n`},
	} {
		got, err := ParseEnvFile([]byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q:\n%s", text, diff)
		}
	}
}

func TestParseEnvFileRefused(t *testing.T) {
	for text, want := range map[string]string{
		"hunter2":                    "line 1: not NAME=value",
		"A=1\n\nhunter2\nB=2\n=x":    "line 3: not NAME=value\nline 5: the name before = is empty or has spaces or quotes in it",
		"A B=1":                      "line 1: the name before = is empty or has spaces or quotes in it",
		"A='x\ny'\n\"B\"=1":          "line 3: the name before = is empty or has spaces or quotes in it",
		"A='hunter2\nB=1":            "line 1: a quote is not closed",
		"A='hunter2' hunter2\nB":     "line 1: there is text after the closing quote\nline 2: not NAME=value",
		"A=\x00":                     "line 1: the value has a zero byte",
		"A=\"1\n2\n\" x\nB=1\nC C=1": "line 1: there is text after the closing quote",
	} {
		got, err := ParseEnvFile([]byte(text))
		if err == nil || got != nil || !strings.HasPrefix(err.Error(), want) || leaks(err.Error()) {
			t.Errorf("%q: %q, %v, want %s", text, got, err, want)
		}
	}
}

func TestReadEnvFileReadsAgain(t *testing.T) {
	path := write(t, "A=1")
	c := load(t, "ENV_FILE="+path)
	for _, text := range []string{"A=1", "A=2"} {
		rewrite(t, path, text)
		if got, err := c.ReadEnvFile(); err != nil || len(got) != 1 || got[0] != text {
			t.Errorf("%q, %v, want %s", got, err, text)
		}
	}
	rewrite(t, path, "hunter2")
	want := `cannot use the file "` + path + `" of ENTRYPOINT_ENV_FILE: line 1: not NAME=value`
	if _, err := c.ReadEnvFile(); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if got, err := load(t).ReadEnvFile(); got != nil || err != nil {
		t.Errorf("without a file: %q, %v", got, err)
	}
}
