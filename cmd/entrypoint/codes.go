package main

import "github.com/hotswap-init/entrypoint/internal/swap"

// The exit codes of the client commands, as help prints them. Those of the init itself are the app's.
const (
	codeDone       = swap.CodeDone       // done: the new generation is active, or the question is answered
	codeRejected   = swap.CodeRejected   // it failed, the old one serves on
	codeUsage      = swap.CodeUsage      // wrong usage
	codeBusy       = swap.CodeBusy       // another swap is under way
	codeNoInit     = swap.CodeNoInit     // no init to talk to, or not allowed
	codeRolledBack = swap.CodeRolledBack // promoted, failed, and taken back
	codeConfig     = exitConfig          // the configuration has faults
	codeTimeout    = swap.CodeTimeout    // timed out waiting; the swap goes on
)

// exitCodes is the table that help prints.
var exitCodes = [][2]string{
	{"0", "done: the new generation is active"},
	{"1", "rejected: it failed, the old one serves on"},
	{"2", "wrong usage"},
	{"3", "busy: another swap is under way"},
	{"4", "no init to talk to, or not allowed"},
	{"5", "rolled back after promotion"},
	{"78", "the configuration has faults"},
	{"124", "timed out waiting: the swap goes on"},
}
