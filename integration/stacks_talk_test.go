//go:build integration

package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
)

// talk is load.Options.Talk.
type talk func(conn net.Conn, reader *bufio.Reader, path string) (version string, again bool, err error)

// talkRedis sends PING, or for a slow request a wait of 200 ms for a list that stays
// empty, then a GET, and asks for the pid, all at once.
func talkRedis(conn net.Conn, reader *bufio.Reader, path string) (string, bool, error) {
	first, want := "PING", "+PONG"
	if path == slowPage {
		first, want = "BLPOP never 0.2", "*-1"
	}
	if _, err := fmt.Fprintf(conn, "%s\r\nGET nothing\r\nINFO server\r\n", first); err != nil {
		return "", false, err
	}
	for _, line := range []string{want, "$-1"} {
		if err := expectLine(reader, line); err != nil {
			return "", false, err
		}
	}
	text, err := bulk(reader)
	if err != nil {
		return "", false, err
	}
	_, after, ok := strings.Cut(text, "process_id:")
	if !ok {
		return "", false, fmt.Errorf("no process_id in %.80q", text)
	}
	pid, _, _ := strings.Cut(after, "\r")
	return pid, true, nil
}

// bulk reads one text of the redis protocol.
func bulk(reader *bufio.Reader) (string, error) {
	head, err := reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	var n int
	if _, err := fmt.Sscanf(head, "$%d\r\n", &n); err != nil || n < 0 || n > 1<<20 {
		return "", fmt.Errorf("%q is no bulk text", head)
	}
	text := make([]byte, n+len("\r\n"))
	_, err = io.ReadFull(reader, text)
	return string(text), err
}

func expectLine(reader *bufio.Reader, want string) error {
	line, err := reader.ReadString('\n')
	if err == nil && strings.TrimRight(line, "\r\n") != want {
		err = fmt.Errorf("%q instead of %q", line, want)
	}
	return err
}

// talkMemcached asks for a key that is not there and for the pid.
func talkMemcached(conn net.Conn, reader *bufio.Reader, _ string) (string, bool, error) {
	if _, err := io.WriteString(conn, "get nothing\r\nstats\r\n"); err != nil {
		return "", false, err
	}
	if err := expectLine(reader, "END"); err != nil {
		return "", false, err
	}
	pid := ""
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return "", false, err
		}
		if after, ok := strings.CutPrefix(line, "STAT pid "); ok {
			pid = strings.TrimSpace(after)
		}
		if line == "END\r\n" {
			break
		}
	}
	if pid == "" {
		return "", false, fmt.Errorf("no pid among the statistics")
	}
	return pid, true, nil
}
