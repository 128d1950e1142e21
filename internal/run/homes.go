package run

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/prune"
)

// home is a connection to a cluster that objects of the run live in: the run's
// own, where records and lock are too, or one that spec.kubeConfig names (S4.42,
// S4.43). It is safe for concurrent use.
type home struct {
	*cluster.Cluster
	// place is the one reference that stands for all that lead to the same
	// cluster; zero for the run's own, with whatever credentials.
	place flux.ClusterRef

	mu   sync.Mutex
	hubs map[string]*health.Hub // by user
}

// health returns what all nodes share that are watched as a user (S4.40); abort
// ends the run if that cannot go on.
func (h *home) health(user string, abort func(error)) (*health.Hub, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.hubs[user]; ok {
		return known, nil
	}
	clients, err := health.NewClients(h.Config(user), nil, h.Mapper())
	if err != nil {
		return nil, err
	}
	if h.hubs == nil {
		h.hubs = map[string]*health.Hub{}
	}
	h.hubs[user] = health.NewHub(clients, abort)
	return h.hubs[user], nil
}

// rest ends all watching.
func (h *home) rest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hub := range h.hubs {
		hub.Close()
	}
	h.hubs = nil
}

// homes are the connections of a run. They are made by one goroutine at a time,
// while the graph runs by the holder of growth; at and where are for all.
type homes struct {
	mu    sync.RWMutex
	byRef map[flux.ClusterRef]*home
	// lost says of references why they lead nowhere.
	lost map[flux.ClusterRef]error
	// byContent has a connection for each distinct configuration, by its sum.
	byContent map[string]*home
}

func (h *homes) init() {
	h.byRef = map[flux.ClusterRef]*home{}
	h.lost = map[flux.ClusterRef]error{}
	h.byContent = map[string]*home{}
}

// at returns the connection that a reference leads to, nil if there is none.
func (h *homes) at(ref flux.ClusterRef) *home {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.byRef[ref]
}

func (h *homes) set(ref flux.ClusterRef, to *home) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.byRef[ref] = to
	delete(h.lost, ref)
}

// where is prune.Input.Where.
func (h *homes) where(ref flux.ClusterRef) prune.Place {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if to := h.byRef[ref]; to != nil {
		return prune.Place{Cluster: to.place}
	}
	lost := fmt.Sprintf("this run has not looked at the cluster of %s", ref)
	if err := h.lost[ref]; err != nil {
		lost = fmt.Sprintf("the cluster of %s cannot be reached", ref)
	}
	return prune.Place{Cluster: ref, Lost: lost}
}

// each calls do for every connection there is.
func (h *homes) each(do func(*home)) {
	for _, to := range h.byContent {
		do(to)
	}
	if own := h.byRef[flux.ClusterRef{}]; own != nil {
		do(own)
	}
}

// repeated is how many requests have been sent again over all connections.
func (h *homes) repeated() int {
	n := 0
	h.each(func(to *home) { n += to.Repeated() })
	return n
}

// closeAll lets go of all connections.
func (h *homes) closeAll() {
	h.each(func(to *home) {
		to.rest()
		to.Close()
	})
}

// homeOf returns the connection that a node's objects are applied through.
func (r *run) homeOf(n *node) (*home, error) {
	if to := r.homes.at(n.Cluster()); to != nil {
		return to, nil
	}
	return nil, fmt.Errorf("%s: no connection to the cluster of %s", n.ID, n.Cluster()) // not reached: reach and fillNow see to it
}

// remote says whether the node's objects live where spec.kubeConfig says.
func (n *node) remote() bool { return !n.Cluster().IsOwn() }

// runs says whether the node is to be applied in this run.
func (n *node) runs() bool { return !n.excluded && !n.Spec.Suspend && !n.broken }

// homeError says why the cluster that a reference names cannot be used.
type homeError struct {
	ref flux.ClusterRef
	// node is whose objects belong there; zero for those of a record.
	node    flux.ID
	problem homeProblem
	text    string
	hint    string
	err     error
}

// homeProblem is what is wrong with a cluster's configuration. The zero value is
// that the cluster cannot be used, for which the cause has the code.
type homeProblem int

const (
	unusable homeProblem = iota
	notFound
	unreadable
	malformed
	unsupportedProvider
)

var homeReasons = map[homeProblem]string{
	unusable: "ClusterUnavailable", notFound: "KubeConfigNotFound", unreadable: "KubeConfigUnreadable", malformed: "KubeConfigInvalid",
	unsupportedProvider: "UnsupportedProvider",
}

func (e *homeError) Error() string {
	text := "spec.kubeConfig: " + e.text
	if !e.node.IsZero() {
		text = e.node.String() + ": " + text
	}
	if e.err != nil {
		text += ": " + e.err.Error()
	}
	return text
}

func (e *homeError) Unwrap() error { return e.err }

// Hint says what to do.
func (e *homeError) Hint() string { return e.hint }

// reachHomes connects to every cluster that the nodes to be run name, and
// tells of each that cannot be used, once.
func (r *run) reachHomes(ctx context.Context) []event.Failure {
	users := map[flux.ClusterRef][]*node{}
	for _, n := range r.sorted() {
		if n.runs() && n.deferred == "" {
			users[n.Cluster()] = append(users[n.Cluster()], n)
		}
	}
	errs := r.connectHomes(ctx, slices.Collect(maps.Keys(users)), func(ref flux.ClusterRef) (map[string]string, bool, error) {
		return r.access(ctx, users[ref][0], ref)
	})
	var failures []event.Failure
	for _, ref := range slices.SortedFunc(maps.Keys(errs), compareRefs) {
		f := r.failure(ctx, "cluster", users[ref][0], of(users[ref][0], errs[ref]))
		if others := users[ref][1:]; len(others) > 0 {
			names := make([]string, len(others))
			for i, n := range others {
				names[i] = n.ID.String()
			}
			f.Text += "; the same goes for " + list(names, 10)
		}
		failures = append(failures, f)
	}
	return failures
}

func compareRefs(a, b flux.ClusterRef) int { return strings.Compare(a.String(), b.String()) }

// reachRecorded connects to the clusters that records name, for what is to be
// pruned there. One that cannot be reached any more is no reason to stop:
// nothing is deleted there, and nothing of it forgotten.
func (r *run) reachRecorded(ctx context.Context, records []*inventory.Record) {
	owners := map[flux.ClusterRef]flux.ID{}
	objects := map[flux.ClusterRef]int{}
	for _, record := range records {
		if n := r.nodes.get(record.ID); n != nil && (!n.runs() || n.deferred != "") {
			continue // it is left as it is, or its turn comes
		}
		for _, e := range record.Entries {
			if objects[e.Cluster]++; objects[e.Cluster] == 1 {
				owners[e.Cluster] = record.ID
			}
		}
	}
	errs := r.connectHomes(ctx, slices.Collect(maps.Keys(owners)), func(ref flux.ClusterRef) (map[string]string, bool, error) {
		return r.access(ctx, nil, ref)
	})
	for _, ref := range slices.SortedFunc(maps.Keys(errs), compareRefs) {
		if ctx.Err() != nil {
			return
		}
		err := errs[ref]
		r.homes.mu.Lock()
		r.homes.lost[ref] = err
		r.homes.mu.Unlock()
		n := event.Notice{Level: event.Warning, Code: "cluster-lost", Node: owners[ref].String(),
			Text: fmt.Sprintf("%s has %s on record in the cluster of %s, which cannot be reached; nothing is pruned there, and nothing of it forgotten: %v",
				owners[ref], count(objects[ref], "object", "objects"), ref, err),
			Hint: "restore the kubeconfig for one more run, so that they can be pruned"}
		r.notice(n)
	}
}

// access returns what the Secret or ConfigMap of a reference holds: as the run
// itself provides it to the node, which is nil for a record's, else as it is in
// the run's own cluster; read as sluice itself, never impersonated (S4.40).
func (r *run) access(ctx context.Context, n *node, ref flux.ClusterRef) (map[string]string, bool, error) {
	key := variableKey{ref.Kind, ref.Namespace, ref.Name}
	if p, ok := r.provided[key]; ok && (p.final || n != nil && r.serves(n, key)) {
		vars, _ := data(p.object)
		return vars, true, nil
	}
	vars, _, found, err := r.live(ctx, key)
	return vars, found, err
}

// connectHomes connects to what references name, those side by side that are
// not connected yet, and returns an error for each that cannot be used.
func (r *run) connectHomes(ctx context.Context, refs []flux.ClusterRef,
	read func(flux.ClusterRef) (map[string]string, bool, error)) map[flux.ClusterRef]error {
	slices.SortFunc(refs, compareRefs)
	errs := map[flux.ClusterRef]error{}
	type attempt struct {
		ref    flux.ClusterRef
		sum    string
		remote cluster.Remote
		home   *home
		err    error
	}
	var fresh []*attempt
	bySum := map[string]*attempt{}
	sums := map[flux.ClusterRef]string{}
	for _, ref := range refs {
		if r.homes.at(ref) != nil {
			continue
		}
		data, found, err := read(ref)
		if err != nil {
			errs[ref] = &homeError{ref: ref, problem: unreadable, text: "cannot be looked up", err: err, hint: mayRead}
			continue
		}
		if !found {
			errs[ref] = &homeError{ref: ref, problem: notFound, text: fmt.Sprintf("names %s, which does not exist", ref.Object()),
				hint: "create it in the cluster that sluice runs against, in the namespace of the Kustomization, or correct the name"}
			continue
		}
		remote, err := r.remoteOf(ref, data)
		if err != nil {
			errs[ref] = err
			continue
		}
		sums[ref] = sumOf(ref, data)
		if known := r.homes.byContent[sums[ref]]; known != nil {
			r.homes.set(ref, known)
			continue
		}
		if bySum[sums[ref]] == nil {
			bySum[sums[ref]] = &attempt{ref: ref, sum: sums[ref], remote: remote}
			fresh = append(fresh, bySum[sums[ref]])
		}
	}
	var tries []func() error
	for _, a := range fresh {
		tries = append(tries, func() error {
			made, err := cluster.ConnectRemote(ctx, a.remote)
			if err != nil {
				return unreachable(a.ref, err)
			}
			a.home = &home{Cluster: made, place: a.ref}
			return nil
		})
	}
	for i, err := range inParallel(connectors, tries) {
		fresh[i].err = err
	}
	for _, a := range fresh {
		if a.err == nil {
			a.err = r.placed(ctx, a.home)
		}
		if a.err == nil {
			r.homes.byContent[a.sum] = a.home
		}
	}
	for _, ref := range refs {
		a := bySum[sums[ref]]
		switch {
		case a == nil:
		case a.err != nil:
			errs[ref] = a.err
		default:
			r.homes.set(ref, a.home)
		}
	}
	return errs
}

// connectors is how many clusters are connected to at once.
const connectors = 8

// placed finds out whether a new connection leads to a cluster that the run
// knows already: two names for one cluster must not make two of what is there.
func (r *run) placed(ctx context.Context, fresh *home) error {
	known := slices.SortedFunc(maps.Values(r.homes.byContent), func(a, b *home) int { return compareRefs(a.place, b.place) })
	for _, other := range append([]*home{r.homes.at(flux.ClusterRef{})}, known...) {
		same, err := cluster.Same(ctx, fresh.Cluster, other.Cluster)
		if err != nil {
			return unreachable(fresh.place, err)
		}
		if same {
			fresh.place = other.place
			fresh.ShareRequests(other.Cluster)
			return nil
		}
	}
	return nil
}

// unreachable is the failure of a connection.
func unreachable(ref flux.ClusterRef, err error) error {
	e := &homeError{ref: ref, text: fmt.Sprintf("the cluster of %s cannot be used", ref), err: err}
	if h, ok := as[hinter](err); ok {
		e.hint = h.Hint()
	}
	return e
}

// sumOf tells configurations apart.
func sumOf(ref flux.ClusterRef, data map[string]string) string {
	sum := sha256.New()
	if ref.Kind == "Secret" {
		_, content := kubeconfigIn(ref, data)
		fmt.Fprintf(sum, "%q", content)
	} else {
		// The account is one of the namespace.
		fmt.Fprintf(sum, "%q", ref.Namespace)
		for _, key := range slices.Sorted(maps.Keys(data)) {
			fmt.Fprintf(sum, "%q=%q", key, data[key])
		}
	}
	return string(sum.Sum(nil))
}

// settle connects a node that was built at its turn to its home.
func (r *run) settle(ctx context.Context, n *node) error {
	errs := r.connectHomes(ctx, []flux.ClusterRef{n.Cluster()}, func(ref flux.ClusterRef) (map[string]string, bool, error) {
		return r.access(ctx, n, ref)
	})
	return of(n, errs[n.Cluster()])
}

// of says whose objects an error of connectHomes keeps from their cluster.
func of(n *node, err error) error {
	if e, ok := as[*homeError](err); ok {
		e.node = n.ID
	}
	return err
}
