package report

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// Outcome is the result of a run in one word, as outputs and the JSON report
// have it.
type Outcome string

// The outcomes. The verdicts "live", "planned" and "destroyed" are told apart by
// whether something changed, or would; "valid" is a success. Every other verdict is an
// outcome of its own.
const (
	OutcomeRunning   Outcome = "running"
	OutcomeSuccess   Outcome = "success"
	OutcomeNoChanges Outcome = "no-changes"
	OutcomeFailed    Outcome = "failed"
	OutcomeInvalid   Outcome = "invalid"
	OutcomeRefused   Outcome = "refused"
	OutcomeUnhealthy Outcome = "unhealthy"
	OutcomeCancelled Outcome = "cancelled"
)

// Outcomes lists all outcomes.
func Outcomes() []Outcome {
	return []Outcome{OutcomeRunning, OutcomeSuccess, OutcomeNoChanges, OutcomeFailed,
		OutcomeInvalid, OutcomeRefused, OutcomeUnhealthy, OutcomeCancelled}
}

// State is where a Kustomization stands: its result once it has one, before
// that what it is doing.
type State string

// The states of a Kustomization that has no result yet, and its results.
const (
	Pending  State = "pending"
	Running  State = "running"
	Waiting  State = "waiting"
	Retrying State = "retrying"

	Ready     = State(event.Ready)
	Failed    = State(event.Failed)
	Unhealthy = State(event.Unhealthy)
	NotRun    = State(event.NotRun)
	Suspended = State(event.Suspended)
	Excluded  = State(event.Excluded)
	Cancelled = State(event.Cancelled)
	Planned   = State(event.ResultPlanned)
	Valid     = State(event.ResultValid)
	Destroyed = State(event.ResultDestroyed)
)

// States lists all states.
func States() []State {
	return []State{Pending, Running, Waiting, Retrying, Ready, Failed, Unhealthy, NotRun, Suspended, Excluded, Cancelled, Planned, Valid, Destroyed}
}

// Seconds is a duration that JSON shows as a number of seconds with at most
// three decimals.
type Seconds time.Duration

// MarshalJSON writes the number of seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(math.Round(time.Duration(s).Seconds()*1000) / 1000)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Seconds) UnmarshalJSON(data []byte) error {
	var seconds float64
	if err := json.Unmarshal(data, &seconds); err != nil {
		return fmt.Errorf("%q is no number of seconds: %w", data, err)
	}
	*s = Seconds(math.Round(seconds*1000) * float64(time.Millisecond))
	return nil
}

// String is the duration as people read it.
func (s Seconds) String() string { return FormatDuration(time.Duration(s)) }
