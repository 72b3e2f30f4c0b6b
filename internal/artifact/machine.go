package artifact

import (
	"fmt"
	"strings"
)

// machines are the ELF machine numbers, by the names people build for. One name may stand for both byte orders.
var machines = map[uint16]string{
	2: "sparc", 3: "386", 4: "m68k", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 43: "sparc64",
	62: "amd64", 183: "arm64", 243: "riscv64", 247: "bpf", 258: "loong64",
}

// target is what a kernel executes, as far as the build of this program tells.
type target struct {
	machine  uint16
	big      bool
	narrow   bool   // 32 bit
	also     uint16 // a second machine that such kernels commonly execute; 0: none
	eitherWd bool   // both widths of machine are possible (x32, mips n32)
}

var targets = map[string]target{
	"amd64":    {machine: 62, also: 3, eitherWd: true},
	"386":      {machine: 3, narrow: true, also: 62},
	"arm64":    {machine: 183, also: 40},
	"arm":      {machine: 40, narrow: true, also: 183},
	"riscv64":  {machine: 243, eitherWd: true},
	"loong64":  {machine: 258},
	"ppc64":    {machine: 21, big: true, also: 20},
	"ppc64le":  {machine: 21},
	"s390x":    {machine: 22, big: true, eitherWd: true},
	"mips":     {machine: 8, big: true, eitherWd: true},
	"mipsle":   {machine: 8, eitherWd: true},
	"mips64":   {machine: 8, big: true, eitherWd: true},
	"mips64le": {machine: 8, eitherWd: true},
}

// foreign says why a kernel for arch does not execute the file, nil when it may. The kernel has the last word: 32-bit
// programs depend on how it was built.
func (h *header) foreign(arch string) error {
	t, ok := targets[arch]
	if !ok {
		return nil
	}
	big := h.order.Uint16([]byte{1, 0}) != 1
	if h.machine == t.also && t.also != 0 && big == t.big {
		return nil
	}
	if h.machine != t.machine {
		return noExec("it is %s binary on %s machine; build it for %s", article(machineName(h.machine)), article(arch), arch)
	}
	if big != t.big {
		return noExec("its byte order is wrong for %s machine; build it for %s", article(arch), arch)
	}
	if h.wide == t.narrow && !t.eitherWd {
		return noExec("its word size is wrong for %s machine; build it for %s", article(arch), arch)
	}
	return nil
}

func machineName(machine uint16) string {
	if name, ok := machines[machine]; ok {
		return name
	}
	return fmt.Sprintf("unknown (machine %d)", machine)
}

// article puts "a" or "an" before a word, as it is spoken.
func article(word string) string {
	if strings.ContainsAny(word[:1], "aiou") || strings.HasPrefix(word, "s390") {
		return "an " + word
	}
	return "a " + word
}
