package main

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// serve answers "v GENERATION" to a request, and nothing any more to one for /hold, once it has said that it has it. At TERM it accepts no
// more, and ends with its last connection.
func serve() error {
	f := os.NewFile(3, "inherited")
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("no socket was handed over: %w", err)
	}
	f.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		l.Close()
	}()
	generation := cmp.Or(os.Getenv("ENTRYPOINT_GENERATION"), "0")
	body := "v " + generation + "\n"
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	var connections sync.WaitGroup
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		connections.Go(func() { converse(c, answer) })
	}
	connections.Wait()
	return nil
}

func converse(c net.Conn, answer []byte) {
	defer c.Close()
	buf := make([]byte, 256)
	for filled := 0; filled < len(buf); {
		n, err := c.Read(buf[filled:])
		if err != nil {
			return
		}
		filled += n
		switch {
		case !bytes.HasSuffix(buf[:filled], []byte("\r\n\r\n")):
		case bytes.HasPrefix(buf, []byte("GET /hold ")):
			c.Write([]byte(held))
			for ; err == nil; _, err = c.Read(buf[:1]) { // until the client is gone
			}
			return
		default:
			c.Write(answer)
			return
		}
	}
}

// held is what the server says of a connection that it keeps. The client sends one byte more then: so that to the kernel, and
// to an init which asks it, this is a request that waits for its answer.
const held = "held\n"

// hold opens n connections from an address, so that as many ports as that address has can be used.
func hold(address, from string, n int) error {
	ip := net.ParseIP(from)
	if ip == nil {
		return fmt.Errorf("%q is no address", from)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Timeout: 20 * time.Second, KeepAlive: -1}
	all := make([]net.Conn, 0, n)
	for i := range n {
		c, err := d.Dial("tcp", address)
		if err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, n, err)
		}
		c.(*net.TCPConn).SetLinger(0) // they end without leaving a trace for a minute
		all = append(all, c)
		if _, err := c.Write([]byte("GET /hold HTTP/1.1\r\n\r\n")); err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, n, err)
		}
	}
	for i, c := range all {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		got := make([]byte, len(held))
		if _, err := c.Read(got); err != nil || string(got) != held {
			return fmt.Errorf("connection %d of %d was not accepted: %q %w", i+1, n, got, err)
		}
		if _, err := c.Write([]byte{'x'}); err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, n, err)
		}
	}
	fmt.Println("held", n)
	lost := 0
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil { // whoever started us closes it, or is gone
		lost = dead(all)
	}
	fmt.Println("lost", lost)
	return nil
}

// dead counts the connections that have ended meanwhile.
func dead(all []net.Conn) (n int) {
	for _, c := range all {
		c.SetReadDeadline(time.Now().Add(-time.Second))
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			n++
			continue
		}
		_ = raw.Control(func(fd uintptr) {
			got, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_DONTWAIT|syscall.MSG_PEEK)
			if err != syscall.EAGAIN || got > 0 {
				n++
			}
		})
	}
	return n
}
