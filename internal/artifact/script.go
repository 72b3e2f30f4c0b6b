package artifact

import "bytes"

// shebang reads the interpreter from the first line of a script, by the rules of the kernel. more tells that the file
// goes on behind head.
func shebang(head []byte, more bool) (interp string, err error) {
	line, _, ended := bytes.Cut(head[2:], []byte("\n"))
	if bytes.HasSuffix(line, []byte("\r")) && (ended || !more) {
		return "", noExec("its first line ends in CR LF, so the interpreter would be %q; save it with LF line ends", bytes.TrimLeft(line, " \t"))
	}
	line = bytes.TrimLeft(line, " \t")
	if nul := bytes.IndexByte(line, 0); nul >= 0 {
		line, ended = line[:nul], true
	}
	name := line
	if stop := bytes.IndexAny(line, " \t"); stop >= 0 {
		name = line[:stop]
	} else if !ended && more {
		return "", noExec("the interpreter in its first line is longer than %d bytes", headSize)
	}
	if len(name) == 0 {
		return "", noExec("its first line names no interpreter; write one such as #!/bin/sh")
	}
	return string(name), nil
}
