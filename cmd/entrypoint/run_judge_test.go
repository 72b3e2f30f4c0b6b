package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseCanary(t *testing.T) {
	for text, want := range map[string]string{
		"1%:30s,25%:1m":           "1% 30s; 25% 1m0s",
		" 5% , 50%:10 ":           "5% 0s; 50% 10s",
		"10.1.0.0/16:30s":         "10.1.0.0/16 30s",
		"2001:db8::/32:30s":       "2001:db8::/32 30s",
		"2001:db8::/32":           "2001:db8::/32 0s",
		"2001:db8::7":             "2001:db8::7 0s",
		"5%@source+!192.0.2.7:2m": "5%@source+!192.0.2.7 2m0s",
		"":                        "",
	} {
		var s setup
		if err := s.parseCanary(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		var got []string
		for _, step := range s.canary {
			got = append(got, step.Share.String()+" "+step.For.String())
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	var s setup
	err := s.parseCanary("101%:1s,nonsense,5%:-1s,5%:soon")
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("four faults: %v", err)
	}
}

func TestTrialNeedsOverlap(t *testing.T) {
	_, err := load([]string{"ENTRYPOINT_HANDOFF=exclusive", "ENTRYPOINT_CANARY=5%", "ENTRYPOINT_BAKE=10s"}, []string{"/app"})
	if err == nil || !strings.Contains(err.Error(), "ENTRYPOINT_CANARY") || !strings.Contains(err.Error(), "ENTRYPOINT_BAKE") {
		t.Errorf("%v", err)
	}
	s, err := load([]string{"ENTRYPOINT_CANARY=5%:1m", "ENTRYPOINT_SMOKE=http://127.0.0.1:80/", "ENTRYPOINT_HEALTH=tcp://127.0.0.1:80"}, []string{"/app"})
	if err != nil || len(s.canary) != 1 || s.canary[0].For != time.Minute || len(s.smoke) != 1 || len(s.health) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
