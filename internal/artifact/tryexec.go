package artifact

import (
	"os"

	"golang.org/x/sys/unix"
)

// noProgram is what a file contains that is executed to learn whether it might be. It begins with four printable
// characters: the kernel then answers ENOEXEC at once, and loads no module that may know the format.
const noProgram = "none: no program, and never to be one\n"

// A Try asks the kernel to execute an open file that is no program, in a process of its own, and gives the error number with which it
// refused; nil: it did not refuse, or could not be asked. It is reaper.Reaper.TryExec.
type Try func(f *os.File) error

// why tells why the kernel does not execute the open file, which must contain noProgram and nothing else. It looks at
// rights, mount options and security modules before it looks at the content, so ENOEXEC is the good answer.
func (try Try) why(f *os.File) error {
	if try == nil {
		return nil
	}
	switch err := try(f); err {
	case unix.ENOEXEC, unix.ETXTBSY: // somebody forked while it was written: that comes behind the rights too
		return nil
	case unix.ENOENT:
		return unix.ENOSYS // AT_EMPTY_PATH is not understood
	default:
		return err
	}
}
