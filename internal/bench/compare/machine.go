//go:build unix

package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// thisMachine says what the comparison runs on: nothing that names it.
func thisMachine() Machine {
	m := Machine{System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Busy: -1}
	m.CPU = procField("/proc/cpuinfo", "model name")
	if kilobytes, err := strconv.ParseInt(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.MemoryBytes = kilobytes * 1024
	}
	return m
}

// procField is the first value of a name in a file of Linux; "" elsewhere.
func procField(file, name string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// busyFor is how long busy looks.
const busyFor = time.Second

// busy is the share of the processor time that was taken in the next second,
// while this process waits: by strangers. It is negative where the system does
// not tell.
func busy() float64 {
	before, err := readProcessorTime()
	if err != nil {
		return -1
	}
	time.Sleep(busyFor)
	after, err := readProcessorTime()
	if err != nil || after.all == before.all {
		return -1
	}
	return 1 - (after.idle-before.idle)/(after.all-before.all)
}

// processorTime is what /proc/stat counts, in the kernel's ticks.
type processorTime struct{ idle, all float64 }

func readProcessorTime() (processorTime, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return processorTime{}, err
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return parseProcessorTime(first)
}

// parseProcessorTime reads the line of all processors. Time that the
// hypervisor gave to others ("steal") is busy time: it was not ours.
func parseProcessorTime(line string) (processorTime, error) {
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return processorTime{}, fmt.Errorf("%q is not the processors' time", line)
	}
	var t processorTime
	for i, field := range fields[1:9] { // what follows is contained in these
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return processorTime{}, fmt.Errorf("%q is not the processors' time: %w", line, err)
		}
		t.all += ticks
		if i == 3 || i == 4 { // idle, and idle while something is read
			t.idle += ticks
		}
	}
	return t, nil
}
