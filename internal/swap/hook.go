package swap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// maxHookLine is where a longer line of a hook's output is cut into several.
const maxHookLine = 4 << 10

// Hook runs a command beside the app and waits for its end: as the app's user, in its working directory and environment,
// with the variables in extra added, in a session of its own. It gets none of the app's sockets and descriptors; it reads
// nothing, and each line that it writes, to either of its outputs, is given to line, from one goroutine at a time and not
// after Hook has returned. The words of the environment that hold {port} and the like stay as they are.
//
// When ctx ends the command's whole process group is killed, and the error is the cause of ctx. What it leaves running in
// its group when it ends is killed too. Hook is safe for concurrent use, also while generations come and go. It needs the
// App's Reaper to be running.
func (a *App) Hook(ctx context.Context, argv, extra []string, line func(text string)) error {
	if len(argv) == 0 {
		return errors.New("internal error: a hook without a command")
	}
	env, expand, err := a.Environ()
	if err != nil {
		return err
	}
	env = slices.Concat(env, expand, extra)
	dir, err := a.workdir()
	if err != nil {
		return err
	}
	spec, release, err := a.beside(argv, dir, env)
	if err != nil {
		return err
	}
	defer release()
	said, err := newLines(line)
	if err != nil {
		return fmt.Errorf("cannot open a pipe for its output: %w", err)
	}
	spec.Files[1], spec.Files[2] = rawFD(said.write), rawFD(said.write)
	_, err = a.runHelper(ctx, spec, nil)
	said.close()
	return err
}

// lines is a pipe whose reader cuts what comes into lines.
type lines struct {
	read, write *os.File
	reader      sync.WaitGroup
}

func newLines(line func(string)) (*lines, error) {
	r, w, err := wordsPipe()
	if err != nil {
		return nil, err
	}
	l := &lines{read: r, write: w}
	l.reader.Go(func() { cutLines(&belated{pipe: r}, line) })
	return l, nil
}

// close waits until all that was written is read. Somebody who left the group may keep the other end open for ever: he is
// not waited for.
func (l *lines) close() {
	l.write.Close()
	_ = l.read.SetReadDeadline(time.Now().Add(tailWait))
	l.reader.Wait()
	l.read.Close()
}

// cutLines hands on line after line without their ends, long ones in pieces, until r ends. Empty ones are left out.
func cutLines(r io.Reader, line func(string)) {
	in := bufio.NewReaderSize(r, maxHookLine)
	for {
		text, _, err := in.ReadLine()
		if len(text) > 0 {
			line(string(text))
		}
		if err != nil {
			return
		}
	}
}
