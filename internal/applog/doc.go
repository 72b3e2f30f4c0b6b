// Package applog writes what an app says: into files that are rotated, or with a prefix onto our own output.
//
// The copying is done by a helper process (package helper, role "log"), as the app's user. PID 1 copies no byte: it makes a pipe for
// each generation, keeps its reading end, and hands a copy to each run of the helper. So an app whose log helper is killed meets no
// broken pipe; it waits, at most, until the next run reads.
//
// Nothing is lost when a helper is killed. It looks at what is in a pipe without taking it (tee), decides how much of it are whole lines,
// and has the kernel move exactly those bytes into the file (splice): what was taken from the pipe is in the file, what is not in the
// file is in the pipe. Where a file system has no splice, and for prefixed lines, which are not what is in the pipe, bytes are taken
// after they were written, so that a kill may repeat lines, at most as many as a pipe holds.
//
// Only whole lines are written, so those of several generations in one file never meet inside a line. A line longer than 64 KiB (half of what the
// pipe holds, where that is less) is cut into pieces of that size, each but the last ending with a mark. What is left without a line end when the
// last writer is gone is written with one.
//
// A slow disk, or a reader that stalls, lets the pipe fill up: then the app waits in its own write, as it would without us. A file that
// cannot be written stops nobody: lines are dropped and counted until it can.
package applog
