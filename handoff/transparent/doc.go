// Package transparent lets somebody else answer the bind and listen calls of an unmodified program.
//
// [Install] puts a seccomp filter with a notification descriptor on the calling thread; a program forked from that thread
// has the filter, with all its descendants. The filter lets every call pass but bind(2), listen(2), the setsockopt(2)
// calls that shape a listening socket, and seccomp(2) calls that ask for a notification descriptor of their own: those
// wait until [Filter.Serve] has answered them. It looks at the address, at the socket and at its options, asks a
// [Handler], and then lets the kernel go on, puts another descriptor in the place of the program's, or both answers the call
// and does nothing.
//
// This is no security boundary: a program that wants to avoid it can (io_uring, a foreign ABI), and what it
// passed may change while we look. Whatever cannot be understood goes on to the kernel as if nobody had looked.
//
// # Needs
//
// Linux 5.9 (SECCOMP_IOCTL_NOTIF_ADDFD) on amd64 or arm64; 5.19 adds WAIT_KILLABLE_RECV, without which a signal may
// interrupt a bind. CAP_SYS_ADMIN, or else no_new_privs is set on the program (Install says so): set-uid programs that it
// runs get no privileges then. Looking into a program of another uid needs CAP_SETUID and CAP_SETGID, or CAP_SYS_PTRACE.
// A program that changed its uid without exec cannot be looked into without CAP_SYS_PTRACE.
//
// Sources: seccomp_unotify(2), seccomp(2), linux/seccomp.h, linux/bpf_common.h.
package transparent
