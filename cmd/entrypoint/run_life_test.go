package main

import (
	"testing"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// plain fails for whatever a template could not take.
func plain(t *testing.T, v any) {
	t.Helper()
	switch v := v.(type) {
	case nil, bool, int, float64, string:
	case []any:
		for _, e := range v {
			plain(t, e)
		}
	case map[string]any:
		for _, e := range v {
			plain(t, e)
		}
	default:
		t.Errorf("%T is not plain: %v", v, v)
	}
}

// TestRenderData: before the promotion the candidate serves, afterwards whoever is active; nobody who has ended is there.
func TestRenderData(t *testing.T) {
	o := swap.Occasion{Moment: swap.PrePromote, Generation: 3, Previous: 2, Status: swap.Status{
		Active:      2,
		Generations: []swap.Generation{{Number: 1, State: swap.Exited, PID: 10}, {Number: 2, State: swap.Active, PID: 20}, {Number: 3, State: swap.Ready, PID: 30}},
		Sockets:     []handoff.SocketStatus{{Name: "web", Address: "tcp://:80", Mode: "steered"}},
	}}
	data := renderData(o)
	plain(t, data)
	pid := func() any { return data["Workers"].([]any)[0].(map[string]any)["PID"] }
	if data["Generation"] != 3 || pid() != 30 || len(data["Generations"].([]any)) != 2 || len(data["Sockets"].([]any)) != 1 {
		t.Errorf("before the promotion: %v", data)
	}
	o.Moment = swap.Failure
	if data = renderData(o); data["Generation"] != 2 || pid() != 20 {
		t.Errorf("after a failure: %v", data)
	}
	o.Status.Active = 0
	if data = renderData(o); data["Generation"] != 0 || len(data["Workers"].([]any)) != 0 {
		t.Errorf("with nobody active: %v", data)
	}
}
