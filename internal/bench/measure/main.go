// Command measure runs a command and writes what it took as JSON to a file:
//
//	measure FILE COMMAND [ARGUMENT…]
//
// The command compare starts sluice through it, because on Linux the peak
// memory of a process begins with that of the process which forked it. This one
// is small; compare itself, which holds thousands of objects, would show up as
// sluice's memory. The exit code is 0 if the command ran, whatever the
// command's own code, which is in the file.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// measurement is read by compare; durations are in nanoseconds.
type measurement struct {
	// Wall is the time from the start of the process to its end, CPU what it computed.
	Wall, CPU time.Duration
	// Peak is the largest resident set, in bytes.
	Peak int64
	// Code is the exit code, -1 after a signal.
	Code int
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: measure FILE COMMAND [ARGUMENT…]")
		os.Exit(64)
	}
	if err := measure(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func measure(file string, command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	state := cmd.ProcessState
	data, err := json.Marshal(measurement{Wall: wall, CPU: state.UserTime() + state.SystemTime(), Peak: peak(state), Code: state.ExitCode()})
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}
