// Package swap runs generations of one app and replaces them without losing a connection.
//
// One goroutine, Supervisor.Run, owns everything that is known: which generations there are, which one is active, which
// one is the candidate, who waits for an answer. All that it knows is one value (state) that can be written as JSON and
// read back; the live handles (processes, sockets, callers) are beside it. Everybody else sends it a function to run or
// asks for a copy. It blocks on nothing but its own select: whatever can take time (looking at a file, forking, probing,
// counting connections) happens in goroutines that it started, that report back, and that Run waits for.
//
// What a generation does next is said by a total table (machine.go): every state, every event. An event means the same
// whether a signal, a timer, the app or a caller caused it. The old generation is told nothing until its successor is
// active, so a candidate that fails is ended and the active one has never noticed: roll back needs no code.
//
// Invariants: at most one candidate; at most one generation has the traffic; a generation leaves the table only when no
// process of its group is left; every caller is answered exactly once; a remembered request is followed by exactly one
// swap, however many asked.
//
// The package does not parse configuration, does not read signals, and does not wait for processes: reaper does.
package swap
