package control

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who is at the other end: on the server the process that connected, on the client the one that listens. The
// pid is as seen from our pid namespace, 0 if the peer has none there; the uid as seen from our user namespace.
func peerOf(c *net.UnixConn) (unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var cred *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, sockErr); err != nil {
		return unix.Ucred{}, fmt.Errorf("cannot tell who is at the other end: %w", err)
	}
	return *cred, nil
}

// checkClient is the server's judgement of a client's credentials, before a byte of it is read.
func checkClient(peer unix.Ucred, own uint32) error {
	if peer.Pid == 0 {
		return errors.New("not allowed: you are in another pid namespace, that is, in another container")
	}
	if peer.Uid != own && peer.Uid != 0 {
		return fmt.Errorf("not allowed: your uid is %d, this init answers uid %d and root", peer.Uid, own)
	}
	return nil
}

// checkServer is the client's judgement of who listens there. pid is the one in the name, 0 if the address names none.
// Root accepts an init of any uid: the worst that a lesser process can do to it is to lie about itself.
func checkServer(peer unix.Ucred, pid int, own uint32) error {
	switch {
	case peer.Pid == 0:
		return errors.New("it is in another pid namespace, that is, in another container")
	case pid != 0 && int(peer.Pid) != pid:
		return fmt.Errorf("the name belongs to pid %d, but pid %d listens there", pid, peer.Pid)
	case own != 0 && peer.Uid != own && peer.Uid != 0:
		return fmt.Errorf("it runs as uid %d, and you are uid %d: use the same user, or root", peer.Uid, own)
	}
	return nil
}

// checkProof is the server's judgement of the descriptors that came with a request: the first one is the proof, and there may be one more.
func checkProof(fds []int, truncated bool) error {
	if len(fds) == 0 && !truncated {
		return fmt.Errorf("not allowed: no proof of your mount namespace came with the request: send a descriptor of %s with it", namespaceFile)
	}
	if len(fds) > maxDescriptors || truncated {
		return errors.New("not allowed: more descriptors came with the request than one and an upload, or the init has no place for them; then try again")
	}
	own, err := ownNamespace()
	if err != nil {
		return err
	}
	theirs, err := namespaceOf(fds[0])
	if err != nil {
		return fmt.Errorf("not allowed: cannot look at the descriptor that came with the request: %w", err)
	}
	if theirs.dev != own.dev {
		return fmt.Errorf("not allowed: the descriptor that came with the request is not a %s", namespaceFile)
	}
	if theirs.ino != own.ino {
		return errors.New("not allowed: you are in another mount namespace, that is, in another container")
	}
	return nil
}

// euid is the uid that the kernel shows of us to the other end.
func euid() uint32 { return uint32(os.Geteuid()) }
