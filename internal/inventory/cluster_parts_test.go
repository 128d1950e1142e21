package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// mortal is the client of a process that is killed at its n-th write: before the server has done it, or after.
type mortal struct {
	client.WithWatch
	left  int
	after bool
	dead  bool
}

var errKilled = errors.New("killed")

func (m *mortal) write(do func() error) error {
	if m.dead {
		return errKilled
	}
	if m.left--; m.left < 0 {
		m.dead = true
		if m.after {
			if err := do(); err != nil {
				return err
			}
		}
		return errKilled
	}
	return do()
}

func (m *mortal) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	return m.write(func() error { return m.WithWatch.Create(ctx, o, opts...) })
}

func (m *mortal) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	return m.write(func() error { return m.WithWatch.Update(ctx, o, opts...) })
}

func (m *mortal) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	return m.write(func() error { return m.WithWatch.Delete(ctx, o, opts...) })
}

// partsIn returns the names of all parts in a namespace.
func partsIn(t *testing.T, c client.Client, namespace string) []string {
	t.Helper()
	var list corev1.ConfigMapList
	must(t, c.List(t.Context(), &list, client.InNamespace(namespace), client.MatchingLabels{KindLabel: KindPart}))
	names := []string{}
	for _, cm := range list.Items {
		names = append(names, cm.Name)
	}
	slices.Sort(names)
	return names
}

func partNames(r *Record) []string {
	names := []string{}
	if r != nil {
		for _, ref := range r.parts {
			names = append(names, ref.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// A process that is killed at any write of a record in parts leaves the old record or the new one, whole; and the next that goes to its
// end leaves no part that nobody needs.
func TestRecordInPartsSurvivesAKillAtAnyWrite(t *testing.T) {
	splitAt(t, 16<<10)
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	large, other, small := scattered(5, 1200, 40), scattered(6, 1200, 40), scattered(7, 3, 40)
	for _, tt := range []struct {
		name     string
		old, now []Entry // nil is no record
	}{
		{"the first", nil, large}, {"all parts new", large, other}, {"the same parts", large, large}, {"to one", large, small}, {"from one", small, large},
		{"one more", large, append(slices.Clone(large), small...)}, {"gone", large, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			step := func(s *ClusterStore, r *Record) error {
				var err error
				if tt.now == nil {
					err = s.Delete(t.Context(), r)
				} else {
					r.Entries = slices.Clone(tt.now)
					r.Digest = "sha256:new"
					err = s.Save(t.Context(), r)
				}
				if err == nil {
					err = s.Sweep(t.Context(), rootID)
				}
				return err
			}
			kills := 0
			for n, done := 0, false; !done; n++ {
				for _, after := range []bool{false, true} {
					good := NewClusterStore(c, namespace)
					state, err := good.Load(t.Context(), rootID)
					must(t, err)
					r := state.Records[appsID]
					switch {
					case tt.old == nil && r != nil:
						must(t, good.Delete(t.Context(), r))
					case tt.old != nil:
						if r == nil {
							r = sample(0)
						}
						r.Entries, r.Digest = slices.Clone(tt.old), "sha256:old"
						must(t, good.Save(t.Context(), r))
					}
					must(t, good.Sweep(t.Context(), rootID))
					state, err = good.Load(t.Context(), rootID)
					must(t, err)
					if r = state.Records[appsID]; r == nil {
						r = sample(0)
					}

					err = step(NewClusterStore(&mortal{WithWatch: c, left: n, after: after}, namespace), r)
					if err != nil && !errors.Is(err, errKilled) {
						t.Fatal(err)
					}
					if err == nil {
						done = true
					} else {
						kills++
					}
					next := NewClusterStore(c, namespace)
					state, err = next.Load(t.Context(), rootID)
					if err != nil {
						t.Fatalf("killed at write %d, after it: %t: %v", n+1, after, err)
					}
					got := state.Records[appsID]
					isOld := got == nil && tt.old == nil || got != nil && slices.Equal(got.Entries, tt.old) && got.Digest == "sha256:old"
					isNew := got == nil && tt.now == nil || got != nil && slices.Equal(got.Entries, tt.now) && got.Digest == "sha256:new"
					if !isOld && !isNew {
						t.Fatalf("killed at write %d, after it: %t: neither the old record nor the new one: %+v", n+1, after, got)
					}
					if got == nil {
						got = sample(0)
					}
					must(t, step(next, got))
					if left, want := partsIn(t, c, namespace), partNames(got); !slices.Equal(left, want) {
						t.Fatalf("killed at write %d, after it: %t: there are the parts %v, the record names %v", n+1, after, left, want)
					}
				}
			}
			if kills == 0 {
				t.Error("nothing was ever killed")
			}
		})
	}
}

// Of many who write the same record at once one does; the others are told, and its parts are all there.
func TestRecordInPartsHasOneWriter(t *testing.T) {
	splitAt(t, 16<<10)
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	for round := range 3 {
		results := make([]error, 6)
		records := make([]*Record, len(results))
		for i := range records {
			state, err := NewClusterStore(c, namespace).Load(t.Context(), rootID)
			must(t, err)
			if records[i] = state.Records[appsID]; records[i] == nil {
				records[i] = sample(0)
			}
			// Two of them want to write the same.
			records[i].Entries, records[i].Digest = scattered(uint64(100*round+i/2), 1000, 40), fmt.Sprint(i)
		}
		var group sync.WaitGroup
		for i, r := range records {
			group.Go(func() { results[i] = NewClusterStore(c, namespace).Save(t.Context(), r) })
		}
		group.Wait()
		winner := -1
		for i, err := range results {
			var conflict *ConflictError
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("both %d and %d have written", winner, i)
			case err == nil:
				winner = i
			case !errors.As(err, &conflict):
				t.Fatal(err)
			}
		}
		next := NewClusterStore(c, namespace)
		state, err := next.Load(t.Context(), rootID)
		must(t, err)
		got := state.Records[appsID]
		if winner < 0 || !slices.Equal(got.Entries, records[winner].Entries) || got.Digest != fmt.Sprint(winner) {
			t.Fatalf("after %v the record is not that of %d", results, winner)
		}
		must(t, next.Sweep(t.Context(), rootID))
		if left, want := partsIn(t, c, namespace), partNames(got); !slices.Equal(left, want) {
			t.Fatalf("there are the parts %v, the record names %v", left, want)
		}
	}
}

// What is swept is only what belongs to the root and is named by nothing.
func TestSweepLeavesWhatIsOfOthers(t *testing.T) {
	splitAt(t, 16<<10)
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	s := NewClusterStore(c, namespace)
	other := flux.ID{Namespace: "flux-system", Name: "other"}
	theirs := sample(0)
	theirs.ID.Name, theirs.Root, theirs.Entries = "theirs", other, scattered(1, 1000, 40)
	must(t, s.Save(t.Context(), theirs))
	ours := sample(0)
	ours.Entries = scattered(2, 1000, 40)
	must(t, s.Save(t.Context(), ours))
	// A record of a newer sluice names parts as nobody knows here.
	newer := sample(0)
	newer.ID.Name, newer.Entries = "newer", scattered(3, 1000, 40)
	must(t, s.Save(t.Context(), newer))
	var cm corev1.ConfigMap
	must(t, c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: RecordName(newer.ID)}, &cm))
	cm.Data[recordKey] = `{"schemaVersion": 99}`
	must(t, c.Update(t.Context(), &cm))
	before := partsIn(t, c, namespace)
	must(t, s.Sweep(t.Context(), rootID))
	must(t, s.Sweep(t.Context(), other))
	if after := partsIn(t, c, namespace); !slices.Equal(before, after) {
		t.Errorf("of %v there are left %v", before, after)
	}
	// Another root is taken over, and keeps its parts.
	old, err := s.Load(t.Context(), other)
	must(t, err)
	old.Root = &Root{ID: other}
	(&State{Records: map[flux.ID]*Record{}}).TakeOver(old, rootID)
	theirs = old.Records[theirs.ID]
	must(t, s.Save(t.Context(), theirs))
	must(t, s.Sweep(t.Context(), other))
	must(t, s.Sweep(t.Context(), rootID))
	if after := partsIn(t, c, namespace); len(after) != len(before) {
		t.Errorf("of %v there are left %v", before, after)
	}
	must(t, s.Delete(t.Context(), theirs))
	must(t, NewClusterStore(c, namespace).Sweep(t.Context(), rootID)) // has not looked
	if after := partsIn(t, c, namespace); len(after) != len(before) {
		t.Errorf("of %v there are left %v", before, after)
	}
	fresh := NewClusterStore(c, namespace)
	_, err = fresh.Survey(t.Context())
	must(t, err)
	must(t, fresh.Sweep(t.Context(), rootID))
	if after := partsIn(t, c, namespace); len(after) != len(partNames(ours))+len(partNames(newer)) {
		t.Errorf("there are left %v", after)
	}
}

// 20,000 objects in one Kustomization, by way of a real server: with names as they are, and with names that nothing can compress.
func TestTwentyThousandObjects(t *testing.T) {
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	s := NewClusterStore(c, namespace)
	usual := sample(0)
	for i := range 20000 {
		usual.Entries = append(usual.Entries, Entry{Version: "v1", ID: fmt.Sprintf("team-%03d-production_payments-%s-service-configuration-%05d-%x_apps_Deployment",
			i%200, []string{"authorization", "settlement", "reconciliation", "notification"}[i%4], i, uint32(i)*2654435761)})
	}
	hard := sample(0)
	hard.ID.Name, hard.Entries = "hard", scattered(1, 20000, 200)
	for _, r := range []*Record{usual, hard} {
		must(t, s.Save(t.Context(), r))
	}
	state, err := s.Load(t.Context(), rootID)
	must(t, err)
	for _, r := range []*Record{usual, hard} {
		got := state.Records[r.ID]
		if got == nil || !slices.Equal(got.Entries, r.Entries) || !got.Says() {
			t.Fatalf("%s is not read as it was written", r.ID)
		}
	}
	if len(partNames(usual)) != 0 || len(partNames(hard)) < 3 {
		t.Errorf("%d and %d parts", len(partNames(usual)), len(partNames(hard)))
	}
	// Old and new before the apply, the new alone after it.
	got := state.Records[hard.ID]
	got.Entries = Union(got.Entries, scattered(2, 1000, 200))
	must(t, s.Save(t.Context(), got))
	got.Entries = slices.Clone(hard.Entries)
	must(t, s.Save(t.Context(), got))
	must(t, s.Sweep(t.Context(), rootID))
	if left, want := partsIn(t, c, namespace), partNames(got); !slices.Equal(left, want) {
		t.Errorf("there are the parts %v, the record names %v", left, want)
	}
	// A part that somebody has removed is told, and never an inventory with less in it.
	must(t, c.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: got.parts[1].Name}}))
	_, err = s.Load(t.Context(), rootID)
	var damaged *DamagedError
	if !errors.As(err, &damaged) || !strings.Contains(err.Error(), "sluice.flux-system.hard is damaged: its part 2 of") || damaged.Hint() != "rebuild it from what is in the cluster: sluice status --repair" {
		t.Fatalf("got %v", err)
	}
	survey, err := s.Survey(t.Context())
	must(t, err)
	if len(survey.Unreadable) != 1 || survey.Unreadable[0].ID != hard.ID || survey.Unreadable[0].Root != rootID {
		t.Fatalf("unreadable are %v", survey.Unreadable)
	}
	rebuilt, known := survey.Unreadable[0].Rebuild(rootID, nil)
	if !known || len(rebuilt.Entries) < 1000 {
		t.Errorf("rebuilt with %d entries, its manifest known: %t", len(rebuilt.Entries), known)
	}
	must(t, s.Save(t.Context(), rebuilt))
	must(t, s.Sweep(t.Context(), rootID))
	if left, want := partsIn(t, c, namespace), partNames(rebuilt); !slices.Equal(left, want) {
		t.Errorf("there are the parts %v, the record names %v", left, want)
	}
}
