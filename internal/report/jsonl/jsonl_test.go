package jsonl

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

func TestSamples(t *testing.T) {
	for _, s := range reporttest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			r := New()
			var b bytes.Buffer
			for _, e := range s.Events {
				line := r.Event(e)
				if bytes.Count(line, []byte("\n")) != 1 || !json.Valid(line) {
					t.Fatalf("%q is not one line of JSON", line)
				}
				b.Write(line)
			}
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			if s.Name != "hundred" { // two thousand lines that show nothing new
				golden.Assert(t, ".jsonl", b.Bytes())
			}
		})
	}
}

// But for durations, empty lists and the type, a line is what encoding/json makes of the
// event: same fields, same values, nothing lost.
func TestMarshalAgreesWithEncodingJSON(t *testing.T) {
	for _, s := range reporttest.Samples() {
		for _, e := range s.Events {
			line, err := Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			var got, want map[string]any
			if err := json.Unmarshal(line, &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(plain, &want); err != nil {
				t.Fatal(err)
			}
			if got["type"] != e.Type() {
				t.Errorf("type %v, want %q", got["type"], e.Type())
			}
			delete(got, "type")
			for _, name := range []string{"duration", "waited", "timeout", "after"} {
				if n, ok := want[name].(float64); ok {
					want[name] = n / float64(time.Second)
				}
			}
			turns, _ := want["turns"].([]any)
			for _, turn := range turns {
				if t := turn.(map[string]any); t["timeout"] != nil {
					t["timeout"] = t["timeout"].(float64) / float64(time.Second)
				}
			}
			if want["changes"] == nil && e.Type() == "planned" {
				want["changes"] = []any{} // a list is never null
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\ngot  %v\nwant %v", e.Type(), got, want)
			}
		}
	}
}

func TestMarshalTimesAreUTC(t *testing.T) {
	at := time.Date(2026, 3, 2, 12, 0, 0, 0, time.FixedZone("CET", 2*60*60))
	line, err := Marshal(event.NodeApplied{At: event.At{Time: at}, Node: "a/b", Timeout: 1500 * time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"node-applied","time":"2026-03-02T10:00:00Z","node":"a/b","waiting":0,"timeout":0.002}`
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	if strings.Contains(string(line), "\n") {
		t.Error("a line end inside")
	}
}

// TestNoCommands: a job's log is read by a CI system too. No text of an event
// makes a line of its own or a command in one, and programs read what it was.
func TestNoCommands(t *testing.T) {
	text := "a ##[error]b ####[group]c\n::error::d\r\x1b[2Je"
	line, err := Marshal(event.Notice{Level: event.Warning, Code: "x", Text: text})
	if err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"##[", "\n", "\r", "\x1b"} {
		if strings.Contains(string(line), never) {
			t.Errorf("%q is in %s", never, line)
		}
	}
	var read struct{ Text string }
	if err := json.Unmarshal(line, &read); err != nil || read.Text != text {
		t.Errorf("read as %q, %v", read.Text, err)
	}
}
