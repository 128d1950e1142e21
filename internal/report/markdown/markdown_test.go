package markdown

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

func TestSamples(t *testing.T) {
	for _, s := range reporttest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			golden.Assert(t, ".md", Render(report.Summarize(s.Events...), 0))
		})
	}
}

// A summary that is written early shows how far the run is.
func TestUnfinished(t *testing.T) {
	f := report.NewFold()
	for _, e := range reporttest.Changes() {
		f.Emit(e)
		switch e.Type() {
		case "planned":
			golden.File(t, "testdata/TestUnfinished/planned.md", Render(f.Summary(), 0))
		case "object-health":
			golden.File(t, "testdata/TestUnfinished/waiting.md", Render(f.Summary(), 0))
			return
		}
	}
}

// Whatever the limit, the output keeps to it, starts with the verdict and
// says that something is missing.
func TestLimit(t *testing.T) {
	s := report.Summarize(reporttest.Hundred()...)
	whole := Render(s, 0)
	for _, limit := range []int{2 << 10, 8 << 10, 32 << 10, len(whole) + 300} {
		got := Render(s, limit)
		if len(got) > limit {
			t.Errorf("limit %d: %d bytes", limit, len(got))
		}
		if !bytes.HasPrefix(got, []byte("## ❌ NOT LIVE")) {
			t.Errorf("limit %d: starts with %.40q", limit, got)
		}
		if cut := limit < len(whole); cut != bytes.Contains(got, []byte("did not fit")) {
			t.Errorf("limit %d of %d: the note about the cut is wrong", limit, len(whole))
		}
	}
}

// Above sixty nodes the picture gives way to text.
func TestPictureLimit(t *testing.T) {
	for _, n := range []int{maxPictureNodes, maxPictureNodes + 1} {
		var s report.Summary
		for i := range n {
			s.Graph.Nodes = append(s.Graph.Nodes, report.GraphNode{ID: fmt.Sprint("a/", i), Name: fmt.Sprint(i), State: report.Ready})
		}
		if got, want := strings.Contains(graph(&s), "mermaid"), n <= maxPictureNodes; got != want {
			t.Errorf("%d nodes: picture %v, want %v", n, got, want)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain words 1.5: (ok), a@b #x": "plain words 1.5: (ok), a@b #x",
		"a|b *c* _d_ `e` [f](g) $h$":    "a\\|b \\*c\\* \\_d\\_ \\`e\\` \\[f\\](g) \\$h\\$",
		"<script>alert(1)</script> &x":  "&lt;script&gt;alert(1)&lt;/script&gt; &amp;x",
		"@team (@all) see #12":          "&#64;team (&#64;all) see &#35;12",
		"https://evil.example/ :x:":     "https&#58;//evil.example/ &#58;x:",
		"www.evil.example":              "www&#46;evil.example",
		"- item":                        "\\- item",
		"# heading":                     "\\# heading",
		"two\nlines":                    "two lines",
	} {
		if got := text(in); got != want {
			t.Errorf("text(%q)\ngot  %q\nwant %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"a": "`a`", "a`b": "``a`b``", "`": "`` ` ``", "": ""} {
		if got := code(in); got != want {
			t.Errorf("code(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := codeCell("a|b"), "`a\\|b`"; got != want {
		t.Errorf("codeCell = %q, want %q", got, want)
	}
	if got, want := block([]string{"```", "x"}), "````text\n```\nx\n````\n"; got != want {
		t.Errorf("block = %q, want %q", got, want)
	}
}

func TestLinks(t *testing.T) {
	for url, want := range map[string]string{
		"https://github.com/a/b":        "https://github.com/a/b",
		"https://github.com/a/b.git":    "https://github.com/a/b",
		"ssh://git@github.com/a/b":      "https://github.com/a/b",
		"https://gitlab.com/a/c/b":      "https://gitlab.com/a/c/b/-",
		"https://git.example.com/a":     "",
		"https://github.com/a/b)[x](y":  "",
		"https://github.com.evil.org/a": "",
		"":                              "",
	} {
		if got := webPage(url); got != want {
			t.Errorf("webPage(%q) = %q, want %q", url, got, want)
		}
	}
	s := report.Summarize(reporttest.Changes()...)
	s.Source.URL = "https://github.com/team/fleet"
	want := "[`main@4f2c1d9`](https://github.com/team/fleet/commit/" + reporttest.Commit + ") → `prod-eu` " +
		"([live: 91bb0e2, 3 commits ago](https://github.com/team/fleet/compare/" + reporttest.Previous + "..." + reporttest.Commit + "))"
	if got := string(Render(s, 0)); !strings.Contains(got, want) {
		t.Errorf("no link %q in\n%.600s", want, got)
	}
}

// A Kustomization of another cluster says which.
func TestOtherCluster(t *testing.T) {
	events := reporttest.Changes()
	for i, e := range events {
		if found, ok := e.(event.NodeFound); ok && found.Node.ID == "flux-system/apps" {
			found.Node.Cluster = "Secret/flux-system/east"
			events[i] = found
		}
	}
	s := report.Summarize(events...)
	if got, want := string(Render(s, 0)), "| `apps` in `Secret/flux-system/east` |"; strings.Count(got, want) != 1 {
		t.Errorf("no %q in\n%s", want, got)
	}
	row := s.Row("flux-system/apps")
	if got := report.RowText(row, s.Name); !strings.HasSuffix(got, ", in the cluster of Secret/flux-system/east") {
		t.Errorf("%q", got)
	}
	row.State = report.Unhealthy
	if got := report.RowText(row, s.Name); !strings.HasPrefix(got, "is not healthy in the cluster of Secret/flux-system/east") {
		t.Errorf("%q", got)
	}
}
