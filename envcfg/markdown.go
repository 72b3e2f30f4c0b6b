package envcfg

import (
	"fmt"
	"strings"
)

// GroupTitle is the heading of a group of variables, "" if there is no such group.
func GroupTitle(group string) string {
	switch group {
	case "command":
		return "What runs"
	case "sockets":
		return "Held sockets"
	case "proxy":
		return "Proxy"
	case "swap":
		return "Swapping"
	case "drain":
		return "Draining the old generation"
	case "shutdown":
		return "Ending the container"
	case "restart":
		return "Restarting, and exit statuses"
	case "signals":
		return "Signals and processes"
	case "watch":
		return "Watching files, the artifact, and state"
	case "hooks":
		return "Hooks"
	case "face":
		return "Control, logs, warnings"
	}
	return ""
}

const markdownHead = `# Environment variables

<!-- Generated from the struct tags in envcfg/config.go: go test ./envcfg -update -->

entrypoint is configured by environment variables alone. A variable without the
prefix ` + "`ENTRYPOINT_`" + ` is never read.

- **Empty is unset.** ` + "`ENTRYPOINT_READY=`" + ` means the default.
- **Every variable can come from a file**: ` + "`ENTRYPOINT_X_FILE=/run/secrets/x`" + ` reads the
  value of ` + "`ENTRYPOINT_X`" + ` from that file, less one line end. Both at once is an error.
  A value from a file is shown nowhere.
- **Durations** are ` + "`30`" + ` (seconds), ` + "`30s`" + `, ` + "`1m30s`" + `, ` + "`300ms`" + `; never negative.
- **Switches** are true, false, yes, no, on, off, 1 or 0, in any case.
- **Lists** are separated by commas; spaces around an item do not count.
- **Unknown names are errors**, and all faults are reported at once; the init then
  ends with status 78. ` + "`entrypoint check`" + ` does the same without starting anything.
- **The app sees none of these variables.** What Kubernetes makes for a Service named
  ` + "`entrypoint`" + ` or ` + "`entrypoint-…`" + ` (such as ` + "`ENTRYPOINT_PORT`" + `) is not configuration:
  it is passed to the app.
`

// Markdown returns the text of docs/environment.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(markdownHead)
	group := ""
	for _, e := range Reference() {
		if e.Group != group {
			group = e.Group
			fmt.Fprintf(&b, "\n## %s\n\n| variable | default | meaning |\n|---|---|---|\n", GroupTitle(group))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", e.Name, markdownDefault(e), cell(e.Doc))
	}
	b.WriteString(markdownTail)
	return b.String()
}

func markdownDefault(e Entry) string {
	if e.Default == "" {
		return ""
	}
	return "`" + cell(e.Default) + "`"
}

// cell keeps a text from ending its table cell.
func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

const markdownTail = `
## Writing a command line

` + "`ENTRYPOINT_COMMAND`" + ` is a JSON array (` + "`[\"/app/server\",\"-addr\",\":8080\"]`" + `) or words
(` + "`/app/server -addr ':8080'`" + `). Words are cut as a shell cuts them: '…' keeps everything,
"…" keeps everything but \" \\ \$ and \` + "`" + `, a backslash keeps the next character. There
is no shell: ` + "`$HOME`" + ` and ` + "`*`" + ` are plain text, and a pipe or a redirection is refused.

## Writing variables for the app

` + "`ENTRYPOINT_APP_ENV`" + ` takes ` + "`A=1,B=\"x,y\"`" + `, ` + "`{\"A\":\"1\",\"PORT\":8080}`" + ` or ` + "`[\"A=1\",\"B=x,y\"]`" + `.

` + "`ENTRYPOINT_ENV_FILE`" + ` names a file of ` + "`K=V`" + ` lines. Blank lines and lines that begin with
` + "`#`" + ` are skipped, ` + "`export `" + ` before a name is allowed. A value without quotes ends at the
line's end or at a ` + "`#`" + ` after a space; '…' is taken as it is; "…" knows ` + "`\\n \\t \\r \\\" \\\\ \\$`" + `;
both may span lines. Nothing is expanded. The last line for a name counts.

The app gets the container's variables, over them those of the file, over them those of
` + "`ENTRYPOINT_APP_ENV`" + `.
`
