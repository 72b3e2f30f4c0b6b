package netprobe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/hotswap-init/entrypoint/internal/probe"
)

// maxQuestion bounds what the helper reads of its question: the environment it was written in is not larger.
const maxQuestion = 1 << 20

// Main is the helper process: the request is a file of JSON at descriptor requestFD (it may have secrets in it, which a
// command line would show to everybody), the connection is at connFD; Main takes both over. It returns the exit status, 0
// for a yes; for a no, 1, it prints the end of a sentence that begins with the URL on standard output. 2 is a wrong call.
func Main(requestFD, connFD int) int {
	err := helper(requestFD, connFD)
	if err == nil {
		return 0
	}
	if _, e := fmt.Println(oneLine(err.Error())); e != nil {
		return 2
	}
	var wrong *wrongCall
	if errors.As(err, &wrong) {
		return 2
	}
	return 1
}

type wrongCall struct{ err error }

func (w *wrongCall) Error() string { return "cannot be asked: internal error: " + w.err.Error() }

func helper(requestFD, connFD int) error {
	r, err := readRequest(requestFD)
	if err != nil {
		return &wrongCall{err}
	}
	f := os.NewFile(uintptr(connFD), "connection")
	if f == nil {
		return &wrongCall{fmt.Errorf("no descriptor %d", connFD)}
	}
	c, err := net.FileConn(f) // a copy
	f.Close()
	if err != nil {
		return &wrongCall{err}
	}
	return Ask(c, r)
}

// readRequest reads from the beginning of the file, whose offset is where its writer left it.
func readRequest(fd int) (*probe.Request, error) {
	f := os.NewFile(uintptr(fd), "request")
	if f == nil {
		return nil, fmt.Errorf("no descriptor %d", fd)
	}
	defer f.Close()
	var from io.Reader = io.NewSectionReader(f, 0, maxQuestion) // whose offset is at its end
	if _, err := f.Seek(0, io.SeekCurrent); err != nil {        // a pipe
		from = io.LimitReader(f, maxQuestion)
	}
	var r probe.Request
	if err := json.NewDecoder(from).Decode(&r); err != nil {
		return nil, errors.New("the request cannot be read") // the error might show a part of it
	}
	return &r, nil
}

// oneLine keeps what an app sent from looking like more than one answer, and bounds it.
func oneLine(text string) string {
	const enough = 300
	text = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text), "?")
	if len(text) > enough {
		text = strings.ToValidUTF8(text[:enough], "")
	}
	return text
}
