package apply_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"golang.org/x/tools/txtar"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/compare"
)

// TestAsFlux plays scenarios twice on one cluster, in two namespaces: once
// with plan and apply, once with fluxcd/pkg/ssa driven as kustomize-controller
// drives it. After every run each object must be the same, value by value and
// owner by owner, and so must the actions and the errors. At the end the two
// change sides: what one has applied, the other finds as it should be.
//
// A scenario is a txtar archive of testdata. Its files are steps, in
// order; $NS is the namespace, which also makes names of cluster-scoped objects
// unique, and $CA a certificate. Objects of namespaced kinds are in $NS unless
// they say otherwise.
//
//	-- options --           what the spec and the flags say from here on
//	-- run --               the manifests; apply them
//	-- NAME create --       somebody else writes, as the field manager NAME
//	-- NAME update --       (replaces the object)
//	-- NAME apply --        (server-side, with force)
//	-- NAME merge --        (a merge patch; null removes)
//	-- NAME scale --        (a merge patch of the subresource scale)
//	-- NAME status --       (the same of the subresource status)
//	-- delete --            somebody deletes
//	-- served --            wait until the server serves these objects
//	-- await --             wait until the lines hold, as of want
//	-- want --              what holds now, one line each
//
// A line of want is one of
//
//	Kind/name created                   what the last run did
//	Kind/name .spec.replicas = 3        a value, in the notation of compare.Fields
//	Kind/name .spec.replicas absent
//	Kind/name .spec.replicas by a Apply, b Update
//	                                    its owners, in that of compare.Owners
//	Kind/name missing
//	error TEXT                          the last run failed, saying TEXT
func TestAsFlux(t *testing.T) {
	connect(t)
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, archive)
		})
	}
}

// settings are the options of a scenario.
type settings struct {
	// Spec are fields of the Kustomization.
	Spec kustomizev1.KustomizationSpec `json:"spec"`
	// Flags are those of the controller, and their namesakes here.
	CustomStageKinds  string   `json:"customStageKinds"`
	OverrideManagers  []string `json:"overrideManagers"`
	MigrateAPIVersion bool     `json:"migrateAPIVersion"`
}

// actor is one of the two that are compared.
type actor struct {
	namespace string
	// run applies, and returns what it did by object.
	run     func(ctx context.Context, text string, s settings) (map[string]string, error)
	actions map[string]string
	err     error
}

func play(t *testing.T, archive *txtar.Archive) {
	p := newPlayer(t)
	for _, file := range archive.Files {
		p.step(file.Name, string(file.Data))
		if t.Failed() {
			return
		}
	}
	if p.last == "" {
		t.Fatal("the scenario runs nothing")
	}
	if p.actors[0].err == nil {
		p.handOver()
	}
}

func newPlayer(t *testing.T) *player {
	t.Helper()
	k := kubetest.Shared(t)
	direct, err := client.NewWithWatch(k.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sluice := &actor{namespace: kubetest.Namespace(t, k)}
	sluice.run = func(ctx context.Context, text string, s settings) (map[string]string, error) {
		return runSluice(ctx, manifests(t, direct, sluice.namespace, text), s)
	}
	theirs := &actor{namespace: kubetest.Namespace(t, k)}
	theirs.run = func(ctx context.Context, text string, s settings) (map[string]string, error) {
		return runFlux(ctx, direct, manifests(t, direct, theirs.namespace, text), s)
	}
	p := &player{t: t, client: direct, actors: [2]*actor{sluice, theirs}, seen: map[string]map[string]*unstructured.Unstructured{}}
	t.Cleanup(p.clean)
	return p
}

type player struct {
	t        *testing.T
	client   client.WithWatch
	actors   [2]*actor
	settings settings
	last     string // the manifests of the last run
	// onlySuccess leaves out the comparison after runs that fail.
	onlySuccess bool
	// seen are the objects that were written, by namespace of the actor and by
	// name.
	seen map[string]map[string]*unstructured.Unstructured
}

func (p *player) step(name, text string) {
	p.t.Helper()
	switch name {
	case "options":
		p.settings = settings{}
		if err := yaml.UnmarshalStrict([]byte(text), &p.settings); err != nil {
			p.t.Fatalf("options: %v", err)
		}
	case "run":
		p.last = text
		p.run(text)
		if p.actors[0].err == nil || !p.onlySuccess {
			p.compare("the run")
		}
	case "served", "await":
		p.await(name, text)
	case "want":
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				for _, a := range p.actors {
					p.want(a, fill(a.namespace, line))
				}
			}
		}
	default:
		manager, verb, ok := strings.Cut(name, " ")
		if name == "delete" {
			verb, ok = name, true
		}
		if !ok {
			p.t.Fatalf("no step %q", name)
		}
		for _, a := range p.actors {
			for _, o := range manifests(p.t, p.client, a.namespace, text) {
				p.note(a, o)
				if err := foreign(p.t.Context(), p.client, o, manager, verb); err != nil {
					p.t.Fatalf("%s of %s: %v", name, flux.RefOf(o), err)
				}
			}
		}
	}
}

// foreign writes an object as somebody else.
func foreign(ctx context.Context, c client.Client, o *unstructured.Unstructured, manager, verb string) error {
	owner := client.FieldOwner(manager)
	body, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	switch verb {
	case "create":
		return c.Create(ctx, o, owner)
	case "update":
		return c.Update(ctx, o, owner)
	case "apply":
		return c.Patch(ctx, o, serverSideApply, owner, client.ForceOwnership)
	case "merge":
		return c.Patch(ctx, o, client.RawPatch(types.MergePatchType, body), owner)
	case "scale", "status":
		content := maps.Clone(o.Object)
		for _, identity := range []string{"apiVersion", "kind", "metadata"} {
			delete(content, identity) // a scale is of another kind
		}
		if body, err = json.Marshal(content); err != nil {
			return err
		}
		return c.SubResource(verb).Patch(ctx, o, client.RawPatch(types.MergePatchType, body), owner)
	case "delete":
		return c.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationForeground))
	}
	return fmt.Errorf("no such verb: %s", verb)
}

func (p *player) run(text string) {
	p.t.Helper()
	for _, a := range p.actors {
		p.settle(a)
		for _, o := range manifests(p.t, p.client, a.namespace, text) {
			p.note(a, o)
		}
		a.actions, a.err = a.run(p.t.Context(), text, p.settings)
	}
	ours, theirs := p.actors[0], p.actors[1]
	switch {
	case (ours.err == nil) != (theirs.err == nil):
		p.t.Errorf("sluice ends with %v, Flux with %v", ours.err, theirs.err)
	case ours.err != nil:
		// Flux tells one error, by chance (S4.19).
		if said := strings.ReplaceAll(theirs.err.Error(), theirs.namespace, ours.namespace); !strings.Contains(ours.err.Error(), said) {
			p.t.Errorf("sluice says %q, Flux %q", ours.err, said)
		}
	case !maps.Equal(unnamed(ours), unnamed(theirs)):
		p.t.Errorf("sluice does %v, Flux %v", unnamed(ours), unnamed(theirs))
	}
}

// settle waits until the controllers are done with what an actor has. Flux
// takes what one of them writes between its reading and its dry run for drift.
func (p *player) settle(a *actor) {
	p.t.Helper()
	for _, o := range p.seen[a.namespace] {
		if o.GroupVersionKind().Group == "apps" && p.live(o) != nil {
			await(p.t, p.client, flux.Object{Unstructured: o}, "settled", func(live *unstructured.Unstructured) bool {
				result, err := status.Compute(live)
				return err == nil && result.Status == status.CurrentStatus
			})
		}
	}
}

// unnamed are the actions by object without the namespace.
func unnamed(a *actor) map[string]string {
	out := map[string]string{}
	for subject, action := range a.actions {
		out[strings.ReplaceAll(subject, a.namespace, "$NS")] = action
	}
	return out
}

func (p *player) note(a *actor, o *unstructured.Unstructured) {
	if p.seen[a.namespace] == nil {
		p.seen[a.namespace] = map[string]*unstructured.Unstructured{}
	}
	ref := flux.RefOf(o)
	p.seen[a.namespace][strings.ReplaceAll(fmt.Sprintf("%s %s", ref.Group, ref), a.namespace, "$NS")] = o.DeepCopy()
}

// live reads an object as the server has it; nil if it does not.
func (p *player) live(o *unstructured.Unstructured) *unstructured.Unstructured {
	p.t.Helper()
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	err := p.client.Get(context.Background(), client.ObjectKeyFromObject(o), live)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		p.t.Errorf("%s: %v", flux.RefOf(o), err)
		return nil
	}
	return live
}

// compare holds every object of the two sides against its counterpart.
func (p *player) compare(after string) {
	p.t.Helper()
	ours, theirs := p.seen[p.actors[0].namespace], p.seen[p.actors[1].namespace]
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		lines, err := compare.Objects(p.live(ours[name]), p.live(theirs[name]), compare.Options{
			Names:    [2]string{p.actors[0].namespace, p.actors[1].namespace},
			Managers: compare.Controllers,
			Made: []string{".spec.clusterIP", ".spec.clusterIPs", ".spec.ports[0].nodePort", ".spec.ports[1].nodePort", ".spec.healthCheckNodePort",
				".metadata.annotations.autoscaling.alpha.kubernetes.io/conditions"},
		})
		if err != nil {
			p.t.Error(err)
		}
		if len(lines) > 0 {
			p.t.Errorf("after %s, %s (first sluice, second Flux):\n\t%s", after, name, strings.Join(lines, "\n\t"))
		}
	}
}

// handOver lets each run what the other has applied: it has to be unchanged,
// down to the version of each object.
func (p *player) handOver() {
	p.t.Helper()
	ours, theirs := p.actors[0], p.actors[1]
	// Whatever the scenario left drifted is put right first.
	p.run(p.last)
	before := p.versions()
	ours.run, theirs.run = func(ctx context.Context, text string, s settings) (map[string]string, error) {
		return runFlux(ctx, p.client, manifests(p.t, p.client, ours.namespace, text), s)
	}, func(ctx context.Context, text string, s settings) (map[string]string, error) {
		return runSluice(ctx, manifests(p.t, p.client, theirs.namespace, text), s)
	}
	p.run(p.last)
	for _, a := range p.actors {
		for subject, action := range a.actions {
			if action != "unchanged" && action != "skipped" {
				p.t.Errorf("after changing sides: %s %s", subject, action)
			}
		}
	}
	p.compare("changing sides")
	if after := p.versions(); !maps.Equal(before, after) {
		p.t.Errorf("changing sides wrote: %v, then %v", before, after)
	}
}

// versions are those of what controllers leave alone.
func (p *player) versions() map[string]string {
	out := map[string]string{}
	for _, a := range p.actors {
		for name, o := range p.seen[a.namespace] {
			switch o.GetKind() {
			case "ConfigMap", "Secret", "Role", "RoleBinding", "NetworkPolicy", "Ingress", "Service":
				if live := p.live(o); live != nil {
					out[a.namespace+" "+name] = live.GetResourceVersion()
				}
			}
		}
	}
	return out
}

func (p *player) want(a *actor, line string) {
	p.t.Helper()
	if text, ok := strings.CutPrefix(line, "error "); ok {
		if a.err == nil || !strings.Contains(a.err.Error(), text) {
			p.t.Errorf("the run ended with %v, want %q", a.err, text)
		}
		return
	}
	if a.err != nil {
		p.t.Fatalf("the run failed: %v", a.err)
	}
	subject, rest, _ := strings.Cut(line, " ")
	var object *unstructured.Unstructured
	for _, o := range p.seen[a.namespace] {
		if o.GetKind()+"/"+o.GetName() == subject {
			object = o
		}
	}
	if object == nil {
		p.t.Fatalf("want of an object that is in no step: %s", line)
	}
	live := p.live(object)
	if rest == "missing" {
		if live != nil {
			p.t.Errorf("%s exists", subject)
		}
		return
	}
	path, claim, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(path, ".") {
		action := ""
		for id, done := range a.actions {
			if id == flux.RefOf(object).String() || (live != nil && id == flux.RefOf(live).String()) {
				action = done
			}
		}
		if action != rest {
			p.t.Errorf("%s is %q, want %q", subject, action, rest)
		}
		return
	}
	if live == nil {
		p.t.Errorf("%s does not exist: %s", subject, line)
		return
	}
	value, there := compare.Fields(live)[path]
	switch {
	case claim == "absent":
		if there {
			p.t.Errorf("%s %s is %s, want it absent", subject, path, value)
		}
	case strings.HasPrefix(claim, "= "):
		if !says(value, claim[2:]) {
			p.t.Errorf("%s %s is %s, want %s", subject, path, value, claim[2:])
		}
	case strings.HasPrefix(claim, "by "):
		owners, err := compare.Owners(live)
		if err != nil {
			p.t.Error(err)
		}
		if got, want := strings.Join(owners[path], ", "), claim[3:]; got != want && (want != "nobody" || got != "") {
			p.t.Errorf("%s %s is owned by %q, want %q", subject, path, got, want)
		}
	default:
		p.t.Fatalf("not a line of want: %s", line)
	}
}

// says compares a value as compare.Fields has it with that of a line, in which a
// text needs no quotes.
func says(value, want string) bool { return value == want || value == `"`+want+`"` }

// await waits for what no event tells: that the server has taken in a
// definition.
func (p *player) await(name, text string) {
	p.t.Helper()
	reached := func(ctx context.Context) (bool, error) {
		for _, a := range p.actors {
			if name == "served" {
				for _, o := range manifests(p.t, p.client, a.namespace, text) {
					if err := p.client.Get(ctx, client.ObjectKeyFromObject(o), o); meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
						return false, nil
					} else if err != nil {
						return false, err
					}
					p.note(a, o)
				}
				continue
			}
			for line := range strings.Lines(text) {
				fields := strings.Fields(fill(a.namespace, line))
				for _, o := range p.seen[a.namespace] {
					if o.GetKind()+"/"+o.GetName() != fields[0] {
						continue
					}
					if live := p.live(o); live == nil || !says(compare.Fields(live)[fields[1]], fields[3]) {
						return false, nil
					}
				}
			}
		}
		return true, nil
	}
	if err := wait.PollUntilContextTimeout(p.t.Context(), 50*time.Millisecond, time.Minute, true, reached); err != nil {
		p.t.Fatalf("%s: %v", name, err)
	}
}

// clean deletes what is in no namespace of the test.
func (p *player) clean() {
	for _, a := range p.actors {
		for name, o := range p.seen[a.namespace] {
			if o.GetNamespace() == a.namespace {
				continue
			}
			if err := p.client.Delete(context.Background(), o); err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
				p.t.Errorf("clean up %s: %v", name, err)
			}
		}
	}
}
