package inventory

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/flux"
)

// visible is all that a record says, whatever time zone its times are in.
func visible(t *testing.T, r *Record) string {
	t.Helper()
	p, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	return p.data[recordKey] + p.data[entriesKey]
}

// turn is what a run notes of a Kustomization, as package run does it.
func turn(r *Record, digest, revision string, result Result, at time.Time, took time.Duration) {
	r.Result, r.Updated, r.Digest = result, at, digest
	status := StatusHealthCheckFailed
	if result == Ready {
		r.Revision, status = revision, StatusSucceeded
	}
	r.History.Upsert(digest, at, took, status, map[string]string{"revision": revision})
}

func load(t *testing.T, s Store) *State {
	t.Helper()
	state, err := s.Load(t.Context(), rootID)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// Whatever runs find, a reader sees the same whether each record was saved each
// time or confirmed where that was enough (S1.15 and all else).
func TestConfirmedIsAsSaved(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	var plain, sparing MemoryStore
	ids := make([]flux.ID, 12)
	for i := range ids {
		ids[i] = flux.ID{Namespace: "flux-system", Name: fmt.Sprintf("app-%02d", i)}
	}
	digests := map[flux.ID]int{}
	saves, confirmations := 0, 0
	for number := range 60 {
		// The clocks of runners differ.
		at := moment.Add(time.Duration(number)*time.Minute + time.Duration(random.IntN(600)-300)*time.Second)
		revision := fmt.Sprintf("main@sha1:%040d", number)
		type outcome struct {
			id     flux.ID
			digest string
			result Result
			took   time.Duration
			spec   bool
		}
		var outcomes []outcome
		for _, id := range ids {
			o := outcome{id: id, result: Ready, took: time.Duration(random.IntN(5000)) * time.Millisecond}
			switch random.IntN(12) {
			case 0:
				continue // left out of the run
			case 1:
				digests[id]++
			case 2:
				digests[id] = max(0, digests[id]-1) // gone back
			case 3:
				o.result = Unhealthy
			case 4:
				o.spec = true
			}
			o.digest = fmt.Sprintf("sha256:%d", digests[id])
			outcomes = append(outcomes, o)
		}
		for _, s := range []*MemoryStore{&plain, &sparing} {
			state := load(t, s)
			root := state.Root
			if root == nil {
				root = &Root{ID: rootID}
			}
			root.Begin(Run{Revision: revision, Commit: fmt.Sprint(number), Started: at})
			for _, o := range outcomes {
				r := state.Records[o.id]
				if r == nil {
					r = &Record{ID: o.id, Root: rootID, Path: "a"}
				}
				if o.spec {
					r.Path += "x"
				}
				r.Entries = []Entry{{ID: "ns_" + strings.ReplaceAll(o.digest, ":", "-") + "__ConfigMap", Version: "v1"}}
				turn(r, o.digest, revision, o.result, at, o.took)
				if s == &sparing && root.Confirm(r) {
					confirmations++
					continue
				}
				if err := s.Save(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				saves++
			}
			root.Updated = at
			root.End(Ready, at)
			if err := s.SaveRoot(t.Context(), root); err != nil {
				t.Fatal(err)
			}
		}
		want, got := load(t, &plain), load(t, &sparing)
		if len(want.Records) != len(got.Records) {
			t.Fatalf("run %d: %d records, want %d", number, len(got.Records), len(want.Records))
		}
		for id, w := range want.Records {
			if g := got.Records[id]; visible(t, g) != visible(t, w) {
				t.Fatalf("run %d: %s\n got %s\nwant %s", number, id, visible(t, g), visible(t, w))
			}
		}
	}
	if confirmations < 100 || saves < 100 {
		t.Errorf("%d confirmations and %d saves show little", confirmations, saves)
	}
}

// confirmedOnce is a store with one record that one later run has confirmed.
func confirmedOnce(t *testing.T) (*MemoryStore, *State) {
	t.Helper()
	s := &MemoryStore{}
	r, root := sample(1), &Root{ID: rootID, Path: "clusters/production"}
	turn(r, "sha256:a", "main@sha1:1", Ready, moment, time.Second)
	if err := s.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	turn(r, "sha256:a", "main@sha1:2", Ready, moment.Add(time.Hour), 2*time.Second)
	if !root.Confirm(r) {
		t.Fatal("not confirmed")
	}
	if err := s.SaveRoot(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	state := load(t, s)
	if got := state.Records[appsID]; got.Revision != "main@sha1:2" || !got.Updated.Equal(moment.Add(time.Hour)) || got.History[0].TotalReconciliations != 2 {
		t.Fatalf("got %+v", got)
	}
	return s, state
}

// A run that is cut off after it has saved a record and before it saves the root
// leaves a confirmation of what the record was before: it must not count twice,
// nor put the record back.
func TestConfirmationOfAnEarlierState(t *testing.T) {
	s, state := confirmedOnce(t)
	r := state.Records[appsID]
	// The clock of this runner is behind that of the one that confirmed.
	turn(r, "sha256:b", "main@sha1:3", Applying, moment.Add(time.Minute), time.Second)
	r.Entries = append(r.Entries, Entry{ID: "ns_new__ConfigMap", Version: "v1"})
	if err := s.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	got := load(t, s)
	if visible(t, got.Records[appsID]) != visible(t, r) {
		t.Errorf("got %s\nwant %s", visible(t, got.Records[appsID]), visible(t, r))
	}
	if len(got.Root.Confirmed) != 0 {
		t.Errorf("it is kept: %+v", got.Root.Confirmed)
	}
}

// A sluice that knows nothing of confirmations saves the root without them. Its
// records are then as they were saved last, and all there.
func TestConfirmationsAreDropped(t *testing.T) {
	s, state := confirmedOnce(t)
	root := state.Root
	root.Confirmed = nil
	if err := s.SaveRoot(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	got := load(t, s).Records[appsID]
	if got.Revision != "main@sha1:1" || got.History[0].TotalReconciliations != 1 || len(got.Entries) != 1 {
		t.Errorf("got %+v", got)
	}
	p, err := root.encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.data) != 1 || len(p.binary) != 0 || !strings.Contains(p.data[recordKey], `"schemaVersion": 1`) {
		t.Errorf("without confirmations the form is another: %+v", p)
	}
}

// What is not only another revision has to be saved.
func TestConfirmRefuses(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"never saved": func(r *Record) { r.stored = "" },
		"result":      func(r *Record) { r.Result = Unhealthy },
		"entries":     func(r *Record) { r.Entries = r.Entries[:1] },
		"order":       func(r *Record) { r.Entries[0], r.Entries[1] = r.Entries[1], r.Entries[0] },
		"digest":      func(r *Record) { turn(r, "sha256:b", "r", Ready, moment, 0) },
		"status":      func(r *Record) { r.History[0].LastReconciledStatus = StatusPruneFailed },
		"parent":      func(r *Record) { r.Parent = flux.ID{} },
		"root":        func(r *Record) { r.Root.Name = "other" },
		"policy":      func(r *Record) { r.DeletionPolicy = "Orphan" },
		"timeout":     func(r *Record) { r.Timeout++ },
		"suspended":   func(r *Record) { r.Suspended = !r.Suspended },
		"origin":      func(r *Record) { r.OriginRevision = "v2" },
	} {
		t.Run(name, func(t *testing.T) {
			s := &MemoryStore{}
			r := sample(2)
			turn(r, "sha256:a", "main@sha1:1", Ready, moment, time.Second)
			if err := s.Save(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			root := &Root{ID: rootID, Confirmed: map[flux.ID]Confirmation{}}
			if !root.Confirm(r) || len(root.Confirmed) != 1 {
				t.Fatal("what it says already cannot be confirmed")
			}
			change(r)
			if root.Confirm(r) || len(root.Confirmed) != 0 {
				t.Error("it is confirmed though it says something else")
			}
		})
	}
}

// Many Kustomizations, each at another revision, time and count.
func TestConfirmationsFit(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1000, 5000} {
		root := &Root{ID: rootID, Confirmed: map[flux.ID]Confirmation{}}
		for i := range n {
			id := flux.ID{Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("application-number-%d", i)}
			root.Nodes = append(root.Nodes, id)
			root.Confirmed[id] = Confirmation{Base: moment.Add(time.Duration(random.Int64N(1e17))), Revision: fmt.Sprintf("main@sha1:%016x%016x%08x", random.Uint64(), random.Uint64(), random.Uint32()),
				Updated: moment.Add(time.Duration(random.Int64N(1e17))), Total: random.Int64N(1000), Took: time.Duration(random.IntN(100000)) * time.Millisecond}
		}
		p, err := root.encode()
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		t.Logf("%d Kustomizations: %d bytes", n, p.size())
		again, err := root.encode()
		if err != nil || !p.equal(again.data, again.binary) {
			t.Errorf("%d: encoded twice it is not the same (%v)", n, err)
		}
		got, err := decodeRoot("x", p)
		if err != nil || !reflect.DeepEqual(got.Confirmed, root.Confirmed) {
			t.Errorf("%d: read back it is not the same (%v)", n, err)
		}
	}
}

func TestDamagedConfirmations(t *testing.T) {
	p, err := (&Root{ID: rootID}).encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{", `{"groups":[{"kustomizations":{"apps":1}}]}`} {
		p.data[confirmedKey] = text
		var damaged *DamagedError
		if _, err := decodeRoot("ConfigMap/a/b", p); !errors.As(err, &damaged) || !strings.Contains(err.Error(), confirmedKey) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
