package swap

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// TestBelated: what was said in time is heard, however late the reader comes; and a pipe that is always full does not keep him.
func TestBelated(t *testing.T) {
	r, w, err := wordsPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	o := &output{}
	o.read[1] = r
	if _, err := w.WriteString("last words"); err != nil {
		t.Fatal(err)
	}
	if !o.behind() {
		t.Error("unread words are not seen")
	}
	if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(&belated{pipe: r}); string(b) != "last words" || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v", b, err)
	}
	if o.behind() {
		t.Error("words that were read are still seen")
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for err := error(nil); err == nil; {
			_, err = w.WriteString(strings.Repeat("x", 4096))
		}
	}()
	b, err := io.ReadAll(&belated{pipe: r})
	if len(b) > 2*pipeSize || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	r.Close() // ends the writer
	<-stop
	if o.behind() {
		t.Error("words are seen in a pipe that is closed")
	}
}
