package inventory

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

// Most runs find most Kustomizations as they are on record. Such a record would only be saved to say again what it says, at
// another revision and time. The root's record, which is saved at the end of each run, says that for all of them at once: by a
// Confirmation for each. Load puts both together, so that whoever reads a record sees what it would hold had it been saved each
// time. Inventories are never part of this: a record alone holds all that may have to be deleted.

// Confirmation is what later runs add to a record that they found true, and did not save.
type Confirmation struct {
	// Base is Record.Updated of the record as it was saved. A confirmation of another state than the one that is stored, such as
	// one that a later save has made up for, says nothing.
	Base time.Time
	// Revision and Updated are the record's since the last of those runs.
	Revision string
	Updated  time.Time
	// Total and Took are what the newest snapshot of the history has as totalReconciliations and lastReconciledDuration since
	// (S1.15). Took is in whole milliseconds.
	Total int64
	Took  time.Duration
}

// Confirm makes the root say, in place of a save of the record, what the record has come to say since it was stored. It reports
// whether it can: only revision, time and the count of the newest snapshot may have changed, and all is well. If not, the record
// has to be saved; what was confirmed of it before then no longer counts.
func (r *Root) Confirm(record *Record) bool {
	delete(r.Confirmed, record.ID)
	if record.Result != Ready || !record.Says() {
		return false
	}
	c := Confirmation{Base: record.saved, Revision: record.Revision, Updated: record.Updated}
	if newest := record.History.Latest(); newest != nil {
		c.Total, c.Took = newest.TotalReconciliations, newest.LastReconciledDuration.Round(time.Millisecond)
	}
	if r.Confirmed == nil {
		r.Confirmed = map[flux.ID]Confirmation{}
	}
	r.Confirmed[record.ID] = c
	return true
}

// Says reports whether the record, as it is stored, says all that it does now, but for what Confirm can say of it.
func (r *Record) Says() bool { return r.Stored() && r.statement() == r.said }

// fold brings the records up to what the root has confirmed of them, and forgets what is about another state of theirs.
func (s *State) fold() {
	if s.Root == nil {
		return
	}
	maps.DeleteFunc(s.Root.Confirmed, func(id flux.ID, c Confirmation) bool {
		r := s.Records[id]
		if r == nil || !r.saved.Equal(c.Base) {
			return true
		}
		r.Revision, r.Updated = c.Revision, c.Updated
		if newest := r.History.Latest(); newest != nil {
			newest.LastReconciled = metav1.NewTime(c.Updated.Truncate(time.Second))
			newest.LastReconciledDuration.Duration = c.Took
			newest.TotalReconciliations = c.Total
			newest.Metadata = map[string]string{"revision": c.Revision}
		}
		return false
	})
}

// statement is a sum of all that the record says, but for what a Confirmation can say of it.
func (r *Record) statement() [sha256.Size]byte {
	c := *r
	c.Revision, c.Updated, c.ToolVersion = "", time.Time{}, ""
	if len(r.History) > 0 {
		c.History = slices.Clone(r.History)
		newest := &c.History[0]
		newest.LastReconciled, newest.LastReconciledDuration = metav1.Time{}, metav1.Duration{}
		newest.TotalReconciliations, newest.Metadata = 0, nil
	}
	sum := sha256.New()
	// What cannot be written as JSON is refused when it is saved.
	_ = json.NewEncoder(sum).Encode(c.head())
	_ = json.NewEncoder(sum).Encode(entriesJSON{Entries: append([]Entry{}, c.Entries...)})
	return [sha256.Size]byte(sum.Sum(nil))
}

// keep notes that the store holds the record as it is.
func (r *Record) keep() { r.saved, r.said = r.Updated, r.statement() }

// confirmedJSON is how confirmations are stored: those that differ in nothing but their duration together.
type confirmedJSON struct {
	Groups []confirmedGroup `json:"groups"`
}

type confirmedGroup struct {
	Base     time.Time `json:"base"`
	Revision string    `json:"revision,omitempty"`
	Updated  time.Time `json:"updated"`
	Total    int64     `json:"total,omitempty"`
	// Kustomizations maps ids to Took in milliseconds.
	Kustomizations map[string]int64 `json:"kustomizations"`
}

func encodeConfirmed(all map[flux.ID]Confirmation) ([]byte, error) {
	groups := map[Confirmation]*confirmedGroup{}
	var w confirmedJSON
	for id, c := range all {
		key := Confirmation{Base: c.Base.UTC().Round(0), Revision: c.Revision, Updated: c.Updated.UTC().Round(0), Total: c.Total}
		g := groups[key]
		if g == nil {
			g = &confirmedGroup{Base: key.Base, Revision: key.Revision, Updated: key.Updated, Total: key.Total, Kustomizations: map[string]int64{}}
			groups[key] = g
		}
		g.Kustomizations[id.String()] = c.Took.Milliseconds()
	}
	for _, g := range groups {
		w.Groups = append(w.Groups, *g)
	}
	slices.SortFunc(w.Groups, func(a, b confirmedGroup) int {
		return cmp.Or(a.Base.Compare(b.Base), a.Updated.Compare(b.Updated), cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Total, b.Total))
	})
	return json.Marshal(w)
}

func decodeConfirmed(body io.Reader) (map[flux.ID]Confirmation, error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	var w confirmedJSON
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, err
	}
	all := map[flux.ID]Confirmation{}
	for _, g := range w.Groups {
		for text, took := range g.Kustomizations {
			id, err := flux.ParseID(text)
			if err != nil {
				return nil, err
			}
			all[id] = Confirmation{Base: g.Base, Revision: g.Revision, Updated: g.Updated, Total: g.Total, Took: time.Duration(took) * time.Millisecond}
		}
	}
	return all, nil
}
