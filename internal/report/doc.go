// Package report folds the events of a run into a Summary, which is the one
// truth for every format, and holds the words in which people are told about
// it. The packages below it render: terminal, github and gitlab to a job's
// log, markdown, junit and the gitlab changes file from a Summary, jsonl from
// the events themselves.
//
// The fold is pure. The same events give the same Summary and the same lines,
// wherever and whenever: times come with the events, order comes from their
// sequence, and nothing here reads a clock, a file or the environment. What
// writes to a shared stream is a Stream, one goroutine that owns it.
//
// Masking secrets is done before events get here (package redact). What this
// package does to foreign text (logs, API messages) is to take out what could
// steer a terminal and to cut what is too long to read.
package report
