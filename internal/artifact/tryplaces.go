package artifact

// MemoryExecutable tells why private copies of programs cannot be in memory here; nil: they can. It makes a sealed memory file,
// asks the kernel to execute it, and leaves nothing behind.
func MemoryExecutable() error { return memoryExecutable() }

// DirectoryExecutable tells why private copies cannot be in files below dir; nil: they can. It makes a file there, asks the kernel to
// execute it, and removes it. Unlike NewStore it touches nothing that others left.
func DirectoryExecutable(dir string) error {
	s, err := openStateFiles(dir)
	if err != nil {
		return err
	}
	return s.close()
}
