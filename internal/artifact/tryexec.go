package artifact

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noProgram is what a file contains that is executed to learn whether it might be. It begins with four printable
// characters: the kernel then answers ENOEXEC at once, and loads no module that may know the format.
const noProgram = "none: no program, and never to be one\n"

// tryExec tells why the kernel does not execute the open file, which must contain noProgram and nothing else. It looks at
// rights, mount options and security modules before it looks at the content, so ENOEXEC is the good answer: it is asked
// in earnest, but nothing can come of it. A failed execveat(2) leaves a process as it was.
func tryExec(f *os.File) error {
	empty := [1]byte{}
	argv := [1]*byte{} // its end
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, f.Fd(), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[0])), unix.AT_EMPTY_PATH, 0)
	switch errno {
	case unix.ENOEXEC, unix.ETXTBSY: // somebody forked while it was written: that comes behind the rights too
		return nil
	case unix.ENOENT:
		return unix.ENOSYS // AT_EMPTY_PATH is not understood
	}
	return errno
}
