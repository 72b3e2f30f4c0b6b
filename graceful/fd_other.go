//go:build !unix

package graceful

// adopt finds nothing: socket activation is of Unix.
func adopt(described) (socket, bool) { return socket{}, false }
