package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// inits runs the helper in a network namespace of its own, where the only names are those of the test.
func TestFindTheInit(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		got := output(t, unix.CLONE_NEWNET, "inits", "0")
		if !strings.Contains(got, "no init to talk to: ") || !strings.Contains(got, "nobody listens there; entrypoint must run as the ENTRYPOINT") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("one that is not pid 1", func(t *testing.T) {
		if got := output(t, unix.CLONE_NEWNET, "inits", "1"); !strings.HasSuffix(got, " 0 healthy") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("several", func(t *testing.T) {
		got := output(t, unix.CLONE_NEWNET, "inits", "2")
		pids, _, _ := strings.Cut(got, " ")
		want := fmt.Sprintf("several inits to talk to, with the pids %s: name one by ENTRYPOINT_CONTROL=@entrypoint/", strings.ReplaceAll(pids, ",", ", "))
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("pid 1", func(t *testing.T) {
		if got := output(t, unix.CLONE_NEWNET|unix.CLONE_NEWPID, "init", "dial", Auto); !strings.HasPrefix(got, "0 healthy") {
			t.Errorf("got %q", got)
		}
	})
}

func TestNamesInTheSocketTable(t *testing.T) {
	const head = "Num       RefCount Protocol Flags    Type St Inode Path\n"
	line := func(flags, path string) string {
		return "0000000000000000: 00000002 00000000 " + flags + " 0001 01 12345 " + path + "\n"
	}
	table := head + line("00010000", "/run/docker.sock") + line("00010000", "@entrypoint/7/30") + line("00010000", "@entrypoint/7/4") +
		line("00000000", "@entrypoint/7/5") + // a connection
		line("00010000", "@entrypoint/8/6") + // another container
		line("00010000", "@entrypoint/7/1") + line("00010000", "@entrypoint/7/-4") + line("00010000", "@entrypoint/7/04") +
		line("00010000", "@entrypoint/7/4/x") + line("00010000", "@entrypoint/7/30") + line("zz", "@entrypoint/7/9") +
		"0000000000000000: 00000002 00000000 00010000 0001 01 12345\n\n@entrypoint/7/11\n"
	got, err := namesIn(strings.NewReader(table), 7)
	if diff := cmp.Diff([]string{"@entrypoint/7/4", "@entrypoint/7/30"}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	var many strings.Builder
	for pid := range 10_000 {
		many.WriteString(line("00010000", SocketName(7, pid)))
	}
	if got, _ := namesIn(strings.NewReader(many.String()), 7); len(got) != maxNames {
		t.Errorf("%d names are tried", len(got))
	}
}

// listenAs answers every connection with text after it has read a line, or at once.
func listenAs(t *testing.T, address string, readFirst bool, text string) {
	t.Helper()
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if readFirst {
				_, _ = bufio.NewReader(c).ReadString('\n')
			}
			_, _ = c.Write([]byte(text))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// Somebody in the pod may take our name; nothing is said to it.
func TestSquattersAreNotTalkedTo(t *testing.T) {
	own, err := ownNamespace()
	if err != nil {
		t.Fatal(err)
	}
	name := SocketName(own.ino, 3999999)
	listenAs(t, name, true, `{"event":"result","v":1,"code":0}`+"\n")
	want := fmt.Sprintf("no init to talk to at %q: the name belongs to pid 3999999, but pid %d listens there", name, os.Getpid())
	if _, err := Dial(context.Background(), name); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := output(t, unix.CLONE_NEWPID, "dial", name); !strings.Contains(got, "it is in another pid namespace") {
		t.Errorf("from another pid namespace: %q", got)
	}
}

// A lesser user squats a name, and a user who is neither it nor root asks there.
func TestServerOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only the judgement itself is tested without root, in TestCredentials")
		return
	}
	name := anyName()
	cmd := helper(0, "squat", name, "4711")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if got := output(t, 0, "dialas", name, "4712"); !strings.Contains(got, "it runs as uid 4711, and you are uid 4712") {
		t.Errorf("got %q", got)
	}
	if line, _ := lines.ReadString('\n'); line != "0 EOF\n" {
		t.Errorf("the squatter read %q", line)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestStrangeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		readFirst bool
		answer    string
		want      string
	}{
		"nothing":          {true, "", "closed the connection without an answer: it may have ended"},
		"nothing, unread":  {false, "", "closed the connection without an answer: it may have ended"},
		"half a line":      {true, `{"event":"res`, "closed the connection without an answer"},
		"garbage":          {true, "garbage\n", "not a line of the protocol"},
		"endless line":     {true, strings.Repeat("x", maxAnswer+1) + "\n", "a line longer than"},
		"a refusal":        {false, `{"event":"result","v":1,"code":4,"text":"not allowed"}` + "\n", "4 not allowed"},
		"unknown events":   {true, `{"event":"weather"}` + "\n" + `{"event":"result","v":1,"code":0,"text":"ok"}` + "\n", "0 ok"},
		"unknown fields":   {true, `{"event":"result","v":1,"code":5,"text":"ok","more":[1]}` + "\n", "5 ok"},
		"wrong event type": {true, `{"event":"phase","gen":"x"}` + "\n", "cannot read the answer"},
	} {
		t.Run(name, func(t *testing.T) {
			address := anyName()
			listenAs(t, address, c.readFirst, c.answer)
			client, err := Dial(context.Background(), address)
			if err != nil {
				t.Fatal(err)
			}
			if got := say(client.Do(context.Background(), Request{Op: OpHealth}, nil)); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestClientStopsWaiting(t *testing.T) {
	s := start(t, ServerOptions{Supervisor: &fake{swap: goesOn}})
	c, err := Dial(context.Background(), s.address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = c.Do(ctx, Request{Op: OpReload}, func(Event) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What the server would refuse is refused before it is sent, with the same sentence and code.
func TestClientChecksItsOwnRequests(t *testing.T) {
	s := start(t, ServerOptions{})
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{Op: "teleport"}, `2 unknown operation "teleport"`},
		{Request{Op: OpRun, Command: []string{"a\xff"}}, "2 cannot send \"a\\xff\": a word is not UTF-8"},
		{Request{Op: OpRun, Command: []string{strings.Repeat("x", MaxRequest)}}, "cannot ask the init"},
	} {
		client, err := Dial(context.Background(), s.address)
		if err != nil {
			t.Fatal(err)
		}
		if got := say(client.Do(context.Background(), c.r, nil)); !strings.Contains(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// While the listen queue is full the client waits, as long as it was told to.
func TestFullListenQueue(t *testing.T) {
	address := anyName()
	l, err := bind(address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, address); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestSentencesOfDial(t *testing.T) {
	for address, want := range map[string]string{
		"/nonexistent/socket":  "there is no such socket",
		"@entrypoint-test/no/": "nobody listens there",
		"relative":             "give auto, off, an absolute path",
	} {
		if _, err := Dial(context.Background(), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", address, err)
		}
	}
}
