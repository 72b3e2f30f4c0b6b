package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/hotswap-init/entrypoint/reaper"
)

// shells are those that completion writes for, as its argument names them.
const shells = "bash|zsh|fish"

var completionCommand = &command{
	name:    "completion",
	summary: "print what makes a shell complete these commands",
	args:    shells,
	details: "For bash: source <(entrypoint completion bash). For zsh: write it to a file _entrypoint in a directory of $fpath, or source it after compinit. " +
		"For fish: entrypoint completion fish >~/.config/fish/completions/entrypoint.fish.",
}

// The table of commands holds completion, and completion is made of the table: only so is it no loop.
func init() { completionCommand.run = runCompletion }

func runCompletion(c *call) int {
	if len(c.args) != 1 {
		return c.usage("completion takes one word: %s", orBars(shells))
	}
	switch c.args[0] {
	case "bash":
		c.text(bashCompletion())
	case "zsh":
		c.text(zshCompletion())
	case "fish":
		c.text(fishCompletion())
	default:
		return c.usage("there is no completion for %q: write %s", c.args[0], orBars(shells))
	}
	return codeDone
}

func orBars(words string) string { return strings.ReplaceAll(words, "|", ", ") }

// completed is what may stand in one place: one of some words, or the name of a file, or of a program.
type completed struct {
	words    []string
	files    bool
	programs bool
}

// completes reads the usage of a command's arguments.
func (c *command) completes() completed {
	switch {
	case c.args == "[COMMAND]":
		return completed{words: commandNames()}
	case c.args == "NAME":
		return completed{words: signalNames()}
	case strings.Contains(c.args, "|"):
		return completed{words: strings.Split(c.args, "|")}
	}
	return completed{files: strings.Contains(c.args, "PATH"), programs: strings.Contains(c.args, "CMD")}
}

// completes is what the value of an option may be.
func (o option) completes() completed {
	return completed{words: o.choices(), files: strings.Contains(o.value, "FILE") || strings.Contains(o.value, "PATH")}
}

func commandNames() []string {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return names
}

// signalNames are those that programs use, without SIG.
func signalNames() []string {
	var names []string
	for sig := syscall.Signal(1); sig < 32; sig++ {
		names = append(names, strings.TrimPrefix(reaper.SignalName(sig), "SIG"))
	}
	return names
}

// allOptions are those of a command, help included.
func (c *command) allOptions() []option { return append(slices.Clip(c.options), helpOption) }

// bashCompletion needs no package of completion helpers.
func bashCompletion() string {
	var b strings.Builder
	b.WriteString(`# bash completion for entrypoint
_entrypoint() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} word=${COMP_WORDS[1]} options= words= flags=
	COMPREPLY=()
	if [ "$cur" = = ]; then # --option=: bash takes the sign as a word
		cur=
	elif [ "$prev" = = ]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	if [ "$COMP_CWORD" = 1 ]; then
`)
	fmt.Fprintf(&b, "\t\tCOMPREPLY=($(compgen -W '%s' -- \"$cur\"))\n\t\treturn\n\tfi\n\tcase $word:$prev in\n", strings.Join(commandNames(), " "))
	for _, c := range commands() {
		for _, o := range c.options {
			if o.value == "" || o.optional() {
				continue
			}
			to := o.completes()
			action := "COMPREPLY=(); compopt +o default 2>/dev/null; return"
			switch {
			case len(to.words) > 0:
				action = fmt.Sprintf("COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return", strings.Join(to.words, " "))
			case to.files:
				action = "COMPREPLY=($(compgen -f -- \"$cur\")); return"
			}
			fmt.Fprintf(&b, "\t%s:--%s) %s ;;\n", c.name, o.name, action)
		}
	}
	b.WriteString("\tesac\n\tcase $word in\n")
	for _, c := range commands() {
		var names []string
		for _, o := range c.allOptions() {
			names = append(names, "--"+o.name)
		}
		to := c.completes()
		flags := ""
		switch {
		case to.files:
			flags = " flags=-f"
		case to.programs:
			flags = " flags=-c"
		}
		fmt.Fprintf(&b, "\t%s) options='%s' words='%s'%s ;;\n", c.name, strings.Join(names, " "), strings.Join(to.words, " "), flags)
	}
	b.WriteString(`	*) return ;; # an app: its own arguments, which are files more often than not
	esac
	case $cur in
	-*) COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;
	*) COMPREPLY=($(compgen $flags -W "$words" -- "$cur")) ;;
	esac
}
complete -o default -F _entrypoint entrypoint
`)
	return b.String()
}

// zshCompletion works as a function of $fpath and by being sourced.
func zshCompletion() string {
	var b strings.Builder
	b.WriteString("#compdef entrypoint\n_entrypoint() {\n\tlocal -a commands\n\tcommands=(\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "\t\t'%s:%s'\n", c.name, single(strings.ReplaceAll(c.summary, ":", "\\:")))
	}
	b.WriteString("\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe command commands\n\t\t_command_names -e\n\t\t_files\n\t\treturn\n\tfi\n" +
		"\tlocal word=$words[2]\n\tshift words\n\t(( CURRENT-- ))\n\tcase $word in\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "\t%s)\n\t\t_arguments -S", c.name)
		for _, o := range c.allOptions() {
			fmt.Fprintf(&b, " \\\n\t\t\t'--%s%s[%s]%s'", o.name, map[bool]string{true: "=-", false: ""}[o.optional()], zshText(o.help), zshValue(o))
		}
		fmt.Fprintf(&b, " \\\n\t\t\t'*:%s:%s'\n\t\t;;\n", zshText(firstNonEmpty(c.args, "nothing")), zshAction(c.completes()))
	}
	b.WriteString("\t*) _normal ;;\n\tesac\n}\n" +
		"if [[ $funcstack[1] == _entrypoint ]]; then\n\t_entrypoint \"$@\"\nelse\n\tcompdef _entrypoint entrypoint\nfi\n")
	return b.String()
}

func zshValue(o option) string {
	switch {
	case o.value == "":
		return ""
	case o.optional():
		return "::" + zshText(strings.Trim(o.value, "[]")) + ": "
	}
	return ":" + zshText(o.value) + ":" + zshAction(o.completes())
}

func zshAction(to completed) string {
	switch {
	case len(to.words) > 0:
		return "(" + strings.Join(to.words, " ") + ")"
	case to.files:
		return "_files"
	case to.programs:
		return "_command_names -e"
	}
	return " "
}

// zshText is a text inside of a specification of _arguments, in single quotes.
func zshText(s string) string {
	return single(strings.NewReplacer("\\", "\\\\", ":", "\\:", "[", "\\[", "]", "\\]").Replace(s))
}

// single is a text inside of single quotes of a POSIX shell.
func single(s string) string { return strings.ReplaceAll(s, "'", `'\''`) }

func firstNonEmpty(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func fishCompletion() string {
	var b strings.Builder
	b.WriteString("# fish completion for entrypoint\n")
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'" }
	for _, c := range commands() {
		fmt.Fprintf(&b, "complete -c entrypoint -n __fish_use_subcommand -a %s -d %s\n", c.name, quote(c.summary))
	}
	for _, c := range commands() {
		when := fmt.Sprintf("complete -c entrypoint -n '__fish_seen_subcommand_from %s'", c.name)
		for _, o := range c.allOptions() {
			value := ""
			switch to := o.completes(); {
			case len(to.words) > 0:
				value = " -x -a " + quote(strings.Join(to.words, " "))
			case to.files:
				value = " -r -F"
			case o.value != "" && !o.optional():
				value = " -x"
			}
			fmt.Fprintf(&b, "%s -l %s%s -d %s\n", when, o.name, value, quote(o.help))
		}
		switch to := c.completes(); {
		case len(to.words) > 0:
			fmt.Fprintf(&b, "%s -f -a %s\n", when, quote(strings.Join(to.words, " ")))
		case to.programs:
			fmt.Fprintf(&b, "%s -a '(__fish_complete_command)'\n", when)
		case !to.files:
			fmt.Fprintf(&b, "%s -f\n", when)
		}
	}
	return b.String()
}
