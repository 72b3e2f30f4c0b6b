package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// everyImage are the packages of a Debian base image: what the start scripts of the others call.
var everyImage = []string{"base-files", "dash", "coreutils", "sed", "grep"}

// PackageImage imports an image that has only these Debian packages of this machine and what they depend on, so that a
// Dockerfile can be built without any registry. more are further files and folders of the machine, which keep their places;
// pairs are its environment, NAME=VALUE.
//
// It has the files, not what a maintainer script made of them on the machine, but for the links of /etc/alternatives.
func (d *Dockerd) PackageImage(ctx context.Context, name string, packages, more, pairs []string) error {
	closure, err := packagesOf(ctx, append(slices.Clone(packages), everyImage...))
	if err != nil {
		return err
	}
	files, err := filesOf(ctx, closure)
	if err != nil {
		return err
	}
	args := []string{"-c", "-C", "/", "--no-recursion", "--null", "--verbatim-files-from", "-T", "-", "--recursion"}
	for _, path := range append(slices.Clone(ofMachine), more...) {
		args = append(args, strings.TrimPrefix(path, "/"))
	}
	tar := exec.CommandContext(ctx, "tar", args...)
	tar.Stdin = strings.NewReader(strings.Join(files, "\x00"))
	options := []string{"--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, pair := range pairs {
		options = append(options, "--change", "ENV "+pair)
	}
	return d.importTar(ctx, tar, name, options...)
}

// ofMachine is what the maintainer scripts of the packages made.
var ofMachine = []string{"/etc/alternatives", "/etc/passwd", "/etc/group"}

// packagesOf follows the dependencies. Of alternatives it takes those that are installed.
func packagesOf(ctx context.Context, wanted []string) ([]string, error) {
	needs, err := installed(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range wanted {
		if _, ok := needs[name]; !ok {
			return nil, fmt.Errorf("package %q is not installed", name)
		}
	}
	closure := slices.Clone(wanted)
	seen := map[string]bool{}
	for i := 0; i < len(closure); i++ {
		for _, name := range needs[closure[i]] {
			if _, ok := needs[name]; ok && !seen[name] {
				closure = append(closure, name)
			}
			seen[name] = true
		}
	}
	return closure, nil
}

// installed are the packages of the machine, each with the names that it depends on.
func installed(ctx context.Context) (map[string][]string, error) {
	const line = `${db:Status-Status}\t${Package}\t${Pre-Depends}, ${Depends}\n`
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", line).Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-query: %w", err)
	}
	needs := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(fields) < 3 || fields[0] != "installed" {
			continue
		}
		needs[fields[1]] = []string{}
		for need := range strings.FieldsFuncSeq(fields[2], func(r rune) bool { return r == ',' || r == '|' }) {
			name, _, _ := strings.Cut(strings.TrimSpace(need), " ")
			name, _, _ = strings.Cut(name, ":")
			needs[fields[1]] = append(needs[fields[1]], name)
		}
	}
	return needs, nil
}

// unused is what a server does without, and what would make the images large.
var unused = []string{
	"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/i18n/", "usr/include/node/",
	"etc/alternatives", // a package's folder, taken as a whole
}

// filesOf lists the files of packages below the root, folders before what is in them.
func filesOf(ctx context.Context, packages []string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", append([]string{"-L"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-query -L: %w", err)
	}
	files := []string{"tmp", "bin", "sbin", "lib"}
	if _, err := os.Lstat("/lib64"); err == nil {
		files = append(files, "lib64")
	}
	folders := map[string]string{}
	for line := range bytes.Lines(out) {
		path := strings.TrimSuffix(string(line), "\n")
		if !strings.HasPrefix(path, "/") || path == "/." { // a note on a diverted file
			continue
		}
		if path = merged(path, folders); path != "" && !slices.ContainsFunc(unused, func(p string) bool { return strings.HasPrefix(path, p) }) {
			files = append(files, path)
		}
	}
	files = append(files, alternatives(files)...)
	slices.Sort(files)
	return slices.Compact(files), nil
}

// alternatives are the links to commands that are in files under another name, such as php for php8.2; no package lists them.
func alternatives(files []string) (links []string) {
	there := make(map[string]bool, len(files))
	for _, file := range files {
		there[file] = true
	}
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		entries, _ := os.ReadDir("/" + dir)
		for _, entry := range entries {
			link := filepath.Join(dir, entry.Name())
			way, err := os.Readlink("/" + link)
			if err != nil || !strings.HasPrefix(way, "/etc/alternatives/") {
				continue
			}
			if target, err := filepath.EvalSymlinks(way); err == nil && there[strings.TrimPrefix(target, "/")] {
				links = append(links, link)
			}
		}
	}
	return links
}

// merged is the place of a file whose package knows it below /bin or /lib, where the machine has them as links into /usr. It is
// empty for a file that was taken away.
func merged(path string, folders map[string]string) string {
	dir := filepath.Dir(path)
	real, ok := folders[dir]
	if !ok {
		real, _ = filepath.EvalSymlinks(dir)
		folders[dir] = real
	}
	path = filepath.Join(real, filepath.Base(path))
	if _, err := os.Lstat(path); err != nil || real == "" {
		return ""
	}
	return strings.TrimPrefix(path, "/")
}
