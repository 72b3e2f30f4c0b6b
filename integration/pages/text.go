package pages

import (
	"regexp"
	"strings"
	"unicode"
)

// Link is one that a page has, as `[text](target)` or as the address of a picture in HTML.
type Link struct {
	Line   int
	Target string
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	htmlLink     = regexp.MustCompile(`(?:src|srcset|href)="([^"]+)"`)
	codeSpan     = regexp.MustCompile("`[^`]+`")
)

// Links are all links of the text outside of blocks.
func (p *Page) Links() []Link {
	var all []Link
	for _, l := range p.Prose {
		text := codeSpan.ReplaceAllString(l.Text, "``")
		for _, pattern := range []*regexp.Regexp{markdownLink, htmlLink} {
			for _, m := range pattern.FindAllStringSubmatch(text, -1) {
				all = append(all, Link{l.Number, m[1]})
			}
		}
	}
	return all
}

// Spans are the code spans of the text outside of blocks, without their marks.
func (p *Page) Spans() []Line {
	var all []Line
	for _, l := range p.Prose {
		for _, span := range codeSpan.FindAllString(l.Text, -1) {
			all = append(all, Line{l.Number, strings.Trim(span, "`")})
		}
	}
	return all
}

// Code is all that stands in code spans and blocks, line by line.
func (p *Page) Code() []Line {
	all := p.Spans()
	for _, b := range p.Blocks {
		for i, text := range strings.Split(strings.TrimSuffix(b.Text, "\n"), "\n") {
			all = append(all, Line{b.Line + i, text})
		}
	}
	return all
}

// Anchor is the name that GitHub gives to a heading.
func Anchor(heading string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			out.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			out.WriteRune(r)
		}
	}
	return out.String()
}

// HasAnchor tells whether a link may end in it.
func (p *Page) HasAnchor(name string) bool {
	for _, h := range p.Headings {
		if h.Anchor == name {
			return true
		}
	}
	return false
}
