package plan

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluxcd/pkg/ssa"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/plan/proof"
)

var (
	proofFor  = flag.Duration("proof.for", 10*time.Second, "how long TestProvenUnchangedImpliesNoChange tries cases")
	proofSeed = flag.Uint64("proof.seed", 1, "the first case that it tries; each case is told by a number")
	proofCase = flag.Bool("proof.one", false, "try only the case -proof.seed")
)

// leastCases are tried however long it takes.
const leastCases = 60

// Proven unchanged must imply that the server's dry run changes nothing. Each
// case applies an object of some kind, changed at random, lets others change it
// in the cluster, and then compares what is proven of several manifests with
// what the server says.
//
// A case that fails says how to repeat it. It depends on its number alone, as
// far as controllers and the server do.
func TestProvenUnchangedImpliesNoChange(t *testing.T) {
	p := newProver(t)
	deadline := time.Now().Add(*proofFor)
	var next atomic.Uint64
	next.Store(*proofSeed)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for !t.Failed() {
				n := next.Add(1) - 1
				if tried := n - *proofSeed; tried >= leastCases && !time.Now().Before(deadline) || *proofCase && tried > 0 {
					return
				}
				p.try(n)
			}
		})
	}
	workers.Wait()
	p.report()
	if !*proofCase && (p.total.literal == 0 || p.total.schema == 0) {
		t.Error("nothing was proven at all")
	}
}

// tally counts what was found out about manifests.
type tally struct {
	// asked are all; same those that the dry run leaves as they are. literal
	// were proven without a schema, and schema with one what those left open.
	// owners are those of both where the dry run changes nothing but who owns
	// what. The library does not apply such a manifest either. It happens where
	// another owns the same field in another spelling, which is then ours
	// alone, and where our last apply has set a field to {} that is merged and
	// now gets what is there by others: the entry shows both in the same way.
	asked, same, literal, schema, owners int
}

func (a *tally) add(b tally) {
	a.asked += b.asked
	a.same += b.same
	a.literal += b.literal
	a.schema += b.schema
	a.owners += b.owners
}

// prover tries cases. It is safe for concurrent use.
type prover struct {
	*bench
	suffix string
	kinds  []string
	group  string
	types  map[schema.GroupVersion]proof.Types

	mu     sync.Mutex
	total  tally
	byKind map[string]tally
	cases  int
	// doubts are applied manifests that nobody disturbed and that were not
	// proven all the same.
	doubts map[string]int
}

func newProver(t *testing.T) *prover {
	b := connect(t)
	p := &prover{bench: b, suffix: b.namespace[len(b.namespace)-5:], byKind: map[string]tally{}, doubts: map[string]int{}, types: map[schema.GroupVersion]proof.Types{}}
	p.group = p.suffix + ".example.com"
	definitions := b.node("definitions", strings.ReplaceAll(read(t, "testdata/definitions.yaml"), "GROUP", p.group))
	t.Cleanup(func() { b.removeClusterScoped(definitions.Objects) })
	if _, err := apply.Apply(t.Context(), b.admin(), definitions.Objects, apply.Options{StageWait: b.established}); err != nil {
		t.Fatal(err)
	}
	kinds := map[schema.GroupVersion][]string{}
	for _, text := range strings.Split(read(t, "testdata/kinds.yaml"), "\n---\n") {
		p.kinds = append(p.kinds, text)
		for _, o := range p.parse(text, "x") {
			gvk := o.GroupVersionKind()
			if gv := gvk.GroupVersion(); !slices.Contains(kinds[gv], gvk.Kind) {
				kinds[gv] = append(kinds[gv], gvk.Kind)
			}
		}
	}
	for gv, kinds := range kinds {
		p.types[gv] = b.types(gv, kinds...)
	}
	return p
}

func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (p *prover) parse(text, name string) []flux.Object {
	return parse(p.t, p.namespace, strings.NewReplacer("NAME", name, "NS", p.namespace, "GROUP", p.group).Replace(text))
}

// manifest makes what sluice would apply; nil if it cannot be.
func (p *prover) manifest(o flux.Object) *unstructured.Unstructured {
	prepared, _, err := prepare(&flux.Kustomization{ID: flux.ID{Namespace: p.namespace, Name: "proof"}}, []flux.Object{o.DeepCopy()})
	if err != nil {
		return nil
	}
	return prepared[0].Unstructured
}

// rare are kinds of which each new object costs the server much.
var rare = []string{"CustomResourceDefinition", "APIService", "Namespace"}

// try runs a case.
func (p *prover) try(n uint64) {
	r := rand.New(rand.NewPCG(n, 7))
	var base flux.Object
	for {
		base = p.parse(p.kinds[r.IntN(len(p.kinds))], fmt.Sprintf("c%s%d", p.suffix, n))[0]
		if !slices.Contains(rare, base.GetKind()) || r.IntN(10) == 0 {
			break
		}
	}
	applied := p.create(r, base)
	if applied == nil {
		return
	}
	defer func() {
		err := p.admin().Delete(context.Background(), applied.DeepCopy(), client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil {
			p.t.Errorf("delete %s: %v", flux.RefOf(applied), err)
		}
	}()
	edits := []int{0, 0, 1, 2, 3}[r.IntN(5)]
	var done []string
	for range edits {
		done = append(done, p.edit(r, applied))
	}
	var sum tally
	for variant := range 6 {
		raw := base.DeepCopy()
		raw.Unstructured = applied.DeepCopy()
		if variant >= 2 {
			for range 1 + r.IntN(2) {
				vary(r, raw.Object)
			}
		}
		desired := p.manifest(raw)
		if desired == nil {
			continue
		}
		sum.add(p.check(n, desired, variant < 2 && edits == 0, done))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cases++
	p.total.add(sum)
	gvk := applied.GroupVersionKind()
	name := gvk.Kind + "." + strings.ReplaceAll(gvk.GroupVersion().String(), p.group, "example.com")
	k := p.byKind[name]
	k.add(sum)
	p.byKind[name] = k
}

// create applies the manifest of a case, changed at random if the server takes
// it so.
func (p *prover) create(r *rand.Rand, base flux.Object) *unstructured.Unstructured {
	for attempt := range 2 {
		raw := base.DeepCopy()
		if attempt == 0 {
			for range r.IntN(3) {
				vary(r, raw.Object)
			}
		}
		desired := p.manifest(raw)
		if desired == nil {
			continue
		}
		err := p.admin().Patch(p.t.Context(), desired.DeepCopy(), serverSideApply, client.ForceOwnership, client.FieldOwner(flux.FieldManager))
		if err == nil {
			return desired
		}
		if attempt == 1 && !apierrors.IsForbidden(err) { // another case's quota
			p.t.Errorf("%s: %v", base.Ref(), err)
		}
	}
	return nil
}

// otherVersions are those in which somebody else may write a kind.
var otherVersions = map[string]string{"autoscaling/v1": "autoscaling/v2", "autoscaling/v2": "autoscaling/v1"}

// edit changes the live object as others do, and says how. What the server does
// not accept is no edit.
func (p *prover) edit(r *rand.Rand, applied *unstructured.Unstructured) string {
	ctx, c := p.t.Context(), p.admin()
	manager := []string{"somebody", "kubectl-edit", "kubectl-client-side-apply", "controller", flux.FieldManager}[r.IntN(5)]
	owner := client.FieldOwner(manager)
	live := p.live(flux.Object{Unstructured: applied})
	if live == nil {
		return "gone"
	}
	what, err := "nothing", error(nil)
	switch r.IntN(9) {
	case 0, 1:
		what = "update by " + manager
		for range 1 + r.IntN(3) {
			mutate(r, live.Object)
		}
		err = c.Update(ctx, live, owner)
	case 2:
		what = "apply of the same by another"
		err = c.Patch(ctx, applied.DeepCopy(), serverSideApply, client.ForceOwnership, client.FieldOwner("another"))
	case 3:
		what = "apply of something by another"
		other := applied.DeepCopy()
		for range 1 + r.IntN(4) {
			vary(r, other.Object)
		}
		err = c.Patch(ctx, other, serverSideApply, client.ForceOwnership, client.FieldOwner("another"))
	case 4:
		what = "another apply of ours"
		other := applied.DeepCopy()
		vary(r, other.Object)
		err = c.Patch(ctx, other, serverSideApply, client.ForceOwnership, client.FieldOwner(flux.FieldManager))
	case 5:
		what = "removal by " + manager
		if path := somePath(r, applied.Object); len(path) > 0 {
			err = c.Patch(ctx, live, client.RawPatch(types.MergePatchType, mergePatch(path, nil)), owner)
		}
	case 6:
		what = "status"
		status := map[string]any{"note": "x", "size": 1, "observedGeneration": r.IntN(9), "replicas": r.IntN(3)}
		err = c.Status().Patch(ctx, live, client.RawPatch(types.MergePatchType, mergePatch([]string{"status"}, status)), owner)
	case 7:
		what = "scale"
		err = c.SubResource("scale").Patch(ctx, live, client.RawPatch(types.MergePatchType, mergePatch([]string{"spec"}, map[string]any{"replicas": r.IntN(2)})), owner)
	case 8:
		what = "update in another version by " + manager
		other := otherVersions[applied.GetAPIVersion()]
		if applied.GetKind() == "Pair" {
			other = p.group + "/v2"
		}
		if other == "" {
			return "nothing"
		}
		live := live.DeepCopy()
		live.SetAPIVersion(other)
		if err = c.Get(ctx, client.ObjectKeyFromObject(live), live); err == nil {
			mutate(r, live.Object)
			err = c.Update(ctx, live, owner)
		}
	}
	if err != nil {
		return what + " (refused)"
	}
	return what
}

func mergePatch(path []string, value any) []byte {
	for _, name := range slices.Backward(path) {
		value = map[string]any{name: value}
	}
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // nothing but maps and texts
	}
	return text
}

// somePath returns the way to some field of a spec, through maps only.
func somePath(r *rand.Rand, object map[string]any) []string {
	spec, ok := object["spec"].(map[string]any)
	path := []string{"spec"}
	for ok && len(spec) > 0 {
		keys := slices.Sorted(maps.Keys(spec))
		k := keys[r.IntN(len(keys))]
		path = append(path, k)
		if spec, ok = spec[k].(map[string]any); r.IntN(3) == 0 {
			break
		}
	}
	if len(path) == 1 {
		return nil
	}
	return path
}

// check compares what is proven of a manifest with what the server says.
func (p *prover) check(n uint64, desired *unstructured.Unstructured, undisturbed bool, edits []string) tally {
	rules := proof.Rules{SSA: apply.Options{}.SSA(), Manager: flux.FieldManager}
	// A controller may write between the reading and the dry run.
	for range 5 {
		live := p.live(flux.Object{Unstructured: desired})
		if live == nil {
			return tally{}
		}
		literal := proof.Literal(desired, live, rules)
		bySchema := proof.BySchema(desired, live, rules, p.types[desired.GroupVersionKind().GroupVersion()])
		dry := rehearse.AskDryRun(p.t.Context(), p.admin(), desired.DeepCopy(), serverSideApply, client.DryRunAll, client.ForceOwnership, client.FieldOwner(flux.FieldManager))
		if dry.Err == nil && dry.Object.GetResourceVersion() != live.GetResourceVersion() {
			continue
		}
		why, owners := unlike(p, desired, live, dry)
		wrong := why != "" && !owners && (literal == proof.Unchanged || bySchema)
		if wrong || owners && bySchema && ours(live) != ours(dry.Object) {
			if again := p.live(flux.Object{Unstructured: desired}); again == nil || again.GetResourceVersion() != live.GetResourceVersion() {
				continue
			}
			p.t.Errorf("case %d: %s was proven unchanged (literally %v, by schema %v) after %q, but %s\nmanifest %s\nlive     %s\nmanaged  %s\nrepeat with: go test ./internal/plan -run TestProvenUnchanged -args -proof.one -proof.seed %d",
				n, flux.RefOf(desired), literal == proof.Unchanged, bySchema, edits, why, text(desired.Object), text(live.Object), ours(live), n)
		}
		out := tally{asked: 1}
		if owners && (literal == proof.Unchanged || bySchema) {
			out.owners = 1
		}
		if why == "" {
			out.same = 1
		}
		switch {
		case literal == proof.Unchanged:
			out.literal = 1
		case bySchema:
			out.schema = 1
		case why == "" && undisturbed:
			p.mu.Lock()
			if p.doubts[desired.GetKind()]++; p.doubts[desired.GetKind()] == 1 {
				p.t.Logf("case %d: not proven, though nobody changed it:\nmanifest %s\nlive     %s\nmanaged  %s", n, text(desired.Object), text(live.Object), ours(live))
			}
			p.mu.Unlock()
		}
		return out
	}
	return tally{}
}

// unlike says what an apply would change, empty if nothing, and whether that is
// only who owns the fields.
func unlike(p *prover, desired, live *unstructured.Unstructured, dry *rehearse.Answer) (why string, owners bool) {
	if dry.Err != nil {
		return "its dry run fails: " + dry.Err.Error(), false
	}
	// What counts in the end.
	rc := rehearse.New(p.admin(), &rehearse.Answer{Object: live}, dry)
	entry, err := ssa.NewResourceManager(rc, nil, apply.Owner()).Apply(p.t.Context(), desired.DeepCopy(), apply.Options{}.SSA())
	if err != nil {
		return "its apply fails: " + err.Error(), false
	}
	if entry.Action != ssa.UnchangedAction {
		return "its apply would be: " + entry.Action.String(), false
	}
	before, after := live.DeepCopy(), dry.Object.DeepCopy()
	ownersBefore, ownersAfter := byManager(before), byManager(after)
	before.SetManagedFields(nil)
	after.SetManagedFields(nil)
	if !reflect.DeepEqual(before.Object, after.Object) {
		return "its dry run changes it to " + text(after.Object), false
	}
	if ownersBefore != ownersAfter {
		return "its dry run changes who owns what to\n         " + ownersAfter, true
	}
	return "", false
}

// ours is the entry of our last apply.
func ours(o *unstructured.Unstructured) string {
	for _, e := range o.GetManagedFields() {
		if e.Manager == flux.FieldManager && e.Operation == metav1.ManagedFieldsOperationApply {
			return string(e.FieldsV1.GetRawBytes())
		}
	}
	return ""
}

// byManager writes managed fields out. The server sorts them by time.
func byManager(o *unstructured.Unstructured) string {
	var lines []string
	for _, e := range o.GetManagedFields() {
		lines = append(lines, fmt.Sprintf("%s %s %s %s %s", e.Manager, e.Operation, e.Subresource, e.APIVersion, e.FieldsV1.GetRawBytes()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n         ")
}

func text(object map[string]any) string {
	o := unstructured.Unstructured{Object: object}
	o = *o.DeepCopy()
	o.SetManagedFields(nil)
	out, err := json.Marshal(o.Object)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

func (p *prover) report() {
	p.t.Logf("%d cases from seed %d on; %d manifests compared, the dry run leaves %d as they are; proven were %d literally and %d more by schema; of %d of these only who owns what changes",
		p.cases, *proofSeed, p.total.asked, p.total.same, p.total.literal, p.total.schema, p.total.owners)
	for _, name := range slices.Sorted(maps.Keys(p.byKind)) {
		k := p.byKind[name]
		p.t.Logf("%-72s %6d compared, %6d same, %6d literally, %6d by schema", name, k.asked, k.same, k.literal, k.schema)
	}
	for _, kind := range slices.Sorted(maps.Keys(p.doubts)) {
		p.t.Logf("%s: %d not proven though nobody had changed them", kind, p.doubts[kind])
	}
}

func (b *bench) live(o flux.Object) *unstructured.Unstructured {
	b.t.Helper()
	answer := rehearse.Ask(b.t.Context(), b.admin(), o.Unstructured, client.ObjectKeyFromObject(o.Unstructured))
	if answer.Err != nil {
		b.t.Error(answer.Err)
	}
	return answer.Object
}

func (b *bench) removeClusterScoped(objects []flux.Object) {
	for _, o := range objects {
		if o.GetNamespace() == "" {
			if err := b.admin().Delete(context.Background(), o.DeepCopy().Unstructured); err != nil {
				b.t.Error(err)
			}
		}
	}
}

// vary changes one thing in a manifest: as mutate does, or only how something
// is written.
func vary(r *rand.Rand, object map[string]any) {
	if r.IntN(2) == 0 {
		mutate(r, object)
		return
	}
	var places []func()
	collect(object, "", func(get any, set func(any)) {
		for _, other := range spellings(get) {
			places = append(places, func() { set(other) })
		}
	})
	if len(places) > 0 {
		places[r.IntN(len(places))]()
	}
}

// collect calls found for all values below spec, data and the like.
func collect(v any, path string, found func(get any, set func(any))) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if path == "" && (k == "metadata" || k == "apiVersion" || k == "kind") {
				continue
			}
			found(v[k], func(to any) { v[k] = to })
			collect(v[k], path+"."+k, found)
		}
	case []any:
		for i := range v {
			found(v[i], func(to any) { v[i] = to })
			collect(v[i], path+"[]", found)
		}
	}
}

// spellings are other ways to write a value, some of which mean the same.
func spellings(v any) []any {
	switch v := v.(type) {
	case string:
		switch v {
		case "1000m":
			return []any{"1", int64(1), "1.0"}
		case "1", "100":
			return []any{v + "000m", v + ".0", int64(1)}
		case "1Gi":
			return []any{"1024Mi", "1073741824", int64(1073741824)}
		case "1024Mi":
			return []any{"1Gi", "1073741824"}
		case "":
			return []any{nil}
		}
	case int64:
		return []any{float64(v), fmt.Sprint(v)}
	case []any:
		out := []any{append(slices.Clone(v), v...), []any{}, nil}
		if len(v) > 1 {
			turned := slices.Clone(v)
			slices.Reverse(turned)
			out = append(out, turned, append(slices.Clone(v), v[0]))
		}
		return out
	case map[string]any:
		more := maps.Clone(v)
		more["unset"] = nil
		if len(v) == 0 {
			return []any{nil, more}
		}
		return []any{map[string]any{}, more}
	case nil:
		return []any{map[string]any{}, ""}
	}
	return nil
}

// mutate changes one thing somewhere below metadata.labels, annotations, spec
// or data.
func mutate(r *rand.Rand, object map[string]any) {
	var at any = object
	first := []string{"spec", "data", "metadata", "rules", "subjects", "imagePullSecrets", "webhooks", "parameters", "subsets", "ports", "roleRef"}
	key := first[r.IntN(len(first))]
	if key == "metadata" {
		meta := object["metadata"].(map[string]any)
		sub := []string{"labels", "annotations"}[r.IntN(2)]
		if m, ok := meta[sub].(map[string]any); ok {
			at = m
		}
		if reflect.DeepEqual(at, object) {
			return
		}
	} else {
		next, ok := object[key]
		if !ok {
			return
		}
		at = next
	}
	for range 8 {
		switch v := at.(type) {
		case map[string]any:
			keys := slices.Sorted(maps.Keys(v))
			if len(keys) == 0 || r.IntN(6) == 0 {
				v[fmt.Sprint("added", r.IntN(3))] = []any{"x", int64(1), map[string]any{}, nil}[r.IntN(4)]
				return
			}
			k := keys[r.IntN(len(keys))]
			if strings.HasPrefix(k, flux.Group) {
				return
			}
			if r.IntN(5) == 0 {
				delete(v, k)
				return
			}
			switch sub := v[k].(type) {
			case map[string]any, []any:
				at = sub
			default:
				v[k] = scalar(r, sub)
				return
			}
		case []any:
			if len(v) == 0 {
				return
			}
			i := r.IntN(len(v))
			if r.IntN(4) == 0 {
				j := r.IntN(len(v))
				v[i], v[j] = v[j], v[i]
				return
			}
			switch sub := v[i].(type) {
			case map[string]any, []any:
				at = sub
			default:
				v[i] = scalar(r, sub)
				return
			}
		default:
			return
		}
	}
}

func scalar(r *rand.Rand, old any) any {
	switch old := old.(type) {
	case string:
		return []any{old + "x", "1000m", "1", "", "0.1", old}[r.IntN(6)]
	case int64:
		return []any{old + 1, int64(0), old}[r.IntN(3)]
	case bool:
		return !old
	}
	return []any{nil, map[string]any{}, "x"}[r.IntN(3)]
}
