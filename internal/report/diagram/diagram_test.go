package diagram

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report"
)

// found folds Kustomizations that end as given.
func found(nodes ...event.Node) report.Summary {
	events := []event.Event{event.RunStarted{Command: "graph"}}
	for _, n := range nodes {
		events = append(events, event.NodeFound{Node: n})
	}
	for _, n := range nodes {
		end := event.NodeFinished{Node: n.ID, Result: event.ResultValid}
		switch {
		case n.Suspended:
			end.Result = event.Suspended
		case n.Excluded:
			end.Result = event.Excluded
		}
		events = append(events, end)
	}
	return report.Summarize(append(events, event.RunFinished{Verdict: event.VerdictValid})...)
}

func fleet() report.Summary {
	const root = "flux-system/flux-system"
	return found(
		event.Node{ID: "flux-system/apps", Parent: root, Path: "apps", DependsOn: []string{"flux-system/infra", "other/gone"}},
		event.Node{ID: root, Path: "clusters/production"},
		event.Node{ID: "flux-system/infra", Parent: root, Path: "infrastructure"},
		event.Node{ID: "flux-system/old", Parent: root, Path: "old", Suspended: true},
		event.Node{ID: "flux-system/skipped", Parent: root, Path: "skipped", Excluded: true},
		event.Node{ID: "flux-system/team-a", Parent: "flux-system/apps", Path: "teams/a", Deferred: "waits for ConfigMap/flux-system/vars"},
		event.Node{ID: "flux-system/team-b", Parent: "flux-system/apps", Path: "teams/b", DependsOn: []string{"flux-system/team-a"}},
	)
}

func TestFormats(t *testing.T) {
	s := fleet()
	for _, format := range Formats() {
		t.Run(format, func(t *testing.T) {
			var text strings.Builder
			if err := Write(&text, &s, format); err != nil {
				t.Fatal(err)
			}
			golden.Assert(t, ".txt", []byte(text.String()))
		})
	}
	var text strings.Builder
	if err := Write(&text, &s, "svg"); err == nil || text.Len() > 0 {
		t.Errorf("svg: %v, %q", err, text.String())
	}
	none := found()
	if err := Write(&text, &none, "text"); err != nil || text.Len() > 0 {
		t.Errorf("no Kustomizations: %v, %q", err, text.String())
	}
}

// Kustomizations in a cycle of parents are drawn all the same, each once.
func TestCycleOfParents(t *testing.T) {
	s := found(event.Node{ID: "ns/a", Parent: "ns/b", Path: "a"}, event.Node{ID: "ns/b", Parent: "ns/a", Path: "b"})
	if got, want := Text(&s), "a      a\n└── b  b\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestJSONIsTheGraph(t *testing.T) {
	s := fleet()
	text, err := JSON(&s)
	if err != nil {
		t.Fatal(err)
	}
	var g report.Graph
	if err := json.Unmarshal([]byte(text), &g); err != nil || len(g.Nodes) != 7 || len(g.Edges) != len(s.Graph.Edges) {
		t.Errorf("%v, %d nodes, %d edges", err, len(g.Nodes), len(g.Edges))
	}
}

// Names are foreign text: none may end a label.
func TestLabels(t *testing.T) {
	if got, want := labelText(`a"]; click`), "a#34;#93;#59; click"; got != want {
		t.Errorf("label = %q, want %q", got, want)
	}
	if got, want := quote("a\"b\\\nc"), `"a\"b\\ c"`; got != want {
		t.Errorf("quote = %s, want %s", got, want)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteError(t *testing.T) {
	s := fleet()
	if err := Write(broken{}, &s, "dot"); err == nil {
		t.Error("no error")
	}
}
