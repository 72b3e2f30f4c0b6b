package main

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// program is the file to push. Every pod gets the bytes that were hashed, or refuses: the hash goes with them.
type program struct {
	file *os.File
	size int64
	sum  string
	arch string
}

const (
	// maxProgram is what put takes.
	maxProgram = 1 << 30
	// maxSignature is what put takes of a signature.
	maxSignature = 16 << 10
)

// openProgram reads the file once. The caller closes it.
func openProgram(name string) (*program, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	p := &program{file: f}
	if err := p.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot push %q: %w", name, err), f.Close())
	}
	return p, nil
}

func (p *program) read() error {
	info, err := p.file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	case info.Size() > maxProgram:
		return fmt.Errorf("it has %d bytes, more than %d", info.Size(), maxProgram)
	}
	h := sha256.New()
	if p.size, err = io.Copy(h, p.file); err != nil {
		return err
	}
	p.sum = hex.EncodeToString(h.Sum(nil))
	e, err := elf.NewFile(p.file)
	if err != nil {
		return fmt.Errorf("it is no program for Linux: %w", err)
	}
	if p.arch = archOf(e.FileHeader); p.arch == "" {
		p.arch = e.Machine.String()
	}
	return nil
}

// archOf names the machine as Kubernetes does; empty: not one of them.
func archOf(h elf.FileHeader) string {
	little := h.Data == elf.ELFDATA2LSB
	switch h.Machine {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_386:
		return "386"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_ARM:
		return "arm"
	case elf.EM_RISCV:
		return "riscv64"
	case elf.EM_S390:
		return "s390x"
	case elf.EM_LOONGARCH:
		return "loong64"
	case elf.EM_PPC64:
		if little {
			return "ppc64le"
		}
		return "ppc64"
	}
	return ""
}

// foreign tells that a node surely cannot run the program. 32-bit programs of the same family are left to the init.
func (p *program) foreign(node string) bool {
	if node == "" || p.arch == node {
		return false
	}
	return !(p.arch == "386" && node == "amd64" || p.arch == "arm" && node == "arm64")
}

// readSignature reads a minisign signature of this machine.
func readSignature(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("cannot read the signature: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSignature+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the signature: %w", err)
	case len(b) > maxSignature:
		return "", fmt.Errorf("cannot read the signature: %q has more than %d bytes", name, maxSignature)
	case len(b) == 0:
		return "", fmt.Errorf("cannot read the signature: %q is empty", name)
	}
	return string(b), nil
}
