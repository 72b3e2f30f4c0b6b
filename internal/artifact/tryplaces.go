package artifact

// MemoryExecutable tells why private copies of programs cannot be in memory here; nil: they can. It makes a sealed memory file,
// asks the kernel to execute it, and leaves nothing behind.
func MemoryExecutable(try Try) error { return memoryExecutable(try) }

// DirectoryExecutable tells why private copies cannot be in files below dir; nil: they can. It makes a file there, asks the kernel to
// execute it, and removes it. Unlike NewStore it touches nothing that others left.
func DirectoryExecutable(dir string, try Try) error {
	s, err := openStateFiles(dir, try)
	if err != nil {
		return err
	}
	return s.close()
}
