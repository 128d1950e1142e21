package graph

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func vertices(lines string) []Vertex {
	var vs []Vertex
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) > 0 {
			vs = append(vs, Vertex{Name: f[0], Needs: f[1:]})
		}
	}
	return vs
}

func TestOrder(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"empty":             {"", ""},
		"ties by name":      {"c\na\nb", "a b c"},
		"chain":             {"apps controllers\ncontrollers crds\ncrds", "crds controllers apps"},
		"diamond":           {"d b c\nb a\nc a\na", "a b c d"},
		"need named twice":  {"b a a\na", "a b"},
		"two chains in one": {"z\ny z\na y\nm", "m z y a"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := New(vertices(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(g.Order(), " "); got != tc.want {
				t.Errorf("order %q, want %q", got, tc.want)
			}
		})
	}
}

func TestLongestFirst(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"empty":            {"", ""},
		"ties by name":     {"c\na\nb", "a b c"},
		"a chain first":    {"a\nb\ny\nz y", "y a b z"},
		"the longer chain": {"a\nb a\nx\ny x\nz y", "x a y b z"},
		"many behind one":  {"a\nb a\nm\nn m\no m\np n o", "m a n o b p"},
		"need named twice": {"b a a\na", "a b"},
		"a chain":          {"a b\nb c\nc", "c b a"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := New(vertices(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(g.LongestFirst(), " "); got != tc.want {
				t.Errorf("order %q, want %q", got, tc.want)
			}
		})
	}
}

// S7.3, S7.11: Flux waits for ever on these; here they are found before
// anything runs, all at once and with the same text each time.
func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"self":       {"a a", "cycle: a → a"},
		"two":        {"b a\na b", "cycle: a → b → a"},
		"three":      {"b c\nc a\na b", "cycle: a → b → c → a"},
		"shortest":   {"a b d\nb c\nc a\nd a", "cycle: a → d → a"},
		"two cycles": {"a b\nb a\nx y\ny x\nm", "cycle: a → b → a\ncycle: x → y → x"},
		"missing":    {"a q\nb a z", "a depends on q, which does not exist\nb depends on z, which does not exist"},
		"duplicate":  {"a\na", "duplicate a"},
		"everything": {"b a\na b\nc nope\nd\nd", "duplicate d\nc depends on nope, which does not exist\ncycle: a → b → a"},
	} {
		t.Run(name, func(t *testing.T) {
			vs := vertices(tc.in)
			for range 20 {
				rand.Shuffle(len(vs), func(i, j int) { vs[i], vs[j] = vs[j], vs[i] })
				_, err := New(vs)
				if err == nil || err.Error() != tc.want {
					t.Fatalf("error %v, want %s", err, tc.want)
				}
			}
		})
	}
}

// Any graph made by pointing only backwards has an order, and that order
// respects every edge; adding one edge from an ancestor to its descendant
// always gives a cycle that starts and ends with the same name.
func TestProperties(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := 2 + r.IntN(30)
		vs := make([]Vertex, n)
		for i := range vs {
			vs[i].Name = fmt.Sprintf("v%02d", i)
			for j := range i {
				if r.IntN(4) == 0 {
					vs[i].Needs = append(vs[i].Needs, vs[j].Name)
				}
			}
		}
		shuffled := slices.Clone(vs)
		r.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		g, err := New(shuffled)
		if err != nil {
			t.Fatal(seed, err)
		}
		order := g.Order()
		if len(order) != n {
			t.Fatalf("seed %d: %d of %d vertices in the order", seed, len(order), n)
		}
		for _, v := range vs {
			for _, need := range v.Needs {
				if slices.Index(order, need) >= slices.Index(order, v.Name) {
					t.Fatalf("seed %d: %s comes before %s", seed, v.Name, need)
				}
			}
		}
		last := &vs[n-1]
		if len(last.Needs) == 0 {
			continue
		}
		first := slices.IndexFunc(vs, func(v Vertex) bool { return v.Name == last.Needs[0] })
		vs[first].Needs = append(vs[first].Needs, last.Name)
		_, err = New(vs)
		if err == nil || !strings.Contains(err.Error(), "cycle: ") {
			t.Fatalf("seed %d: no cycle in %v", seed, err)
		}
	}
}

func TestLongChain(t *testing.T) {
	vs := make([]Vertex, 20000)
	for i := range vs {
		vs[i].Name = fmt.Sprintf("v%05d", i)
		if i > 0 {
			vs[i].Needs = []string{vs[i-1].Name}
		}
	}
	if _, err := New(vs); err != nil {
		t.Fatal(err)
	}
	vs[0].Needs = []string{vs[len(vs)-1].Name}
	if _, err := New(vs); err == nil {
		t.Fatal("no cycle found")
	}
}
