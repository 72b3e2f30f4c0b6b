//go:build !amd64 && !arm64

package reaper

import "os"

const hasRaw = false

// catchRaw has no handler for this machine.
func catchRaw(chan<- os.Signal) {}
