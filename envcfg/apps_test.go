package envcfg

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// loadApps is LoadApps for an environment that must be good; the apps are by name.
func loadApps(t *testing.T, environ ...string) (*Config, map[string]*Config, []string) {
	t.Helper()
	shared, apps, err := LoadApps(prefixed(environ))
	if err != nil {
		t.Fatalf("LoadApps(%q): %v", environ, err)
	}
	byName, order := map[string]*Config{}, []string{}
	for _, a := range apps {
		byName[a.Name] = a.Config
		order = append(order, a.Name)
	}
	return shared, byName, order
}

func TestApps(t *testing.T) {
	shared, apps, order := loadApps(t, "APPS= web ,jobs,web-api", "MAIN=jobs", "START_TIMEOUT=7s", "APP_ENV=A=1", "APP_ENV_FILE=", "GRACE=30s",
		"APP_WEB_COMMAND=/srv -x", "APP_WEB_LISTEN=tcp://:8080", "APP_WEB_START_TIMEOUT=9s", "APP_JOBS_COMMAND=/jobs", "APP_JOBS_APP_ENV=B=2",
		"APP_WEB_API_COMMAND=/api", "APP_WEB_API_READY=", "APP_JOBS_HEALTH=", "APP_WEB_PORT=tcp://10.0.0.1:80")
	if want := []string{"web", "jobs", "web-api"}; !slices.Equal(order, want) || shared.Main != "jobs" || shared.Grace == 0 {
		t.Errorf("apps %q, main %q, grace %s", order, shared.Main, shared.Grace)
	}
	web, jobs, api := apps["web"], apps["jobs"], apps["web-api"]
	if web.Command.String() != `["/srv","-x"]` && !slices.Equal(web.Command, []string{"/srv", "-x"}) || web.Listen != "tcp://:8080" || web.StartTimeout.String() != "9s" {
		t.Errorf("web: %q %q %s", web.Command, web.Listen, web.StartTimeout)
	}
	if !slices.Equal(jobs.Command, []string{"/jobs"}) || jobs.Listen != "" || jobs.StartTimeout.String() != "7s" || !slices.Equal(jobs.Variables.AppEnv, []string{"B=2"}) {
		t.Errorf("jobs: %q %q %s %q", jobs.Command, jobs.Listen, jobs.StartTimeout, jobs.Variables.AppEnv)
	}
	if !slices.Equal(api.Command, []string{"/api"}) || !slices.Equal(api.Variables.AppEnv, []string{"A=1"}) {
		t.Errorf("web-api: %q %q", api.Command, api.Variables.AppEnv)
	}
	if web.Source(Prefix+"LISTEN") != FromEnv || jobs.Source(Prefix+"LISTEN") != FromDefault {
		t.Error("the sources are wrong")
	}
}

// TestAppsPairs: what goes with what is a matter of each app, not of the container's variables alone.
func TestAppsPairs(t *testing.T) {
	_, apps, _ := loadApps(t, "APPS=a,b", "COMMAND=/x", "HANDOFF=proxy", "APP_A_LISTEN=tcp://:1", "APP_B_HANDOFF=none")
	if a, b := apps["a"], apps["b"]; a.Handoff != "proxy" || b.Handoff != "none" {
		t.Errorf("%s %s", a.Handoff, b.Handoff)
	}
	_, _, err := LoadApps(prefixed([]string{"APPS=a,b", "COMMAND=/x", "HANDOFF=proxy", "APP_A_LISTEN=tcp://:1"}))
	if err == nil || strings.Count(err.Error(), "\n") != 0 || !strings.Contains(err.Error(), "ENTRYPOINT_HANDOFF=proxy without addresses") {
		t.Errorf("%v", err)
	}
}

// TestAppsFile: the _FILE form of an app's variable replaces the container's plain one, and the other way round.
func TestAppsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("11s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, apps, _ := loadApps(t, "APPS=a,b", "COMMAND=/x", "START_TIMEOUT=7s", "APP_A_START_TIMEOUT_FILE="+file, "BAKE_FILE="+file, "APP_B_BAKE=3s")
	if a, b := apps["a"], apps["b"]; a.StartTimeout.String() != "11s" || b.StartTimeout.String() != "7s" || a.Bake.String() != "11s" || b.Bake.String() != "3s" {
		t.Errorf("%s %s %s %s", a.StartTimeout, b.StartTimeout, a.Bake, b.Bake)
	}
}

func TestNoApps(t *testing.T) {
	shared, apps, err := LoadApps(prefixed([]string{"COMMAND=/x"}))
	if err != nil || len(apps) != 0 || !slices.Equal(shared.Command, []string{"/x"}) {
		t.Error(shared, apps, err)
	}
	if _, _, err := LoadApps(prefixed([]string{"APP_WEB_COMMAND=/x"})); err == nil || !strings.Contains(err.Error(), "no such variable") {
		t.Error(err)
	}
}

// TestAppsRefused: each fault once, about the variable as it was written.
func TestAppsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		environ []string
		want    []string
	}{
		"a name":          {[]string{"APPS=Web,9x,a_b,log"}, []string{`not the name of an app: "9x"`, `not the name of an app: "a_b"`, "variables have already"}},
		"twice":           {[]string{"APPS=a,A"}, []string{"twice"}},
		"main":            {[]string{"APPS=a,b", "MAIN=c"}, []string{`ENTRYPOINT_MAIN="c": not one of the apps a,b`}},
		"unknown":         {[]string{"APPS=a,b", "APP_A_LISTN=x"}, []string{"did you mean ENTRYPOINT_APP_A_LISTEN?"}},
		"nobody's":        {[]string{"APPS=a,b", "APP_C_LISTEN=x"}, []string{"the name of no app: ENTRYPOINT_APPS has a,b"}},
		"the container's": {[]string{"APPS=a,b", "APP_A_GRACE=3s"}, []string{"set ENTRYPOINT_GRACE"}},
		"its own":         {[]string{"APPS=a,b", "APP_A_START_TIMEOUT=never"}, []string{`cannot use ENTRYPOINT_APP_A_START_TIMEOUT="never"`}},
		"everybody's":     {[]string{"APPS=a,b", "START_TIMEOUT=never"}, []string{`cannot use ENTRYPOINT_START_TIMEOUT="never"`}},
		"two":             {[]string{"APPS=a,b", "APP_A_RESTART_MAX_DELAY=1s", "APP_B_KEEP=x", "RESTART_DELAY=2s"}, []string{"ENTRYPOINT_APP_A_RESTART_MAX_DELAY", "ENTRYPOINT_APP_B_KEEP"}},
		"listen":          {[]string{"APPS=a,b,c", "LISTEN=tcp://:80", "APP_A_LISTEN=tcp://:81"}, []string{"to several apps (b, c): write ENTRYPOINT_APP_B_LISTEN"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := LoadApps(prefixed(c.environ))
			if err == nil {
				t.Fatal("taken")
			}
			text := err.Error()
			for _, want := range c.want {
				if strings.Count(text, want) != 1 {
					t.Errorf("%s\nwants once: %s", text, want)
				}
			}
			if n := strings.Count(text, "\n") + 1; n != len(c.want) && name != "a name" && name != "twice" {
				t.Errorf("%d faults: %s", n, text)
			}
		})
	}
}

// TestAppsFault: what others find in a text is about the variable as it was written too.
func TestAppsFault(t *testing.T) {
	_, apps, _ := loadApps(t, "APPS=a,b", "APP_A_LISTEN=tcp://:80", "APP_A_HEALTH_TIMEOUT=3s", "APP_A_HEALTH=auto")
	err := apps["a"].Fault(Prefix+"LISTEN", os.ErrInvalid)
	if err == nil || !strings.HasPrefix(err.Error(), "cannot use ENTRYPOINT_APP_A_LISTEN: ") {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"ENTRYPOINT_HEALTH_TIMEOUT and ENTRYPOINT_HEALTH.":     "ENTRYPOINT_APP_A_HEALTH_TIMEOUT and ENTRYPOINT_APP_A_HEALTH.",
		"ENTRYPOINT_HEALTH_INTERVAL ENTRYPOINT_HEALTH_FILE=/x": "ENTRYPOINT_HEALTH_INTERVAL ENTRYPOINT_APP_A_HEALTH_FILE=/x",
		"ENTRYPOINT_": "ENTRYPOINT_",
	} {
		if got := respellText(text, apps["a"].spelled); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}
