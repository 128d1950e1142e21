package prune

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

func id(name string) flux.ID { return flux.ID{Namespace: "flux-system", Name: name} }

func ids(names ...string) []flux.ID {
	var out []flux.ID
	for _, n := range names {
		out = append(out, id(n))
	}
	return out
}

// entries makes ConfigMaps in the namespace "ns".
func entries(names ...string) []inventory.Entry {
	var out []inventory.Entry
	for _, n := range names {
		out = append(out, inventory.Entry{ID: "ns_" + n + "__ConfigMap", Version: "v1"})
	}
	return out
}

func record(name string, parent flux.ID, names ...string) *inventory.Record {
	return &inventory.Record{ID: id(name), Root: id("root"), Parent: parent, Entries: entries(names...), Prune: true,
		DeletionPolicy: "MirrorPrune", Timeout: time.Minute}
}

func node(name string, names ...string) Node {
	n := Node{ID: id(name), Parent: id("root"), Desired: entries(names...), Succeeded: true, Prune: true, Timeout: time.Minute}
	if name == "root" {
		n.Parent = flux.ID{}
	}
	return n
}

// show prints a plan and what records must hold if all is deleted, one line per fact.
func show(t *testing.T, p *Plan) string {
	t.Helper()
	name := func(e inventory.Entry) string {
		ref, err := e.Ref()
		if err != nil {
			t.Fatal(err)
		}
		if ref.Kind == "ConfigMap" && ref.Namespace == "ns" {
			return ref.Name
		}
		return ref.String()
	}
	var b strings.Builder
	var results []Result
	for _, d := range p.Deletions {
		fmt.Fprintf(&b, "delete %s:", d.Node.Name)
		for _, e := range d.Entries {
			fmt.Fprintf(&b, " %s", name(e))
			results = append(results, Result{Node: d.Node, Entry: e, Outcome: Deleted})
		}
		fmt.Fprintf(&b, " of %d", d.Tracked)
		if d.Left {
			b.WriteString(" left")
		}
		if d.Empty {
			b.WriteString(" empty")
		}
		if d.Wait {
			fmt.Fprintf(&b, " wait %s", d.Timeout)
		}
		b.WriteString("\n")
	}
	for _, m := range p.Moves {
		fmt.Fprintf(&b, "move %s: %s → %s\n", name(m.Entry), m.From.Name, m.To.Name)
	}
	for _, k := range p.Kept {
		tracked := "forgotten"
		if k.Tracked {
			tracked = "tracked"
		}
		fmt.Fprintf(&b, "keep %s of %s, %s: %s\n", name(k.Entry), k.Node.Name, tracked, k.Reason)
	}
	for _, a := range p.After(results) {
		fmt.Fprintf(&b, "after %s:", a.ID.Name)
		for _, e := range a.Entries {
			fmt.Fprintf(&b, " %s", name(e))
		}
		if a.Delete {
			b.WriteString(" (record deleted)")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestCandidates(t *testing.T) {
	with := func(n Node, change func(*Node)) Node { change(&n); return n }
	rec := func(r *inventory.Record, change func(*inventory.Record)) *inventory.Record { change(r); return r }
	for _, tt := range []struct {
		name string
		in   Input
		want string
	}{
		{"S5.5 what the build no longer holds", Input{
			Nodes:   []Node{node("root"), node("apps", "a", "b")},
			Records: []*inventory.Record{record("apps", id("root"), "a", "b", "c", "d")}},
			`delete apps: d c of 4
after apps: a b
after root:
`},
		{"S5.5 another version is no deletion", Input{
			Nodes: []Node{with(node("apps"), func(n *Node) {
				n.Desired = []inventory.Entry{{ID: "a_b_example.com_W", Version: "v2"}}
			})},
			Records: []*inventory.Record{rec(record("apps", id("root")), func(r *inventory.Record) {
				r.Entries = []inventory.Entry{{ID: "a_b_example.com_W", Version: "v1"}}
			})}},
			"after apps: W/a/b\n"},
		{"S5.5 another group or kind is one", Input{
			Nodes: []Node{with(node("apps"), func(n *Node) {
				n.Desired = []inventory.Entry{{ID: "a_b_new.example.com_W", Version: "v1"}, {ID: "a_c_example.com_V", Version: "v1"}}
			})},
			Records: []*inventory.Record{rec(record("apps", id("root")), func(r *inventory.Record) {
				r.Entries = []inventory.Entry{{ID: "a_b_example.com_W", Version: "v1"}, {ID: "a_c_example.com_W", Version: "v1"}}
			})}},
			"delete apps: W/a/c W/a/b of 2\nafter apps: W/a/b V/a/c\n"},
		{"S5.6 prune: false forgets", Input{
			Nodes:   []Node{with(node("apps", "a"), func(n *Node) { n.Prune = false })},
			Records: []*inventory.Record{record("apps", id("root"), "a", "b")}},
			`keep b of apps, forgotten: its Kustomization has prune: false
after apps: a
`},
		{"S0.25 an empty build", Input{
			Nodes:   []Node{node("apps")},
			Records: []*inventory.Record{record("apps", id("root"), "a")}},
			"delete apps: a of 1 empty\nafter apps:\n"},
		{"what failed is not pruned", Input{
			Nodes:   []Node{with(node("apps", "a"), func(n *Node) { n.Succeeded = false })},
			Records: []*inventory.Record{record("apps", id("root"), "a", "b")}},
			""},
		{"S5.15 S16.8 a move is no deletion", Input{
			Nodes:   []Node{node("apps", "a"), node("web", "b")},
			Records: []*inventory.Record{record("apps", id("root"), "a", "b"), record("web", id("root"))}},
			`move b: apps → web
after apps: a
after web: b
`},
		{"S5.15 a move whose target failed stays tracked", Input{
			Nodes:   []Node{node("apps", "a"), with(node("web", "b"), func(n *Node) { n.Succeeded = false })},
			Records: []*inventory.Record{record("apps", id("root"), "a", "b"), record("web", id("root"), "b")}},
			`keep b of apps, tracked: it moves to Kustomization "flux-system/web", which has not succeeded
after apps: a b
`},
		{"what a failed Kustomization still holds is protected", Input{
			Nodes:   []Node{node("apps", "a"), with(node("web"), func(n *Node) { n.Succeeded = false })},
			Records: []*inventory.Record{record("apps", id("root"), "a", "b"), record("web", id("root"), "b")}},
			`keep b of apps, tracked: it moves to Kustomization "flux-system/web", which has not succeeded
after apps: a b
`},
		{"what could not be built may own anything", Input{
			Nodes:   []Node{node("apps", "a"), with(node("web"), func(n *Node) { n.Succeeded, n.Unbuilt = false, true })},
			Records: []*inventory.Record{record("apps", id("root"), "a", "b")}},
			`keep b of apps, tracked: Kustomization "flux-system/web" was not built and may own it
after apps: a b
`},
		{"S5.22 a Kustomization that left Git", Input{
			Nodes:   []Node{node("root")},
			Records: []*inventory.Record{record("root", flux.ID{}), record("apps", id("root"), "a", "b")}},
			`delete apps: b a of 2 left
after apps: (record deleted)
after root:
`},
		{"S5.16 a renamed Kustomization keeps its objects", Input{
			Nodes:   []Node{node("root"), node("new", "a", "b")},
			Records: []*inventory.Record{record("old", id("root"), "a", "b", "c")}},
			`delete old: c of 3 left
move a: old → new
move b: old → new
after new: a b
after old: (record deleted)
after root:
`},
		{"S5.17 Orphan", Input{Records: []*inventory.Record{
			rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.DeletionPolicy = "Orphan" })}},
			`keep a of apps, forgotten: its Kustomization has deletionPolicy: Orphan
after apps: (record deleted)
`},
		{"S5.17 MirrorPrune with prune: false", Input{Records: []*inventory.Record{
			rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.Prune = false })}},
			`keep a of apps, forgotten: its Kustomization has prune: false
after apps: (record deleted)
`},
		{"S5.17 MirrorPrune is the default", Input{Records: []*inventory.Record{
			rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.DeletionPolicy = "" })}},
			"delete apps: a of 1 left\nafter apps: (record deleted)\n"},
		{"S5.17 Delete whatever prune says", Input{Records: []*inventory.Record{
			rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.Prune, r.DeletionPolicy = false, "Delete" })}},
			"delete apps: a of 1 left\nafter apps: (record deleted)\n"},
		{"S5.17 S5.19 WaitForTermination", Input{Records: []*inventory.Record{
			rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.Prune, r.DeletionPolicy = false, "WaitForTermination" })}},
			"delete apps: a of 1 left wait 1m0s\nafter apps: (record deleted)\n"},
		{"S5.17 suspended", Input{Records: []*inventory.Record{
			rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.Suspended, r.DeletionPolicy = true, "Delete" })}},
			`keep a of apps, forgotten: its Kustomization was suspended when it left Git
after apps: (record deleted)
`},
		{"S5.22 the parent has prune: false", Input{
			Nodes:   []Node{with(node("root"), func(n *Node) { n.Prune = false })},
			Records: []*inventory.Record{record("apps", id("root"), "a")}},
			`keep a of apps, tracked: Kustomization "flux-system/root", which held Kustomization "flux-system/apps", has prune: false
after root:
`},
		{"S5.22 the parent failed", Input{
			Nodes:   []Node{with(node("root"), func(n *Node) { n.Succeeded = false })},
			Records: []*inventory.Record{record("apps", id("root"), "a")}},
			`keep a of apps, tracked: Kustomization "flux-system/root", which held Kustomization "flux-system/apps", has not succeeded
`},
		{"S5.22 the parent is left out of the run", Input{
			Nodes:   []Node{with(node("root"), func(n *Node) { n.Succeeded, n.Idle = false, true })},
			Records: []*inventory.Record{record("apps", id("root"), "a")}},
			`keep a of apps, tracked: Kustomization "flux-system/root", which held Kustomization "flux-system/apps", is not run
`},
		{"what left Git stays while something that needed it has not succeeded, through another that left", Input{
			Nodes: []Node{node("root"), with(node("apps", "a"), func(n *Node) { n.Succeeded = false })},
			Records: []*inventory.Record{
				rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.DependsOn = ids("infra") }),
				rec(record("infra", id("root"), "i"), func(r *inventory.Record) { r.DependsOn = ids("crds") }),
				record("crds", id("root"), "c"), record("other", id("root"), "o")}},
			`delete other: o of 1 left
keep c of crds, tracked: Kustomization "flux-system/apps", which needed it before, has not succeeded
keep i of infra, tracked: Kustomization "flux-system/apps", which needed it before, has not succeeded
after other: (record deleted)
after root:
`},
		{"what left Git goes when what needed it has succeeded, or was not to run", Input{
			Nodes: []Node{node("root"), node("apps", "a"), with(node("idle", "x"), func(n *Node) { n.Succeeded, n.Idle = false, true })},
			Records: []*inventory.Record{
				rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.DependsOn = ids("infra") }),
				rec(record("idle", id("root"), "x"), func(r *inventory.Record) { r.DependsOn = ids("infra") }),
				record("infra", id("root"), "i")}},
			`delete infra: i of 1 left
after apps: a
after infra: (record deleted)
after root:
`},
		{"S5.9 S5.22 a Kustomization that is marked left Git, its own child with it", Input{
			Nodes: []Node{node("root")},
			Records: []*inventory.Record{
				rec(record("apps", id("root"), "a"), func(r *inventory.Record) {
					r.DeletionPolicy, r.Marker = "Delete", "kustomize.toolkit.fluxcd.io/prune: disabled"
				}), record("child", id("apps"), "b")}},
			`keep a of apps, tracked: Kustomization "flux-system/apps" is marked kustomize.toolkit.fluxcd.io/prune: disabled
keep b of child, tracked: Kustomization "flux-system/apps" is marked kustomize.toolkit.fluxcd.io/prune: disabled
after root:
`},
		{"S5.9 a marked Kustomization that is in Git prunes its objects", Input{
			Nodes: []Node{node("apps", "a")},
			Records: []*inventory.Record{rec(record("apps", id("root"), "a", "b"), func(r *inventory.Record) {
				r.Marker = "kustomize.toolkit.fluxcd.io/prune: disabled"
			})}},
			"delete apps: b of 2\nafter apps: a\n"},
		{"S5.22 parent and child left, the parent orphans", Input{
			Nodes: []Node{node("root")},
			Records: []*inventory.Record{
				rec(record("tenant", id("root"), "t"), func(r *inventory.Record) { r.DeletionPolicy = "Orphan" }), record("apps", id("tenant"), "a")}},
			`keep a of apps, tracked: Kustomization "flux-system/tenant", which held Kustomization "flux-system/apps", left Git without deleting what it has: its Kustomization has deletionPolicy: Orphan
keep t of tenant, forgotten: its Kustomization has deletionPolicy: Orphan
after root:
after tenant: (record deleted)
`},
		{"reverse dependency order, children before parents", Input{
			Nodes: []Node{node("root"), with(node("infra", "i"), func(n *Node) { n.DependsOn = ids("crds") }), node("crds", "c")},
			Records: []*inventory.Record{
				record("crds", id("root"), "c", "c2"), record("infra", id("root"), "i", "i2"), record("root", flux.ID{}, "r"),
				rec(record("apps", id("root"), "a"), func(r *inventory.Record) { r.DependsOn = ids("infra") }),
				record("child", id("apps"), "x"),
			}},
			`delete child: x of 1 left
delete apps: a of 1 left
delete infra: i2 of 2
delete crds: c2 of 2
delete root: r of 1 empty
after apps: (record deleted)
after child: (record deleted)
after crds: c
after infra: i
after root:
`},
		{"the order holds through Kustomizations without deletions", Input{
			Nodes: []Node{with(node("a", "x"), func(n *Node) { n.DependsOn = ids("b") }), with(node("b"), func(n *Node) { n.DependsOn = ids("c") }), node("c", "y")},
			Records: []*inventory.Record{
				record("c", id("root"), "y", "z"), record("a", id("root"), "x", "w")}},
			"delete a: w of 2\ndelete c: z of 2\nafter a: x\nafter b:\nafter c: y\n"},
		{"a cycle of old and new edges ends", Input{
			Nodes: []Node{with(node("new", "n"), func(n *Node) { n.DependsOn = ids("old") })},
			Records: []*inventory.Record{
				record("new", id("root"), "n", "m"), rec(record("old", id("root"), "o"), func(r *inventory.Record) { r.DependsOn = ids("new") })}},
			"delete new: m of 2\ndelete old: o of 1 left\nafter new: n\nafter old: (record deleted)\n"},
		{"S16.2 S16.3 never: what belongs to Flux or holds the records", Input{
			StateNamespace: "flux-system",
			Nodes:          []Node{node("root")},
			Records: []*inventory.Record{rec(record("root", flux.ID{}), func(r *inventory.Record) {
				r.Entries = []inventory.Entry{
					{ID: "flux-system_apps_kustomize.toolkit.fluxcd.io_Kustomization", Version: "v1"},
					{ID: "flux-system_flux-system_source.toolkit.fluxcd.io_GitRepository", Version: "v1"},
					{ID: "_kustomizations.kustomize.toolkit.fluxcd.io_apiextensions.k8s.io_CustomResourceDefinition", Version: "v1"},
					{ID: "_flux-system__Namespace", Version: "v1"},
					{ID: "_other__Namespace", Version: "v1"},
				}
			})}},
			`delete root: Namespace/other of 5 empty
keep Kustomization/flux-system/apps of root, forgotten: it is a Kustomization, which sluice runs and does not own
keep GitRepository/flux-system/flux-system of root, forgotten: it is a source, which sluice reads and does not own
keep CustomResourceDefinition/kustomizations.kustomize.toolkit.fluxcd.io of root, forgotten: it defines a kind of Flux
keep Namespace/flux-system of root, forgotten: sluice keeps its records in it
after root:
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Candidates(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(t, p); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// The four policies against prune, when an object leaves Git and when its Kustomization does.
func TestS5_17_DeletionPolicies(t *testing.T) {
	for _, tt := range []struct {
		policy string
		prune  bool
		// object and kustomization say whether what left is deleted; wait whether that is waited for.
		object, kustomization, wait bool
	}{
		{"MirrorPrune", true, true, true, false},
		{"MirrorPrune", false, false, false, false},
		{"Delete", true, true, true, false},
		{"Delete", false, false, true, false},
		{"WaitForTermination", true, true, true, true},
		{"WaitForTermination", false, false, true, true},
		{"Orphan", true, true, false, false},
		{"Orphan", false, false, false, false},
	} {
		r := record("apps", id("root"), "a", "b")
		r.DeletionPolicy, r.Prune = tt.policy, tt.prune
		n := node("apps", "a")
		n.Prune = tt.prune
		for _, left := range []bool{false, true} {
			nodes, want, waits := []Node{node("root"), n}, tt.object, false
			if left {
				nodes, want, waits = nodes[:1], tt.kustomization, tt.wait
			}
			p, err := Candidates(Input{Nodes: nodes, Records: []*inventory.Record{r}})
			if err != nil {
				t.Fatal(err)
			}
			// The Kustomization itself takes both objects along, and its record in any case.
			objects, kept := 1, 1
			if left {
				objects, kept = 2, 2
			}
			if want {
				kept = 0
			} else {
				objects = 0
			}
			if p.Objects() != objects || len(p.Kept) != kept || want && (p.Deletions[0].Wait != waits || p.Deletions[0].Left != left) {
				t.Errorf("%s, prune %t, left %t: got\n%s", tt.policy, tt.prune, left, show(t, p))
			}
			var results []Result
			for _, d := range p.Deletions {
				for _, e := range d.Entries {
					results = append(results, Result{Node: d.Node, Entry: e, Outcome: Deleted})
				}
			}
			for _, after := range p.After(results) {
				if after.ID == id("apps") && (after.Delete != left || !left && len(after.Entries) != 1) {
					t.Errorf("%s, prune %t, left %t: after that %+v", tt.policy, tt.prune, left, after)
				}
			}
		}
	}
}

func TestCandidatesReportsAllBadIDs(t *testing.T) {
	r := record("apps", flux.ID{}, "a")
	r.Entries = append(r.Entries, inventory.Entry{ID: "x"}, inventory.Entry{ID: "y"})
	_, err := Candidates(Input{Records: []*inventory.Record{r}})
	if err == nil || !strings.Contains(err.Error(), `"x"`) || !strings.Contains(err.Error(), `"y"`) || !strings.Contains(err.Error(), "flux-system/apps") {
		t.Errorf("got %v", err)
	}
}

// Four references: the run's own cluster, two that lead to one other cluster, and one that leads nowhere.
var references = []flux.ClusterRef{{}, {Kind: "Secret", Namespace: "a", Name: "east"}, {Kind: "Secret", Namespace: "b", Name: "east"},
	{Kind: "Secret", Namespace: "a", Name: "lost"}}

func where(ref flux.ClusterRef) Place {
	switch ref {
	case references[2]:
		return Place{Cluster: references[1]}
	case references[3]:
		return Place{Cluster: ref, Lost: "nobody answers"}
	}
	return Place{Cluster: ref}
}

// keys are the objects of entries, whatever reference leads to their clusters.
func keys(entries []inventory.Entry) map[inventory.Key]bool {
	set := map[inventory.Key]bool{}
	for _, e := range entries {
		set[keyOf(e)] = true
	}
	return set
}

func keyOf(e inventory.Entry) inventory.Key {
	return inventory.Key{Cluster: where(e.Cluster).Cluster, ID: e.ID}
}

// world is a random run: some Kustomizations in Git, some left, records that overlap, several clusters.
func world(r *rand.Rand) Input {
	anywhere := func() flux.ClusterRef { return references[max(0, r.IntN(len(references)+3)-3)] }
	pick := func() []string {
		var names []string
		for range r.IntN(6) {
			names = append(names, fmt.Sprint("o", r.IntN(10)))
		}
		return names
	}
	in := Input{Where: where}
	for i := range 6 {
		name := fmt.Sprint("k", i)
		var depends []flux.ID
		for j := range i {
			if r.IntN(3) == 0 {
				depends = append(depends, id(fmt.Sprint("k", j)))
			}
		}
		parent := flux.ID{}
		if i > 0 {
			parent = id(fmt.Sprint("k", r.IntN(i)))
		}
		if r.IntN(3) > 0 {
			n := node(name, pick()...)
			n.Parent, n.DependsOn = parent, depends
			n.Succeeded, n.Prune = r.IntN(4) > 0, r.IntN(4) > 0
			n.Unbuilt = !n.Succeeded && r.IntN(6) == 0
			at := anywhere()
			for j := range n.Desired {
				n.Desired[j].Cluster = at
			}
			in.Nodes = append(in.Nodes, n)
		}
		if r.IntN(4) > 0 {
			rec := record(name, parent, pick()...)
			rec.DependsOn = depends
			for j := range rec.Entries {
				rec.Entries[j].Cluster = anywhere()
			}
			rec.Prune, rec.Suspended = r.IntN(4) > 0, r.IntN(6) == 0
			rec.DeletionPolicy = []string{"", "MirrorPrune", "Delete", "WaitForTermination", "Orphan"}[r.IntN(5)]
			in.Records = append(in.Records, rec)
		}
	}
	r.Shuffle(len(in.Nodes), func(i, j int) { in.Nodes[i], in.Nodes[j] = in.Nodes[j], in.Nodes[i] })
	return in
}

func TestCandidatesProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	deleted := 0
	for range 20000 {
		in := world(r)
		p, err := Candidates(in)
		if err != nil {
			t.Fatal(err)
		}
		nodes := map[flux.ID]Node{}
		for _, n := range in.Nodes {
			nodes[n.ID] = n
		}
		doomed := map[flux.ID]bool{}
		first, last := map[flux.ID]int{}, map[flux.ID]int{}
		seen := map[Object]bool{}
		for i, d := range p.Deletions {
			at := Object{Node: d.Node, Cluster: d.Cluster}
			if seen[at] || len(d.Entries) == 0 {
				t.Fatalf("%+v: deletion %+v", in, d)
			}
			seen[at] = true
			if _, before := first[d.Node]; !before {
				first[d.Node] = i
			}
			last[d.Node] = i
			doomed[d.Node] = true
			for _, e := range d.Entries {
				if place := where(e.Cluster); place.Cluster != d.Cluster || place.Lost != "" {
					t.Fatalf("%+v: deletes %v in %q", in, e, d.Cluster)
				}
			}
			deleted += len(d.Entries)
			if n, ok := nodes[d.Node]; ok && (!n.Succeeded || !n.Prune) {
				t.Fatalf("%+v: %v is pruned", in, d.Node)
			}
			// Never an object that any Kustomization of the run owns.
			for _, n := range in.Nodes {
				owned := keys(n.Desired)
				for _, e := range d.Entries {
					if owned[keyOf(e)] {
						t.Fatalf("%+v: deletes %v, which %v owns", in, e, n.ID)
					}
				}
			}
		}
		for _, d := range p.Deletions {
			for _, need := range d.Needs {
				if at, ok := first[need]; ok && at < last[d.Node] {
					t.Fatalf("%+v: %v is deleted before %v, which needs it", in, need, d.Node)
				}
			}
		}
		kept := map[flux.ID]map[inventory.Key]Kept{}
		for _, k := range p.Kept {
			if kept[k.Node] == nil {
				kept[k.Node] = map[inventory.Key]Kept{}
			}
			kept[k.Node][keyOf(k.Entry)] = k
		}
		moved := map[flux.ID]map[inventory.Key]bool{}
		for _, m := range p.Moves {
			if moved[m.From] == nil {
				moved[m.From] = map[inventory.Key]bool{}
			}
			moved[m.From][keyOf(m.Entry)] = true
			if to := nodes[m.To]; !to.Succeeded || !keys(to.Desired)[keyOf(m.Entry)] {
				t.Fatalf("%+v: %v moves to %v, which has not taken it", in, m.Entry, m.To)
			}
		}
		// With whatever is deleted, nothing is lost: each object of a record is still in it, or was deleted, moved or kept on purpose.
		var results []Result
		settled := map[flux.ID]map[inventory.Key]bool{}
		for _, d := range p.Deletions {
			if settled[d.Node] == nil {
				settled[d.Node] = map[inventory.Key]bool{}
			}
			for _, e := range d.Entries {
				outcome := []Outcome{Deleted, Gone, Spared, Failed, NotTried}[r.IntN(5)]
				results = append(results, Result{Node: d.Node, Entry: e, Outcome: outcome})
				settled[d.Node][keyOf(e)] = outcome != Failed && outcome != NotTried
			}
		}
		after := map[flux.ID]After{}
		for _, a := range p.After(results) {
			after[a.ID] = a
		}
		for _, rec := range in.Records {
			a, changes := after[rec.ID]
			if !changes {
				if doomed[rec.ID] || len(moved[rec.ID]) > 0 {
					t.Fatalf("%+v: %v is pruned and its record stays", in, rec.ID)
				}
				continue
			}
			for _, e := range rec.Entries {
				key := keyOf(e)
				k, isKept := kept[rec.ID][key]
				accounted := settled[rec.ID][key] || moved[rec.ID][key] || isKept && !k.Tracked
				if tracked := keys(a.Entries)[key]; tracked == accounted {
					t.Fatalf("%+v: of %v, %v is tracked: %t, settled: %t, moved: %t, kept: %+v", in, rec.ID, e, tracked,
						settled[rec.ID][key], moved[rec.ID][key], k)
				}
			}
			if _, inGit := nodes[rec.ID]; a.Delete && (inGit || len(a.Entries) > 0) {
				t.Fatalf("%+v: the record of %v is deleted: %+v", in, rec.ID, a)
			}
		}
		for _, n := range in.Nodes {
			if a, ok := after[n.ID]; ok && len(inventory.Diff(n.Desired, a.Entries)) > 0 {
				t.Fatalf("%+v: the record of %v loses %v", in, n.ID, inventory.Diff(n.Desired, a.Entries))
			}
		}
		// The order of the input does not matter, nor whether the union was saved before.
		slices.Reverse(in.Nodes)
		slices.Reverse(in.Records)
		again, err := Candidates(in)
		if err != nil || show(t, again) != show(t, p) {
			t.Fatalf("%+v: got\n%s\nthen %v\n%s", in, show(t, p), err, show(t, again))
		}
	}
	if deleted < 10000 {
		t.Errorf("only %d deletions were looked at", deleted)
	}
}
