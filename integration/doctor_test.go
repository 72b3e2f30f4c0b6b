//go:build integration

package integration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// soon keeps the swaps of the doctor short: its clients never pause long enough to be idle.
const soon = "ENTRYPOINT_DRAIN_QUIET=200ms"

func TestDoctor(t *testing.T) {
	table(t, "unshare,docker", []row{
		{"polite", doctorPolite},
		{"impolite", doctorImpolite},
		{"killed", doctorKilled},
		{"no-init", doctorNoInit},
		{"busy", doctorBusy},
	})
}

// lingering is an app whose clients hear in time that their connections end, also those of a doctor that stood still for a moment.
const lingering = "version=v1 linger=2s"

// diagnosis is what a program reads from `doctor --drain --json`.
type diagnosis struct {
	Code, Clients, Swaps int
	Text, URL            string
	Requests, Lost       struct {
		KeepAlive int `json:"keep_alive"`
		New       int
	}
	Losses []struct {
		Cause, Clients, Kind, After string
		Count                       int
	}
	Advice []struct {
		Cause, Text string
		Count       int
	}
}

// doctor examines the app and wants this exit code.
func (s *scene) doctor(want int, args ...string) diagnosis {
	s.t.Helper()
	s.begins()
	code, output := s.exec(append([]string{"doctor", "--drain", "--json"}, args...)...)
	var d diagnosis
	if err := json.Unmarshal([]byte(output), &d); err != nil || code != want || d.Code != want {
		s.t.Fatalf("doctor: exit code %d, want %d: %v\n%s", code, want, err, output)
	}
	s.t.Logf("%s: %s", d.URL, d.Text)
	return d
}

// doctorPolite finds the address that the app binds by itself.
func doctorPolite(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, lingering+" listen=tcp:"+s.addr, engine.Spec{Env: []string{soon}})
	s.waitVersion("v1")
	d := s.doctor(0, "--post", "100")
	if d.Lost.KeepAlive+d.Lost.New > 0 || d.Swaps != 3 || d.Requests.KeepAlive == 0 || d.Requests.New == 0 {
		t.Errorf("got %+v", d)
	}
	if d.URL != "http://"+s.addr+"/" || d.Clients != 16 {
		t.Errorf("it asked %s with %d clients", d.URL, d.Clients)
	}
	if st := s.settled(); st.Active != 4 {
		t.Errorf("generation %d is active after 3 swaps", st.Active)
	}
	_, page := s.exec("doctor", "--drain", "--swaps", "1")
	if !strings.Contains(page, "nothing was lost") {
		t.Errorf("the page does not say that nothing was lost:\n%s", page)
	}
}

// doctorImpolite: an app that ends at once loses a request of each keep-alive client and of nobody else.
func doctorImpolite(t *testing.T, e engine.Engine) {
	for _, settings := range []string{"version=v1 term=now", "version=v1 linger=0s"} {
		s := play(t, e, settings, soon)
		d := s.doctor(1, "--swaps", "2", "--clients", "8", "--url", "http://"+s.addr+"/")
		if d.Lost.New > 0 || d.Lost.KeepAlive < 8 {
			t.Errorf("%s: lost %+v", settings, d.Lost)
		}
		if len(d.Advice) == 0 || d.Advice[0].Cause != "idle-closed" || !strings.Contains(d.Advice[0].Text, "Connection: close") {
			t.Errorf("%s: advice %+v for %+v", settings, d.Advice, d.Losses)
		}
		for _, l := range d.Losses {
			if l.Cause == "idle-closed" && l.After != "signal" {
				t.Errorf("%s: %+v", settings, l)
			}
		}
	}
}

// doctorKilled: requests longer than the drain are cut by us, and the advice says so.
func doctorKilled(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", soon, "ENTRYPOINT_DRAIN_TIMEOUT=300ms")
	d := s.doctor(1, "--swaps", "1", "--clients", "4", "--url", "http://"+s.addr+"/slow?ms=1500")
	if len(d.Advice) != 1 || d.Advice[0].Cause != "cut-by-kill" || !strings.Contains(d.Advice[0].Text, "ENTRYPOINT_DRAIN_TIMEOUT") {
		t.Errorf("advice %+v for %+v", d.Advice, d.Losses)
	}
}

func doctorNoInit(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_CONTROL=off")
	if code, out := s.exec("doctor", "--drain"); code != 4 || !strings.Contains(out, "no init to talk to") {
		t.Errorf("code %d: %s", code, out)
	}
}

// doctorBusy: a second doctor is told of the first, and neither the swap nor the count of the first suffers.
func doctorBusy(t *testing.T, e engine.Engine) {
	s := play(t, e, lingering, soon)
	s.begins()
	first, page := s.background("doctor", "--drain", "--swaps", "3")
	s.waitStatus("the first doctor swaps", func(st status) bool { return st.Active > 1 })
	code, out := s.exec("doctor", "--drain", "--swaps", "1")
	if code != 3 || !strings.Contains(out, "busy: another doctor is at work") {
		t.Errorf("the second: code %d: %s", code, out)
	}
	if err := first.Wait(); err != nil || !strings.Contains(page.String(), "nothing was lost") {
		t.Errorf("the first: %v: %s", err, page)
	}
	if code, out := s.exec("doctor", "--drain", "--swaps", "1", "--url", "http://"+freeAddress(t)); code != 2 || !strings.Contains(out, "--url") {
		t.Errorf("nobody answers: code %d: %s", code, out)
	}
}
