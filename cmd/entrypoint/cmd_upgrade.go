package main

import (
	"fmt"
	"io"
	"os"

	"github.com/hotswap-init/entrypoint/internal/control"
)

var upgradeCommand = &command{
	name:    "upgrade",
	summary: "give the proxy another program of this init",
	args:    "[PATH]",
	usage:   "[OPTION…]",
	options: signedOptions(jsonOption),
	details: "The proxy is the part that reads what strangers send. It is started anew from the entrypoint at PATH (-: from standard input; without a PATH: from the " +
		"program that runs this command), takes the next connections as soon as it works, and the one before finishes what it has: nobody is cut off. If the new one " +
		"does not work, the old one goes on. PID 1 itself stays what it is until the container is made anew. For example: docker exec -i web /entrypoint upgrade - < entrypoint",
	run: runUpgrade,
}

func runUpgrade(c *call) int {
	r := control.Request{Op: control.OpUpgrade, SHA256: c.values["sha256"]}
	if len(c.args) > 1 {
		return c.usage("upgrade takes one path: got %q as well", c.args[1])
	}
	if code, ok := c.signature(&r); !ok {
		return code
	}
	upload, err := openUpgrade(c.args)
	if err != nil {
		return c.end(failed(r, codeRejected, "cannot take the program: "+err.Error()))
	}
	defer upload.Close()
	r.Upload = upload
	return c.end(c.ask(r))
}

// openUpgrade takes the program into a sealed memory file.
func openUpgrade(args []string) (*os.File, error) {
	from := io.Reader(os.Stdin)
	path := "/proc/self/exe"
	if len(args) > 0 {
		path = args[0]
	}
	if path == "-" && isTerminal(0) {
		return nil, fmt.Errorf("standard input is a terminal: write upgrade - < FILE")
	}
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	return receiveUpload(from, "entrypoint")
}
