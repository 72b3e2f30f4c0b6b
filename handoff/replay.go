package handoff

import (
	"slices"

	"golang.org/x/sys/unix"
)

// openBound makes what stands for a program's socket between bind and listen: its copy becomes the program's only one.
func openBound(b bound, nonBlocking bool) (int, error) {
	fd, err := groupSocket(b.at.family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	if err = setInetOptions(fd, &Address{Scheme: "tcp"}, b.at, true); err == nil {
		replay(fd, b.options)
		var sa unix.Sockaddr
		if sa, err = b.at.sockaddr(); err == nil {
			err = unix.Bind(fd, sa)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	if nonBlocking {
		setNonBlocking(fd)
	}
	return fd, nil
}

// replay sets what the program had set on its own socket. What fails here had failed there, or needs a right that only we
// or only it has: there is nobody to tell.
func replay(fd int, options []setting) {
	for _, o := range options {
		if !ofGroup(o.level, o.name) {
			_ = unix.SetsockoptString(fd, o.level, o.name, o.value)
		}
	}
}

func has(options []setting, level, name int) bool {
	return slices.ContainsFunc(options, func(o setting) bool { return o.level == level && o.name == name })
}
