// Package render writes files from templates in the syntax of Go's text/template, for programs outside that have to know which generation
// and which workers there are: a balancer's configuration, a list of targets.
//
// Nothing of it is the standard library's. Executing by text/template makes the linker keep every exported method of the whole
// program, because a template could call any of them; that is a sixth of the binary, and its parser alone is a hundredth. The parser
// here makes one kind of node, in one pass over the text, and the evaluator knows plain data
// alone (nil, booleans, numbers, texts, lists and maps with text keys) and calls nothing. What both understand they do alike,
// with the option missingkey=error; what is left out (html, js, urlquery, call, methods, complex numbers) is refused when the template is
// read, with a sentence that names the template, the line and the word.
//
// Work is bounded: a template of at most 256 KiB, blocks and parentheses a thousand deep inside each other, an output of at most 4 MiB, a
// million steps, templates inside templates a hundred deep. Inside the package a fault is a panic with a sentence, which Parse and Execute turn
// into an error, as they do with any other panic: the process that renders is PID 1.
package render
