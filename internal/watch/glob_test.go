package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// wideSettle is for saves of several files, or by other programs, which a busy machine may interrupt.
const wideSettle = 800 * time.Millisecond

func paths(t *testing.T, list string) []Path {
	t.Helper()
	p, err := ParsePaths(list)
	must(t, err)
	return p
}

// TestTrigger is news by its time alone, and no path of another action is.
func TestTrigger(t *testing.T) {
	dir, app := place(t)
	file := filepath.Join(dir, "reload")
	g := start(t, Options{Paths: paths(t, app+","+file+"=trigger")}, 0)
	for i, reason := range []string{"appeared", "touched", "touched"} {
		command(t, "touch", app, file)
		if e := g.next(); e.File != file || e.Reason != reason || e.Hash != sum("") || e.Also != nil {
			t.Errorf("touch %d: event %+v", i, e)
		}
	}
	write(t, file+".new", "", 0o644)
	command(t, "touch", "-d", "2001-01-01", file+".new")
	must(t, os.Rename(file+".new", file)) // the same bytes, an older time
	if e := g.next(); e.Reason != "touched" {
		t.Errorf("event %+v", e)
	}
	write(t, file, "now with content", 0o644)
	if e := g.want("now with content"); e.Reason != "content changed" {
		t.Errorf("event %+v", e)
	}
	must(t, os.Remove(file))
	quietFor(t, g, 4*testSettle)
}

// TestGlob is about files that come, change and go.
func TestGlob(t *testing.T) {
	dir, _ := place(t)
	conf := filepath.Join(dir, "conf.d")
	in := func(name string) string { return filepath.Join(conf, name) }
	write(t, in("a.conf"), "a", 0o644)
	list := fmt.Sprintf("%s/*.conf=signal:HUP,%s/x*=ignore", conf, conf)
	g := start(t, Options{Paths: paths(t, list)}, 0)
	write(t, in("other.txt"), "no match", 0o644)
	write(t, in(".hidden.conf"), "hidden", 0o644)
	write(t, in("x.conf"), "ignored", 0o644)
	must(t, os.MkdirAll(in("dir.conf"), 0o755))
	quietFor(t, g, 4*testSettle)
	is := func(file, reason string) {
		t.Helper()
		if e := g.next(); e.File != in(file) || e.Reason != reason || !e.Path.Glob || e.Also != nil {
			t.Errorf("event %+v, want %s %s", e, file, reason)
		}
	}
	replace(t, in("a.conf"), "a2")
	is("a.conf", "content changed")
	replace(t, in("b.conf"), "b")
	is("b.conf", "appeared")
	write(t, in("b.conf"), "b2", 0o644)
	is("b.conf", "content changed")
	must(t, os.Remove(in("a.conf")))
	is("a.conf", "vanished")
	write(t, in("a.conf"), "a2", 0o644)
	is("a.conf", "appeared")
	must(t, os.Rename(conf, conf+".old"))
	g.next() // both vanished, in one event
	write(t, in("c.conf"), "c", 0o644)
	is("c.conf", "appeared")
}

// TestGlobIsAllOneSave changes many files at once: one event for a signal, one for each file for a hook.
func TestGlobIsAllOneSave(t *testing.T) {
	for action, want := range map[string]int{"signal:HUP": 1, "swap": 1, "hook": 20} {
		t.Run(action, func(t *testing.T) {
			dir, _ := place(t)
			g := start(t, Options{Paths: paths(t, dir+"/*.conf="+action), Settle: wideSettle}, 0)
			for i := range 20 {
				write(t, fmt.Sprintf("%s/%02d.conf", dir, i), "text", 0o644)
			}
			var files []string
			for range want {
				e := g.next()
				files = append(files, e.File)
				for _, also := range e.Also {
					files = append(files, also.File)
				}
			}
			slices.Sort(files)
			if files = slices.Compact(files); len(files) != 20 {
				t.Errorf("%d files in %d events", len(files), want)
			}
			quietFor(t, g, 4*testSettle)
		})
	}
}

// TestGlobSlowWriter sees the writer of a file that was not there before.
func TestGlobSlowWriter(t *testing.T) {
	const settle = 5 * testSettle // a pause of ours is not to look like a writer that never closes
	dir, _ := place(t)
	g := start(t, Options{Paths: paths(t, dir+"/*.conf"), Settle: settle}, 0)
	f, err := os.OpenFile(filepath.Join(dir, "new.conf"), os.O_CREATE|os.O_WRONLY, 0o644)
	must(t, err)
	quietFor(t, g, 3*settle)
	_, err = f.WriteString("one half, ")
	must(t, err)
	quietFor(t, g, 3*settle)
	_, err = f.WriteString("the other")
	must(t, err)
	must(t, f.Close())
	g.want("one half, the other")
}

// TestGlobVolume is a projected volume of which all entries change by one flip.
func TestGlobVolume(t *testing.T) {
	dir, _ := place(t)
	volume := filepath.Join(dir, "config")
	update := func(n int) {
		stamp := fmt.Sprintf("..2026_%d", n)
		for _, name := range []string{"a.yaml", "b.yaml"} {
			write(t, filepath.Join(volume, stamp, name), fmt.Sprint(name, n), 0o644)
		}
		must(t, os.Symlink(stamp, filepath.Join(volume, "..data_tmp")))
		must(t, os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
		must(t, os.RemoveAll(filepath.Join(volume, fmt.Sprintf("..2026_%d", n-1))))
	}
	update(1)
	for _, name := range []string{"a.yaml", "b.yaml"} {
		must(t, os.Symlink("..data/"+name, filepath.Join(volume, name)))
	}
	g := start(t, Options{Paths: paths(t, volume+"/*=signal:HUP")}, 0)
	for n := 2; n <= 4; n++ {
		update(n)
		if e := g.next(); e.Reason != "content changed" || len(e.Also) != 1 {
			t.Errorf("flip %d: event %+v", n, e)
		}
	}
	quietFor(t, g, 4*testSettle)
}

// TestGlobByPolling finds what comes and goes without any event.
func TestGlobByPolling(t *testing.T) {
	dir, _ := place(t)
	o := Options{Paths: paths(t, dir+"/later/*.conf=hook"), Settle: 300 * time.Millisecond, Poll: 2 * time.Second}
	bubble(t, o, func(o Options, events chan Event) {
		file := filepath.Join(dir, "later", "a.conf")
		for _, step := range []struct {
			do     func()
			reason string
		}{
			{func() { write(t, file, "one", 0o644) }, "appeared"},
			{func() { write(t, file, "two!", 0o644) }, "content changed"},
			{func() { must(t, os.RemoveAll(filepath.Dir(file))) }, "vanished"},
			{func() { write(t, file, "two!", 0o644) }, "appeared"},
		} {
			step.do()
			began := time.Now()
			e := <-events
			if took := time.Since(began); e.Reason != step.reason || e.File != file || took > 2*o.Poll {
				t.Errorf("event %+v after %v, want %s", e, took, step.reason)
			}
		}
	})
}

// TestGlobIsBounded matches more files than are watched.
func TestGlobIsBounded(t *testing.T) {
	dir, _ := place(t)
	for i := range maxMembers + 5 {
		must(t, os.WriteFile(fmt.Sprintf("%s/%05d", dir, i), nil, 0o644))
	}
	g := start(t, Options{Paths: paths(t, dir+"/*")}, 0)
	replace(t, dir+"/00007", "seven") // and the pattern is looked at again
	g.want("seven")
	if n := strings.Count(g.logged(), "the rest is not watched"); n != 1 {
		t.Errorf("said %d times: %s", n, g.logged())
	}
}

// TestTogether: paths of one save and one effect are one event; another effect has its own.
func TestTogether(t *testing.T) {
	dir, app := place(t)
	lib, file, conf := filepath.Join(dir, "lib"), filepath.Join(dir, "reload"), filepath.Join(dir, "conf")
	for _, name := range []string{lib, file, conf} {
		write(t, name, "one", 0o644)
	}
	g := start(t, Options{Paths: paths(t, strings.Join([]string{app, lib, file + "=trigger", conf + "=signal:HUP"}, ",")), Settle: wideSettle}, 0)
	for _, name := range []string{app, lib, file, conf} {
		replace(t, name, "two")
		time.Sleep(testSettle / 4) // as tools do
	}
	byAction := map[string]Event{}
	for range 2 {
		e := g.want("two")
		byAction[e.Path.Action] = e
	}
	if e := byAction["swap"]; e.File != app || len(e.Also) != 2 || e.Also[0].File != lib || e.Also[1].Path.Action != ActionTrigger {
		t.Errorf("event %+v", e)
	}
	if e := byAction["signal:HUP"]; e.File != conf || e.Also != nil {
		t.Errorf("event %+v", e)
	}
	quietFor(t, g, 4*testSettle)
}

// TestRestlessNeighbour does not let a file that never comes to rest hold up the others for ever.
func TestRestlessNeighbour(t *testing.T) {
	dir, app := place(t)
	log := filepath.Join(dir, "log")
	g := start(t, Options{Paths: paths(t, app+","+log), Settle: 20 * time.Millisecond}, 0)
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		f, _ := os.Create(log)
		defer f.Close()
		for {
			fmt.Fprintln(f, "line")
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	replace(t, app, "two")
	g.want("two")
}
