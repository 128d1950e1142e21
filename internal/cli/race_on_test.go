//go:build race

package cli_test

// raceMemory is how many times as much memory the race detector takes.
const raceMemory = 8
