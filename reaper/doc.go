// Package reaper starts processes and collects them: the plain work of PID 1.
//
// There is one place that waits. A Reaper's Run calls wait4(-1) until nothing is left to collect, at each SIGCHLD; it hands
// the status of a child that Start made to its Process, exactly once, and counts everything else as an orphan. Forking and
// registering are one step under the same lock, so a child that dies at once is still found, and a process number is never
// signalled after it was collected. Do not mix it with os/exec or other callers of wait in one program: they would take
// each other's children.
//
// Invariants: a status is delivered exactly once and never lost; a child gets exactly the descriptors that its Spec names;
// nothing polls; no goroutine belongs to a child.
//
// Start forks by itself (fork_linux.go) instead of through os/exec: what has to happen between fork and exec, such as
// writing the child's own number into its environment, needs no program in between. Go raises the soft limit of open
// files for itself at start; RestoreNoFile makes children get the one that we were given.
//
// A child gets the signal mask of the thread that forks, which is the one that this process was started with, and
// those signals ignored that were so then and that the runtime leaves alone: HUP, INT, CONT, TSTP, TTIN, TTOU and 32 to 34.
// Of the others it keeps nothing: one that was ignored at our start has its default action in the child, as has one that
// signal.Ignore ignores, and ILL, TRAP, BUS, FPE, SEGV, STKFLT, CHLD, PROF and 32 to 34 are not blocked.
//
// Linux only. Process descriptors need 5.3 (pidfd_open; 5.2 for the one that clone gives) and stand for groups since 6.9, close_range 5.9 and 5.11,
// execveat 3.19, a subreaper 3.4; each has a fallback that the place of use names.
package reaper
