package transparent

import (
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data. Arguments are 64 bits wide; the low word comes first on both architectures.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// cwd is the low word of AT_FDCWD.
const cwd = 0xffffff9c

// netlinkLen is sizeof(struct sockaddr_nl): resolvers bind such sockets all the time, and no other family has that size.
const netlinkLen = 12

// watched lists, by level, the socket options that the filter shows: those that mean something on a socket before bind or
// listen and that programs do not set on every connection, which would cost each of them a round trip. nil: all of a level.
var watched = []struct {
	level   uint32
	options []uint32
}{
	{unix.SOL_SOCKET, []uint32{
		unix.SO_BROADCAST, unix.SO_SNDBUF, unix.SO_RCVBUF, unix.SO_PRIORITY, unix.SO_REUSEPORT, unix.SO_RCVLOWAT,
		unix.SO_BINDTODEVICE, unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE, unix.SO_TIMESTAMP, unix.SO_TIMESTAMPNS,
		unix.SO_TIMESTAMPING, unix.SO_MARK, unix.SO_RXQ_OVFL, unix.SO_BUSY_POLL, unix.SO_INCOMING_CPU,
		unix.SO_ATTACH_REUSEPORT_CBPF, unix.SO_ATTACH_REUSEPORT_EBPF, unix.SO_DETACH_REUSEPORT_BPF,
	}},
	{unix.IPPROTO_TCP, []uint32{
		unix.TCP_MAXSEG, unix.TCP_SYNCNT, unix.TCP_DEFER_ACCEPT, unix.TCP_WINDOW_CLAMP, unix.TCP_CONGESTION,
		unix.TCP_FASTOPEN, unix.TCP_SAVE_SYN, unix.TCP_FASTOPEN_KEY, unix.TCP_FASTOPEN_NO_COOKIE,
	}},
	{unix.IPPROTO_IP, nil},
	{unix.IPPROTO_IPV6, nil},
	{unix.IPPROTO_UDP, nil},
}

// Where a jump of the program under construction leads.
const (
	next   = -1
	allow  = -2
	notify = -3
)

// builder assembles a program whose jumps lead to the next instruction, to "allow" or to "notify" at its end.
type builder struct {
	code  []unix.SockFilter
	jumps []struct{ at, yes, no int }
}

func (b *builder) load(offset uint32) {
	b.code = append(b.code, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

// ifEqual compares what was loaded.
func (b *builder) ifEqual(k uint32, yes, no int) { b.branch(unix.BPF_JEQ, k, yes, no) }

// ifBits tests whether any of the bits is set.
func (b *builder) ifBits(k uint32, yes, no int) { b.branch(unix.BPF_JSET, k, yes, no) }

func (b *builder) branch(op uint16, k uint32, yes, no int) {
	b.jumps = append(b.jumps, struct{ at, yes, no int }{len(b.code), yes, no})
	b.code = append(b.code, unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k})
}

// skip begins a block that is only run if what was loaded equals k; end closes it.
func (b *builder) skip(k uint32) (end func()) {
	at := len(b.code)
	b.code = append(b.code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k})
	return func() { b.code[at].Jf = uint8(len(b.code) - at - 1) }
}

func (b *builder) jumpTo(target int) {
	b.jumps = append(b.jumps, struct{ at, yes, no int }{len(b.code), target, target})
	b.code = append(b.code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K})
}

// finish appends both ends and resolves the jumps. A classic BPF jump reaches 255 instructions.
func (b *builder) finish() []unix.SockFilter {
	ends := map[int]int{allow: len(b.code), notify: len(b.code) + 1}
	b.code = append(b.code,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	distance := func(at, target int) uint8 {
		if target == next {
			return 0
		}
		return uint8(ends[target] - at - 1)
	}
	for _, j := range b.jumps {
		b.code[j.at].Jt, b.code[j.at].Jf = distance(j.at, j.yes), distance(j.at, j.no)
	}
	return b.code
}

// program is the filter. Foreign ABIs pass: a program that mixes them must not die of us. Of unlinkat only what names a path as
// unlink does is shown: whoever empties a folder names the folder by a descriptor, and often very many files.
func program() []unix.SockFilter {
	b := &builder{}
	b.load(dataArch)
	b.ifEqual(auditArch, next, allow)
	b.load(dataNr)
	b.ifEqual(unix.SYS_LISTEN, notify, next)

	if nr := sysUnlink; nr >= 0 {
		b.ifEqual(uint32(nr), notify, next)
	}

	end := b.skip(unix.SYS_UNLINKAT)
	b.load(dataArgs)
	b.ifEqual(cwd, next, allow)
	b.load(dataArgs + 2*8)
	b.ifEqual(0, notify, allow)
	end()

	end = b.skip(unix.SYS_BIND)
	b.load(dataArgs + 2*8)
	b.ifEqual(netlinkLen, allow, notify)
	end()

	end = b.skip(unix.SYS_SECCOMP)
	b.load(dataArgs)
	b.ifEqual(unix.SECCOMP_SET_MODE_FILTER, next, allow)
	b.load(dataArgs + 8)
	b.ifBits(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, notify, allow)
	end()

	b.ifEqual(unix.SYS_SETSOCKOPT, next, allow)
	b.load(dataArgs + 8)
	for _, w := range watched {
		if w.options == nil {
			b.ifEqual(w.level, notify, next)
			continue
		}
		end := b.skip(w.level)
		b.load(dataArgs + 2*8)
		for _, o := range w.options {
			b.ifEqual(o, notify, next)
		}
		b.jumpTo(allow)
		end()
	}
	b.jumpTo(allow)
	return b.finish()
}
