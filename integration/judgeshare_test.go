//go:build integration

package integration

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// connections is how many are counted for each share: JUDGE_CONNECTIONS, or what a test run has time for.
func connections() int {
	n, _ := strconv.Atoi(os.Getenv("JUDGE_CONNECTIONS"))
	return cmp.Or(n, 20_000)
}

// shares: so many of the connections as configured, on IPv4 and IPv6, and again after the step.
func shares(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	_, port, _ := strings.Cut(j.addr, ":")
	six := "[::1]:" + port
	j.addresses = []string{"tcp4://" + j.addr, "tcp6://" + six}
	j.begin(e, "", "ENTRYPOINT_CANARY=5%,25%")
	p, _ := j.try("version=v2", "canary")
	n := connections()
	j.counts(j.addr, n, 0.05)
	j.counts(six, n, 0.05)
	j.orders(0, "25%", "promote")
	j.counts(j.addr, n/4, 0.25)
	j.counts(six, n/4, 0.25)
	j.orders(0, "is active", "promote")
	p.result(0)
	j.waitVersion("v2")
}

// counts wants the candidate's part of n connections inside the interval in which 99.9 % of all counts of such a chance lie. One
// count outside is made once more: both are, by chance, once in a million.
func (j *trial) counts(address string, n int, share float64) {
	j.t.Helper()
	const z = 3.2905
	mean, spread := share*float64(n), z*math.Sqrt(float64(n)*share*(1-share))+0.5
	for again := true; ; again = false {
		l := load.Start(j.t.Context(), load.Options{Address: address, Fresh: 8, MaxRequests: n, Duration: 10 * time.Minute, Timeout: 2 * patience})
		l.Wait()
		r := l.Report()
		if r.Requests() != n || r.Failures(load.Fresh) > 0 {
			j.t.Fatalf("%s of %d\n%s", r, n, strings.Join(r.Samples, "\n"))
		}
		got := float64(r.Versions["v2"].Answers)
		j.t.Logf("%s: %.0f of %d connections, %.2f %%, went to the candidate in %v; 99.9 %% of all counts are %.0f to %.0f",
			address, got, n, 100*got/float64(n), r.Elapsed.Round(time.Millisecond), mean-spread, mean+spread)
		switch {
		case math.Abs(got-mean) <= spread:
			return
		case !again:
			j.t.Errorf("%s: that is no share of %v", address, share)
			return
		}
	}
}

// networks: clients by their address in place of a share, beside a share, and each client at one generation.
func networks(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	_, port, _ := strings.Cut(j.addr, ":")
	six := &scene{t: t, addr: "[::1]:" + port}
	j.addresses = append(j.addresses, "tcp6://"+six.addr)
	j.begin(e, "", "ENTRYPOINT_CANARY=127.1.0.0/16+!127.1.7.0/24+::1,0.001%+"+pinned+",30%@source")
	p, _ := j.try("version=v2", "canary")
	for i := range 60 {
		j.meets(fmt.Sprintf("127.1.%d.%d", 10+i, i+1), "v2")
		j.meets(fmt.Sprintf("127.1.7.%d", i+1), "v1")
		j.meets(fmt.Sprintf("127.2.%d.%d", i, i+1), "v1")
		six.meets("::1", "v2")
	}
	j.orders(0, "0.001%+"+pinned, "promote")
	for range 100 {
		j.meets(pinned, "v2")
	}
	j.orders(0, "30%@source", "promote")
	met := map[string]int{}
	for i := range 100 {
		client := fmt.Sprintf("127.3.%d.%d", i, 1+7*i%250)
		version, err := j.from(client, "/")
		must(j.scene, err)
		met[version]++
		for range 4 {
			j.meets(client, version)
		}
	}
	t.Logf("clients by the generation that they met each time: %v", met)
	if met["v1"] < 40 || met["v2"] < 5 { // 70 and 30 of 100, five sigma
		t.Errorf("30%% of the clients: %v", met)
	}
	j.orders(0, "is active", "promote")
	p.result(0)
	j.meets("127.2.0.1", "v2")
}
