// Package pages reads the documents of this repository, so that tests can run their command blocks and follow their links.
// It knows as much of Markdown as these documents use: headings, fenced and indented blocks, code spans, links, and the HTML
// comments by which a block says how it is run (docs/development.md has the rules).
package pages

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Page is one document.
type Page struct {
	File     string // from the root of the repository, with slashes
	Text     string
	Begin    string // the value of `<!-- begin: … -->`: what is there before the first block; empty for nothing
	Blocks   []Block
	Headings []Heading
	Prose    []Line // all lines outside of blocks and comments
}

// Block is a fenced block, or an indented one, whose Language is empty then.
type Block struct {
	Language string
	Line     int // of its first line of text, from 1
	Text     string
	Indented bool
	Run      string // `<!-- run: … -->` on a line before it; empty: as the language says
	File     string // `<!-- file: … -->`: the text is that file of the scratch folder
}

// Heading is one, with the anchor by which it is linked to.
type Heading struct {
	Line   int
	Level  int
	Text   string
	Anchor string
}

// Line is a line of text with its number.
type Line struct {
	Number int
	Text   string
}

// Repository reads the README and all pages of docs/ below root, in the order of their names, README first.
func Repository(root string) ([]*Page, error) {
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []*Page
	for _, name := range append([]string{filepath.Join(root, "README.md")}, names...) {
		page, err := Read(root, name)
		if err != nil {
			return nil, err
		}
		all = append(all, page)
	}
	return all, nil
}

// Everything reads all documents below root, but for those in testdata.
func Everything(root string) ([]*Page, error) {
	var all []*Page
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "testdata", "test-logs", "bin"}, entry.Name()):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ".md":
			return nil
		}
		page, err := Read(root, name)
		all = append(all, page)
		return err
	})
	return all, err
}

// Read reads one page.
func Read(root, name string) (*Page, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	file, err := filepath.Rel(root, name)
	if err != nil {
		return nil, err
	}
	p, err := Parse(filepath.ToSlash(file), string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

// Parse takes the text of a page apart.
func Parse(file, text string) (*Page, error) {
	r := &reader{page: &Page{File: file, Text: text}, lines: strings.Split(strings.TrimSuffix(text, "\n"), "\n"), anchors: map[string]int{}}
	for r.at < len(r.lines) {
		if err := r.next(); err != nil {
			return nil, err
		}
	}
	return r.page, nil
}

// reader goes through the lines of a page once.
type reader struct {
	page      *Page
	lines     []string
	at        int // the line that is looked at, from 0
	run, file string
	paragraph bool // the line before is text: what is indented then goes on with it, and is no block
	list      bool // within a list, whose items go on indented
	anchors   map[string]int
}

// next reads one line, or one block.
func (r *reader) next() error {
	line := r.lines[r.at]
	switch {
	case strings.HasPrefix(line, "```"):
		return r.fence()
	case strings.HasPrefix(strings.TrimSpace(line), "<!--"):
		return r.comment()
	case strings.HasPrefix(line, "    ") && !r.paragraph && !r.list && strings.TrimSpace(line) != "":
		r.indented()
		return nil
	case strings.HasPrefix(line, "#"):
		r.heading(line)
	}
	r.page.Prose = append(r.page.Prose, Line{r.at + 1, line})
	r.paragraph = strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#")
	if r.paragraph {
		r.run, r.file = "", ""
		r.list = r.list && strings.HasPrefix(line, " ") || isItem(line)
	}
	r.at++
	return nil
}

// isItem tells the first line of an item of a list.
func isItem(line string) bool {
	line = strings.TrimLeft(line, " ")
	number := strings.TrimLeft(line, "0123456789")
	return strings.HasPrefix(line, "- ") || strings.HasPrefix(line, "* ") || number != line && strings.HasPrefix(number, ". ")
}

func (r *reader) fence() error {
	b := Block{Language: strings.TrimSpace(strings.TrimPrefix(r.lines[r.at], "```")), Line: r.at + 2, Run: r.run, File: r.file}
	for r.at++; r.at < len(r.lines); r.at++ {
		if r.lines[r.at] == "```" {
			r.at++
			r.add(b)
			return nil
		}
		b.Text += r.lines[r.at] + "\n"
	}
	return fmt.Errorf("line %d: the block has no end", b.Line-1)
}

func (r *reader) indented() {
	b := Block{Line: r.at + 1, Indented: true, Run: r.run, File: r.file}
	for ; r.at < len(r.lines) && (strings.HasPrefix(r.lines[r.at], "    ") || strings.TrimSpace(r.lines[r.at]) == ""); r.at++ {
		b.Text += strings.TrimPrefix(r.lines[r.at], "    ") + "\n"
	}
	b.Text = strings.TrimRight(b.Text, "\n") + "\n"
	r.add(b)
}

func (r *reader) add(b Block) {
	r.page.Blocks = append(r.page.Blocks, b)
	r.run, r.file, r.paragraph, r.list = "", "", false, false
}

// comment reads an HTML comment, also one of several lines, for what it says about the next block or the page.
func (r *reader) comment() error {
	begin := r.at
	text := ""
	for ; r.at < len(r.lines); r.at++ {
		text += r.lines[r.at] + "\n"
		if strings.Contains(r.lines[r.at], "-->") {
			r.at++
			return r.mark(begin+1, strings.TrimSpace(text))
		}
	}
	return fmt.Errorf("line %d: the comment has no end", begin+1)
}

func (r *reader) mark(line int, text string) error {
	text = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(text, "<!--"), "-->"))
	word, rest, ok := strings.Cut(text, ":")
	rest = strings.TrimSpace(rest)
	if !ok {
		return nil
	}
	switch word {
	case "run":
		r.run = rest
	case "file":
		if filepath.IsAbs(rest) || !filepath.IsLocal(rest) {
			return fmt.Errorf("line %d: %q is no file of the scratch folder", line, rest)
		}
		r.file = rest
	case "begin":
		r.page.Begin = rest
	}
	return nil
}

func (r *reader) heading(line string) {
	text := strings.TrimLeft(line, "#")
	level := len(line) - len(text)
	text = strings.TrimSpace(text)
	anchor := Anchor(text)
	if n := r.anchors[anchor]; n > 0 {
		r.anchors[anchor]++
		anchor = fmt.Sprintf("%s-%d", anchor, n)
	} else {
		r.anchors[anchor] = 1
	}
	r.page.Headings = append(r.page.Headings, Heading{r.at + 1, level, text, anchor})
	r.list = false
}
