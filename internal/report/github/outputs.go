package github

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sluicerun/sluice/internal/report"
)

// Output is a named value of the step.
type Output struct {
	Name, Value string
}

// OutputNames lists the outputs in their order. docs/reports.md describes
// each, and action.yml passes each on.
var OutputNames = []string{"result", "changed", "created-count", "configured-count", "deleted-count", "failed-count",
	"revision", "report-path", "summary-path", "failed-names"}

// Outputs returns the step's outputs; all are always there. For a plan the
// counts are those of what would be done.
func Outputs(s *report.Summary, reportPath, summaryPath string) []Output {
	created, configured, deleted := s.Counts.Created, s.Counts.Configured+s.Counts.Recreated, s.Counts.Deleted
	if s.Preview() && s.Planned != nil {
		created, configured, deleted = s.Planned.Create, s.Planned.Configure+s.Planned.Recreate, s.Planned.Delete
	}
	failed := s.FailedNodes()
	values := []string{string(s.Result), strconv.FormatBool(s.Changed), strconv.Itoa(created), strconv.Itoa(configured), strconv.Itoa(deleted),
		strconv.Itoa(len(failed)), s.Source.Revision, reportPath, summaryPath, strings.Join(failed, ",")}
	outputs := make([]Output, len(OutputNames))
	for i, name := range OutputNames {
		outputs[i] = Output{name, values[i]}
	}
	return outputs
}

// WriteOutputs writes outputs in the form of GITHUB_OUTPUT, each between
// delimiters of its own that are read from random: a value cannot contain
// what nobody knew before, so it cannot set another output. The error is the
// writer's or that of random.
func WriteOutputs(w io.Writer, outputs []Output, random io.Reader) error {
	var b strings.Builder
	for _, o := range outputs {
		var bits [16]byte
		if _, err := io.ReadFull(random, bits[:]); err != nil {
			return fmt.Errorf("make a delimiter: %w", err)
		}
		delimiter := "sluice_" + hex.EncodeToString(bits[:])
		if strings.Contains(o.Value, delimiter) {
			return fmt.Errorf("output %q holds its own delimiter, so the source of random bytes is not random", o.Name)
		}
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", o.Name, delimiter, o.Value, delimiter)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return nil
}
