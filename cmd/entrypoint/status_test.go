package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/reaper"
)

// sampleStatus is an init in the middle of things.
func sampleStatus() swap.Status {
	at := func(ago time.Duration) time.Time { return start.Add(-ago) }
	return swap.Status{
		Schema: 1, Version: "0.1.0", State: "swapping", PID: 1, StartedAt: at(26 * time.Hour), Handoff: "inherit",
		HandoffWhy: "sockets are in ENTRYPOINT_LISTEN", Command: []string{"/app/server", "-addr", ":8080", "-motd", "hello world"},
		Active: 3, Candidate: 4, Remembered: true, Restarts: 1, Reaped: reaper.Stats{Children: 4, Orphans: 1},
		Generations: []swap.Generation{
			{Number: 1, State: swap.Exited, StartedAt: at(26 * time.Hour), EndedAt: at(25 * time.Hour), Exit: "exited with code 0"},
			{Number: 2, State: swap.Draining, PID: 17, StartedAt: at(25 * time.Hour), Load: &handoff.Load{Known: true, Open: 3, Busy: 2, Queued: 1}},
			{Number: 3, State: swap.Active, PID: 41, StartedAt: at(130 * time.Second), SHA256: "0123456789abcdef", StatusText: "serving 12 users \x1b[31m and a good deal more than fits into a line of this page"},
			{Number: 4, State: swap.Starting, PID: 1234567, StartedAt: at(time.Second), Load: &handoff.Load{}},
		},
		Sockets: []handoff.SocketStatus{
			{Name: "tcp8080", Address: "tcp://[::]:8080", Mode: "steered", Slots: []handoff.SlotStatus{{Generation: 2, Queue: 1}, {Generation: 3, Current: true, Portion: 1}, {Generation: 4}}},
			{Name: "admin", Address: "unix:///run/admin.sock", Mode: "renamed", Why: "the directory is full", Slots: []handoff.SlotStatus{{Generation: 3, Current: true, Portion: 1}}},
		},
		LastSwaps: []swap.SwapRecord{
			{At: at(130 * time.Second), Kind: swap.Reload, Cause: "signal HUP", From: 2, To: 3, Code: 0, Text: "generation 3 is active", ElapsedMS: 312},
			{At: at(25 * time.Hour), Kind: swap.Reload, Cause: "signal HUP", From: 1, To: 2, Code: 0, Text: "generation 2 is active", ElapsedMS: 298},
		},
	}
}

const wantStatus = `state       swapping, generation 4 is the candidate, generation 3 is active, one
            more swap is to follow
next        ` + "`entrypoint abort`" + ` cancels the swap
init        entrypoint 0.1.0, pid 1, up 1d2h
command     /app/server -addr :8080 -motd "hello world"
handoff     inherit: sockets are in ENTRYPOINT_LISTEN
last swap   2m10s ago by signal HUP, done after 312ms: generation 3 is active
reaped      4 children, 1 orphan; 1 restart

  GEN  STATE         PID    AGE  TRAFFIC  OPEN  SHA256
    4  starting  1234567     1s        -     ?  -
    3  active         41  2m10s     100%     -  0123456789ab
       serving 12 users \x1b[31m and a good deal more than fits into a line of
       this page
    2  draining       17   1d1h        -     3  -
       2 of its connections are busy, 1 wait to be accepted
    1  exited          -   1h0m        -     -  -
       exited with code 0

  SOCKET   ADDRESS                 TRAFFIC                   MODE
  tcp8080  tcp://[::]:8080         gen 3, gen 2 (1 waiting)  steered
  admin    unix:///run/admin.sock  gen 3                     renamed
       the directory is full
`

const wantWaiting = `state       waiting
next        ` + "`entrypoint run -- CMD`" + ` starts an app
init        entrypoint 0.1.0, pid 7, up 0s
command     none: waiting for ` + "`entrypoint run -- CMD`" + `
handoff     none
last swap   5s ago by command run (pid 9, uid 0), rejected in phase start after
            40ms: generation 1 was refused: exited with code 3
last good   1h0m ago by start, done after 12ms: generation 1 is active
reaped      0 children, 0 orphans; 0 restarts
`

func TestStatusPage(t *testing.T) {
	s := sampleStatus()
	if diff := cmp.Diff(wantStatus, statusPage(&s, start, 80)); diff != "" {
		t.Error(diff)
	}
	waiting := swap.Status{Version: "0.1.0", State: "waiting", PID: 7, StartedAt: start, Handoff: "none", LastSwaps: []swap.SwapRecord{
		{At: start.Add(-5 * time.Second), Cause: "command run (pid 9, uid 0)", Code: 1, Phase: "start", Text: "generation 1 was refused: exited with code 3", ElapsedMS: 40},
		{At: start.Add(-time.Hour), Cause: "start", Text: "generation 1 is active", ElapsedMS: 12}}}
	if diff := cmp.Diff(wantWaiting, statusPage(&waiting, start, 80)); diff != "" {
		t.Error(diff)
	}
}

// crowdedStatus has long words everywhere, and as many of everything as there may be.
func crowdedStatus() swap.Status {
	s := sampleStatus()
	long := strings.Repeat("0123456789abcdef", 16)
	s.HandoffWhy, s.Command = long, []string{"/srv/" + long, "-x", "a b"}
	s.Drift, s.Image, s.Barred, s.Memory = true, long, long, 1<<40
	s.Kept = []swap.Kept{{Generation: 2, Path: "/" + long, SHA256: long}}
	s.Generations[2].Artifact = &swap.Artifact{Source: "put by " + long, Exec: "path", Why: long, Size: 1 << 40, Verified: long, Comment: "日本 " + long}
	s.Generations[2].Path = "/srv/" + long
	for i := range s.Generations {
		s.Generations[i].Number += 99990
		s.Generations[i].PID = 4194304
		s.Generations[i].Load = &handoff.Load{Known: true, Open: 50000, Busy: 50000, Queued: 4096}
		s.Generations[i].StatusText = long
	}
	s.Active, s.Candidate = s.Active+99990, s.Candidate+99990
	s.Sockets[0].Name, s.Sockets[0].Why, s.Sockets[0].Learned = long[:64], long, true
	s.Sockets[1].Address = "unix:///" + long[:107]
	s.NotHeld = []handoff.Native{{Address: "tcp://[2001:db8:1111:2222:3333:4444:5555:6666]:65535", Why: long}}
	for i := range 50 {
		s.LastSwaps = append(s.LastSwaps, swap.SwapRecord{At: start, Cause: "watch /" + long, From: 99990 + i, To: 99991 + i, Code: i % 6, Phase: "promote", Text: long, ElapsedMS: 86400000})
	}
	return s
}

func TestPagesFitTheirColumns(t *testing.T) {
	crowded, sample := crowdedStatus(), sampleStatus()
	for _, columns := range []int{60, 80, 200} {
		for name, text := range map[string]string{
			"status": statusPage(&sample, start, columns), "crowded": statusPage(&crowded, start, columns),
			"history": historyPage(&sample, columns), "crowded history": historyPage(&crowded, columns),
		} {
			for line := range strings.SplitSeq(text, "\n") {
				if n := utf8.RuneCountInString(line); n > columns {
					t.Errorf("%s at %d columns: %d in %q", name, columns, n, line)
				}
				if strings.HasSuffix(line, "…") && name == "status" {
					t.Errorf("%s at %d columns: cut: %q", name, columns, line)
				}
			}
		}
	}
}

func TestNextSteps(t *testing.T) {
	at := start.Add(time.Minute)
	refused := []swap.SwapRecord{{At: start, Code: 1, Text: "no"}}
	two := []swap.Generation{{Number: 1, State: swap.Active}, {Number: 2, State: swap.Canary, Share: "5%"}}
	for name, c := range map[string]struct {
		s    swap.Status
		want string
	}{
		"well":           {swap.Status{State: "serving", Active: 1, Command: []string{"/a"}, Generations: two[:1], LastSwaps: []swap.SwapRecord{{At: start}}}, ""},
		"no app":         {swap.Status{State: "waiting"}, "run -- CMD"},
		"open trial":     {swap.Status{State: "swapping", Active: 1, Candidate: 2, Command: []string{"/a"}, Generations: two}, "promote abort"},
		"timed trial":    {swap.Status{State: "swapping", Active: 1, Candidate: 2, Command: []string{"/a"}, Generations: []swap.Generation{two[0], {Number: 2, Share: "5%", StepEnds: at}}}, "abort"},
		"first start":    {swap.Status{State: "starting", Candidate: 1, Command: []string{"/a"}, Generations: []swap.Generation{{Number: 1}}}, ""},
		"back-off":       {swap.Status{State: "backoff", Command: []string{"/a"}, Kept: []swap.Kept{{Generation: 7}}}, "reload rollback"},
		"unhealthy":      {swap.Status{State: "serving", Active: 1, Command: []string{"/a"}, Generations: []swap.Generation{{Number: 1, Unhealthy: "503"}}, Kept: []swap.Kept{{}}}, "rollback restart"},
		"unhealthy only": {swap.Status{State: "serving", Active: 1, Command: []string{"/a"}, Generations: []swap.Generation{{Number: 1, Unhealthy: "503"}}}, "restart"},
		"refused":        {swap.Status{State: "serving", Active: 1, Command: []string{"/a"}, Generations: two[:1], LastSwaps: refused}, "reload"},
		"barred":         {swap.Status{State: "serving", Active: 1, Command: []string{"/a"}, Generations: two[:1], LastSwaps: refused, Barred: "12"}, "reload reload --force"},
		"stopping":       {swap.Status{State: "stopping", Active: 1, Command: []string{"/a"}, Generations: two[:1], LastSwaps: refused}, ""},
	} {
		var got []string
		for _, step := range nextSteps(&c.s) {
			_, rest, ok := strings.Cut(step, "`entrypoint ")
			word, _, _ := strings.Cut(rest, "`")
			first, _, _ := strings.Cut(word, " ")
			if !ok || find(first) == nil {
				t.Errorf("%s: %q names no command", name, step)
			}
			got = append(got, word)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: got %q, want %q", name, text, c.want)
		}
	}
}

func TestTrafficOfGenerations(t *testing.T) {
	s := swap.Status{Sockets: []handoff.SocketStatus{
		{Slots: []handoff.SlotStatus{{Generation: 1, Current: true, Portion: 0.95}, {Generation: 2, Portion: 0.05}}},
		{Slots: []handoff.SlotStatus{{Generation: 1, Current: true, Portion: 0.95}, {Generation: 2, Portion: 0.05}}},
	}}
	if one, two := traffic(&s, swap.Generation{Number: 1}), traffic(&s, swap.Generation{Number: 2}); one != "95%" || two != "5%" {
		t.Errorf("got %s and %s", one, two)
	}
	s.Sockets[1].Slots = []handoff.SlotStatus{{Generation: 1, Current: true, Portion: 1}} // a unix path stays where it is
	if one, two := traffic(&s, swap.Generation{Number: 1}), traffic(&s, swap.Generation{Number: 2}); one != "<=100%" || two != "<=5%" {
		t.Errorf("where the addresses differ: got %s and %s", one, two)
	}
	s.Sockets[1].Slots = []handoff.SlotStatus{{Current: true, Portion: 1}}
	if got := traffic(&s, swap.Generation{Number: 1}); got != "-" {
		t.Errorf("one socket for all: got %s", got)
	}
}

func TestHistory(t *testing.T) {
	s := sampleStatus()
	f := &fakeInit{status: s}
	address := serve(t, f)
	got := use(t, address, "status", "--history", "--json")
	var h struct {
		Schema    int
		LastSwaps []swap.SwapRecord `json:"last_swaps"`
	}
	if err := json.Unmarshal([]byte(got.out), &h); err != nil || h.Schema != swap.StatusSchema {
		t.Fatalf("%v in %s", err, got.out)
	}
	if diff := cmp.Diff(s.LastSwaps, h.LastSwaps); diff != "" {
		t.Error(diff)
	}
	s.LastSwaps = append(s.LastSwaps, swap.SwapRecord{At: start, Cause: "command reload", From: 3, To: 4, Code: 1, Phase: "ready", Text: "not ready after 60s", ElapsedMS: 60000})
	lines := strings.Split(historyPage(&s, 80), "\n")
	if len(lines) != 8 || !strings.Contains(lines[1], "3 > 4  rejected") || !strings.Contains(lines[2], "by command reload; rejected in phase ready: not ready after 60s") ||
		!strings.Contains(lines[5], "1 > 2") {
		t.Errorf("got %q", lines)
	}
}

func TestStatusUsage(t *testing.T) {
	for _, args := range [][]string{{"status", "now", "and"}, {"status", "--json", "--watch"}, {"status", "--watch=soon"}, {"status", "--watch="}} {
		if got := use(t, "@none", args...); got.code != codeUsage || got.out != "" {
			t.Errorf("%v: got %+v", args, got)
		}
	}
	// without a value --watch takes none of the next words
	if got := use(t, "@none", "status", "--watch", "web", "5s"); got.code != codeUsage || !strings.Contains(got.err, `the name of one app: got "5s" as well`) {
		t.Errorf("got %+v", got)
	}
}

// A page is drawn over the one before: every line ends by clearing its rest, the screen is never cleared as a whole.
func TestFrame(t *testing.T) {
	if diff := cmp.Diff("\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J", frame("one\ntwo\n", 24)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("\x1b[H1\x1b[K\r\n… 3 more lines\x1b[K\x1b[J", frame("1\n2\n3\n4\n", 2)); diff != "" {
		t.Error(diff)
	}
}

func TestColumns(t *testing.T) {
	if isTerminal(1) {
		t.Skip("the terminal behind our output has columns of its own")
	}
	for text, want := range map[string]int{"": 80, "x": 80, "-3": 80, "20": 60, "100": 100, "999": 200} {
		if got, rows := terminalSize(func(string) string { return text }); got != want || rows != 0 {
			t.Errorf("COLUMNS=%q: %d columns, want %d; %d rows", text, got, want, rows)
		}
	}
}

func TestStatusCommand(t *testing.T) {
	f := &fakeInit{status: sampleStatus()}
	address := serve(t, f)
	if got := use(t, address, "status"); got.code != 0 || got.err != "" || !strings.HasPrefix(got.out, "state       swapping") {
		t.Errorf("got %+v", got)
	}
	got := use(t, address, "status", "--json")
	var s swap.Status
	if err := json.Unmarshal([]byte(got.out), &s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f.status, s); diff != "" || got.code != 0 {
		t.Errorf("code %d\n%s", got.code, diff)
	}
}

// documentedTypes are what status --json is made of, by the heading of their table in docs/status.md.
var documentedTypes = map[string]reflect.Type{
	"The object": reflect.TypeFor[swap.Status](), "A generation": reflect.TypeFor[swap.Generation](), "A proxy": reflect.TypeFor[swap.FrontStatus](), "What a generation has of a proxy": reflect.TypeFor[swap.FrontLoad](), "A worker": reflect.TypeFor[swap.Worker](), "An artifact": reflect.TypeFor[swap.Artifact](),
	"Kept bytes": reflect.TypeFor[swap.Kept](), "A socket": reflect.TypeFor[handoff.SocketStatus](), "A slot": reflect.TypeFor[handoff.SlotStatus](),
	"Connections": reflect.TypeFor[handoff.Load](), "An address that is not held": reflect.TypeFor[handoff.Native](),
	"A swap": reflect.TypeFor[swap.SwapRecord](), "A phase": reflect.TypeFor[swap.Phase](), "Reaped": reflect.TypeFor[reaper.Stats](),
}

// docs/status.md has exactly the fields of the types, and a table for every type that is in one.
func TestStatusIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	tables := fieldTables(string(text))
	reached := map[reflect.Type]bool{}
	for title, typ := range documentedTypes {
		fields := jsonFields(typ, reached)
		if diff := cmp.Diff(fields, tables[title]); diff != "" {
			t.Errorf("%s (-in the code, +in docs/status.md):\n%s", title, diff)
		}
	}
	for typ := range reached {
		if !slices.Contains(slices.Collect(maps.Values(documentedTypes)), typ) {
			t.Errorf("no table is about %v", typ)
		}
	}
	for title, fields := range map[string]reflect.Type{"The object of check": reflect.TypeFor[checkReport](), "The object of the doctor": reflect.TypeFor[hereReport]()} {
		page := map[string]string{"The object of check": "status.md", "The object of the doctor": "doctor.md"}[title]
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(jsonFields(fields, map[reflect.Type]bool{}), fieldTables(string(text))[title]); diff != "" {
			t.Errorf("%s in docs/%s:\n%s", title, page, diff)
		}
	}
}

// jsonFields are the names of a type's fields in JSON, in order; structs below it of this module are noted.
func jsonFields(typ reflect.Type, reached map[reflect.Type]bool) []string {
	var names []string
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		below := f.Type
		for below.Kind() == reflect.Slice || below.Kind() == reflect.Pointer {
			below = below.Elem()
		}
		switch {
		case name == "-":
			continue
		case f.Anonymous && name == "":
			names = append(names, jsonFields(below, reached)...)
			continue
		case name == "":
			name = f.Name
		}
		names = append(names, name)
		if below.Kind() == reflect.Struct && strings.Contains(below.PkgPath(), "hotswap-init") {
			reached[below] = true
		}
	}
	slices.Sort(names)
	return names
}

// fieldTables are the first columns of the tables of a page, by the heading before each.
func fieldTables(text string) map[string][]string {
	tables := map[string][]string{}
	title := ""
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(line, "#"); ok {
			title = strings.TrimSpace(strings.TrimLeft(heading, "#"))
		}
		cells := strings.Split(line, "|")
		if len(cells) < 3 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			tables[title] = append(tables[title], strings.Trim(strings.TrimSpace(name), "`"))
		}
	}
	for title := range tables {
		slices.Sort(tables[title])
	}
	return tables
}

// An init that does not answer for a while does not end the watch: the page says so, and goes on when it is there again.
func TestWatchSurvives(t *testing.T) {
	address := fmt.Sprintf("@entrypoint-cmd-test/%d/watch", os.Getpid())
	begin := func(state string) (stop func()) {
		f := &fakeInit{status: sampleStatus()}
		f.status.State = state
		s, err := control.Open(control.ServerOptions{Address: address, Supervisor: f, Version: "1.2.3", Descendants: func() []int { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- s.Serve(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := begin("before")
	out := make(pages, 1000)
	ended := make(chan int)
	go func() {
		code, _ := dispatch("status", []string{"--watch=10ms"}, out, io.Discard, func(name string) string {
			return map[string]string{"ENTRYPOINT_CONTROL": address}[name]
		})
		ended <- code
	}()
	out.wait(t, "state       before")
	stop()
	out.wait(t, "no answer")
	stop = begin("after")
	defer stop()
	if page := out.wait(t, "state       after"); strings.Contains(page, "no answer") {
		t.Errorf("the page still says that there is no answer:\n%s", page)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != codeDone {
		t.Errorf("code %d", code)
	}
}

// pages is what a watch wrote, page after page.
type pages chan string

func (p pages) Write(b []byte) (int, error) {
	select {
	case p <- string(b):
	default: // nobody has looked for long
	}
	return len(b), nil
}

// wait returns the first page that begins with text.
func (p pages) wait(t *testing.T, text string) string {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case page := <-p:
			if strings.HasPrefix(strings.Join(strings.Fields(page), " "), strings.Join(strings.Fields(text), " ")) {
				return page
			}
		case <-late:
			t.Fatalf("no page begins with %q", text)
		}
	}
}
