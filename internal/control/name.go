package control

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaceFile is the caller's own mount namespace. Everybody may stat and open their own one, whatever the uid, the
// capabilities and the tracing rules.
const namespaceFile = "/proc/self/ns/mnt"

// The two words that an address can be.
const (
	Auto = "auto" // the abstract name of SocketName
	Off  = "off"  // no control socket
)

// maxUnixPath is what fits into sun_path with its closing NUL, see unix(7).
const maxUnixPath = 107

// namePrefix begins the abstract name of every init, in the notation that writes the leading NUL as "@".
const namePrefix = "@entrypoint/"

// SocketName is the abstract address of the init that has that pid in the mount namespace with that inode number
// (the one of /proc/self/ns/mnt): "@entrypoint/<inode>/<pid>", where "@" stands for the leading NUL byte. An inode number
// belongs to one live namespace at a time on the whole machine, so names of live inits differ even where a pod or the whole
// node shares one network namespace.
func SocketName(mntns uint64, pid int) string {
	return namePrefix + strconv.FormatUint(mntns, 10) + "/" + strconv.Itoa(pid)
}

// splitName is the reverse of SocketName.
func splitName(name string) (mntns uint64, pid int, ok bool) {
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return 0, 0, false
	}
	ns, id, _ := strings.Cut(rest, "/")
	mntns, err := strconv.ParseUint(ns, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	pid, err = strconv.Atoi(id)
	return mntns, pid, err == nil && SocketName(mntns, pid) == name && pid > 0
}

// CheckAddress says what is wrong with a configured address: auto, off, an absolute path, or an abstract name that
// begins with "@" are good, and empty means auto.
func CheckAddress(address string) error {
	switch {
	case address == "" || address == Auto || address == Off:
		return nil
	case !strings.HasPrefix(address, "@") && !filepath.IsAbs(address):
		return fmt.Errorf("cannot use control address %q: give auto, off, an absolute path, or an abstract name beginning with @", address)
	case strings.ContainsRune(address, 0):
		return fmt.Errorf("cannot use control address %q: it has a NUL byte", address)
	case len(address) > maxUnixPath:
		return fmt.Errorf("cannot use control address %q: %d bytes long, a unix socket takes %d", address, len(address), maxUnixPath)
	case address == "@":
		return fmt.Errorf("cannot use control address %q: the abstract name is empty", address)
	}
	return nil
}

// fileID identifies a file, and so a namespace: the device of its file is the kernel's own nsfs, so no other file can equal it.
type fileID struct{ dev, ino uint64 }

// ownNamespace is the mount namespace of this process.
func ownNamespace() (fileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(namespaceFile, &st); err != nil {
		return fileID{}, fmt.Errorf("cannot tell the mount namespace from %q: %w: is /proc mounted?", namespaceFile, err)
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// namespaceOf is the namespace whose file is open as fd, or whatever else fd is: only comparing it means something.
func namespaceOf(fd int) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fileID{}, err
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// resolve turns auto into the name of this process.
func resolve(address string) (string, error) {
	if address != "" && address != Auto {
		return address, nil
	}
	ns, err := ownNamespace()
	if err != nil {
		return "", err
	}
	return SocketName(ns.ino, os.Getpid()), nil
}
