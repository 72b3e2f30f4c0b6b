//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// browser is a headless Chromium with one page, told what to do over a pipe in its DevTools protocol.
type browser struct {
	t       *testing.T
	to      *os.File
	session string

	mu       sync.Mutex
	next     int
	answers  map[int]chan browserMessage
	requests []string        // the addresses of all requests of the page
	said     []string        // faults that the page's console was told
	loaded   map[string]bool // documents, by the numbers of their loaders
}

type browserMessage struct {
	ID      int             `json:"id"`
	Method  string          `json:"method"`
	Session string          `json:"sessionId"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   *struct{ Message string }
}

// browserPatience is wider than that of the other tests: a browser is many processes.
const browserPatience = 90 * time.Second

// openBrowser starts one; it is gone after the test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		if slices.Contains(required, "docker") {
			t.Fatal("chromium is required and not installed")
		}
		t.Skip("SKIPPED: chromium is not installed")
	}
	toRead, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, fromWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	profile := t.TempDir()
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe", "--user-data-dir="+profile,
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad", "--no-first-run", "--disable-dev-shm-usage", "--no-proxy-server", "about:blank")
	cmd.ExtraFiles = []*os.File{toRead, fromWrite}
	cmd.Env = append(os.Environ(), "HOME="+profile)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var noise bytes.Buffer
	cmd.Stderr = &noise
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toRead.Close()
	fromWrite.Close()
	b := &browser{t: t, to: to, answers: map[int]chan browserMessage{}, loaded: map[string]bool{}}
	over := make(chan struct{})
	go func() { defer close(over); b.listen(from) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		to.Close()
		from.Close()
		<-over
		if t.Failed() {
			t.Logf("chromium: %s", tail(noise.String(), 10))
		}
	})
	b.attach()
	return b
}

// attach takes hold of the one page.
func (b *browser) attach() {
	b.t.Helper()
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.session = session.SessionID
	for _, domain := range []string{"Page", "Network", "Runtime", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
	b.call("Page.setLifecycleEventsEnabled", map[string]any{"enabled": true}, nil)
}

// listen reads what the browser says, to the end.
func (b *browser) listen(from *os.File) {
	in := bufio.NewReader(from)
	for {
		line, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var m browserMessage
		if json.Unmarshal(line[:len(line)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if answer := b.answers[m.ID]; m.ID > 0 && answer != nil {
			answer <- m
			delete(b.answers, m.ID)
		}
		b.note(m)
		b.mu.Unlock()
	}
}

// note keeps what tests ask for.
func (b *browser) note(m browserMessage) {
	switch m.Method {
	case "Network.requestWillBeSent":
		var p struct{ Request struct{ URL string } }
		if json.Unmarshal(m.Params, &p) == nil {
			b.requests = append(b.requests, p.Request.URL)
		}
	case "Runtime.exceptionThrown", "Log.entryAdded":
		b.said = append(b.said, string(m.Params))
	case "Page.lifecycleEvent":
		var p struct{ LoaderID, Name string }
		if json.Unmarshal(m.Params, &p) == nil && p.Name == "load" {
			b.loaded[p.LoaderID] = true
		}
	}
}

// call asks for one thing and waits for the answer.
func (b *browser) call(method string, params any, into any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), browserPatience, errors.New("the browser does not answer"))
	defer cancel()
	b.mu.Lock()
	b.next++
	id, answer := b.next, make(chan browserMessage, 1)
	b.answers[id] = answer
	b.mu.Unlock()
	message := map[string]any{"id": id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	line, err := json.Marshal(message)
	if err == nil {
		_, err = b.to.Write(append(line, 0))
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if into != nil {
			if err := json.Unmarshal(m.Result, into); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
	case <-ctx.Done():
		b.t.Fatalf("%s: %v", method, context.Cause(ctx))
	}
}

// look sets the size of the window in pixels and what the user likes: "light" or "dark".
func (b *browser) look(width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// scripts turns scripts of pages on or off.
func (b *browser) scripts(on bool) {
	b.t.Helper()
	b.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": !on}, nil)
}

// visit opens an address and waits until it is loaded.
func (b *browser) visit(address string) {
	b.t.Helper()
	var document struct{ LoaderID string }
	b.call("Page.navigate", map[string]any{"url": address}, &document)
	for late := time.Now().Add(browserPatience); !b.has(document.LoaderID); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			b.t.Fatalf("%s is not loaded after %v", address, browserPatience)
		}
	}
}

func (b *browser) has(loader string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.loaded[loader]
}

// eval is the value of an expression in the page, as text. It works with scripts turned off too.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails *struct{ Text string }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": "String(" + expression + ")", "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails.Text)
	}
	return fmt.Sprint(r.Result.Value)
}

// strangers are the requests that went anywhere else than to that host.
func (b *browser) strangers(host string) (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, address := range b.requests {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "data" && u.Scheme != "about" && u.Host != host {
			all = append(all, address)
		}
	}
	return all
}

// asked tells how many requests for a path there were.
func (b *browser) asked(path string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, address := range b.requests {
		if u, err := url.Parse(address); err == nil && u.Path == path {
			n++
		}
	}
	return n
}

// faults are what the page's console was told.
func (b *browser) faults() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said)
}

// picture is what the window shows. With INTEGRATION_PICTURES=DIR it is kept there.
func (b *browser) picture(name string) image.Image {
	b.t.Helper()
	var r struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &r)
	raw, err := base64.StdEncoding.DecodeString(r.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if dir := os.Getenv("INTEGRATION_PICTURES"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), raw, 0o644); err != nil {
			b.t.Error(err)
		}
	}
	p, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}
