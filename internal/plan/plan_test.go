package plan

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/ssa/jsondiff"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

// configMaps are n of them.
func configMaps(n int, value string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%02d}\ndata: {a: %q}\n", i, value)
	}
	return b.String()
}

const workload = `
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers: [{name: init, image: "registry.example.com/init:1"}]
      containers:
      - {name: app, image: "registry.example.com/web:1"}
      - {name: side, image: "registry.example.com/side:1"}
`

func summary(p *Plan) map[string]Action {
	out := map[string]Action{}
	for _, c := range p.Changes {
		out[c.Object.GetKind()+"/"+c.Object.GetName()] = c.Action
	}
	return out
}

func find(t *testing.T, p *Plan, name string) Change {
	t.Helper()
	for _, c := range p.Changes {
		if c.Object.GetKind()+"/"+c.Object.GetName() == name {
			return c
		}
	}
	t.Fatalf("no %s in the plan", name)
	return Change{}
}

// A new object costs one dry run and one write, a changed one too, an
// unchanged one nothing; a kind costs one LIST.
func TestRequestsOfPlanAndApply(t *testing.T) {
	b := connect(t)
	n := b.node("apps", configMaps(6, "1"))
	p := b.plan(n)
	if want := map[Action]int{Create: 6}; !reflect.DeepEqual(p.Count(), want) {
		t.Errorf("first: %v, want %v", p.Count(), want)
	}
	b.expect("first plan", 0, 1, 6, 0)
	b.apply(p, n, apply.Options{})
	b.expect("first apply", 0, 0, 0, 6)

	p = b.plan(n)
	if want := map[Action]int{Unchanged: 6}; !reflect.DeepEqual(p.Count(), want) {
		t.Errorf("second: %v, want %v", p.Count(), want)
	}
	b.expect("second plan", 0, 1, 0, 0)
	b.apply(p, n, apply.Options{})
	b.expect("second apply", 0, 0, 0, 0)

	n = b.node("apps", configMaps(5, "1")+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c05}\ndata: {a: changed}\n")
	p = b.plan(n)
	if want := map[Action]int{Unchanged: 5, Configure: 1}; !reflect.DeepEqual(p.Count(), want) {
		t.Errorf("third: %v, want %v", p.Count(), want)
	}
	b.expect("third plan", 0, 1, 1, 0)
	results := b.apply(p, n, apply.Options{})
	b.expect("third apply", 0, 0, 0, 1)
	if results[5].Action != apply.Configured {
		t.Errorf("result %+v", results[5])
	}

	// A plan answers once: the next attempt asks the server.
	again := b.apply(p, n, apply.Options{})
	if b.gets != 6 || again[5].Action != apply.Unchanged {
		t.Errorf("second attempt with the same plan: %d gets, %s", b.gets, again[5].Action)
	}
}

// An object that is not as it was planned is not answered from the plan.
func TestPlanAnswersOnlyForWhatWasPlanned(t *testing.T) {
	b := connect(t)
	p := b.plan(b.node("apps", configMaps(1, "1")))
	b.reset()
	other := b.node("apps", configMaps(1, "2"))
	b.apply(p, other, apply.Options{})
	if b.dryRuns != 1 {
		t.Errorf("%d dry runs, want 1", b.dryRuns)
	}
	data, _, _ := unstructured.NestedString(b.live(other.Objects[0]).Object, "data", "a")
	if data != "2" {
		t.Errorf("data.a is %q", data)
	}
}

// What changes is told by field, images by container.
func TestPathsAndImages(t *testing.T) {
	b := connect(t)
	n := b.node("apps", workload)
	p := b.plan(n)
	if got, want := find(t, p, "Deployment/web").Images, []Image{
		{Container: "init", New: "registry.example.com/init:1"},
		{Container: "app", New: "registry.example.com/web:1"},
		{Container: "side", New: "registry.example.com/side:1"}}; !slices.Equal(got, want) {
		t.Errorf("images of a new object %v, want %v", got, want)
	}
	b.apply(p, n, apply.Options{})
	text := strings.NewReplacer("web:1", "web:2", "replicas: 1", "replicas: 2", "{name: web}", "{name: web, labels: {example.com/a: b}}").Replace(workload)
	c := find(t, b.plan(b.node("apps", text)), "Deployment/web")
	if want := []string{"metadata.labels[example.com/a]", "spec.replicas", "spec.template.spec.containers[app].image"}; c.Action != Configure || !slices.Equal(c.Paths, want) {
		t.Errorf("%s of %v, want %v", c.Action, c.Paths, want)
	}
	if want := []Image{{Container: "app", Old: "registry.example.com/web:1", New: "registry.example.com/web:2"}}; !slices.Equal(c.Images, want) {
		t.Errorf("images %v, want %v", c.Images, want)
	}
	if c.Live == nil || c.Merged == nil {
		t.Error("the two states are not there to be shown")
	}
}

// Markers, force, and what others own, as the apply sees them (S4.24 to S4.28,
// S4.33): plan and apply agree.
func TestPlanAgreesWithApply(t *testing.T) {
	b := connect(t)
	before := configMaps(1, "1") + strings.ReplaceAll(configMaps(1, "1"), "c00", "marked") +
		strings.ReplaceAll(configMaps(1, "1"), "c00", "taken") + workload + `
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: app, image: "registry.example.com/app:1"}]}}}
`
	first := b.node("apps", before)
	b.apply(b.plan(first), first, apply.Options{})
	edit := func(name, value string, annotations map[string]string) {
		live := b.live(flux.Object{Unstructured: parse(t, b.namespace, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+"}")[0].Unstructured})
		if err := unstructured.SetNestedField(live.Object, value, "data", "b"); err != nil {
			t.Fatal(err)
		}
		live.SetAnnotations(annotations)
		if err := b.admin().Update(t.Context(), live, client.FieldOwner("kubectl-edit")); err != nil {
			t.Fatal(err)
		}
	}
	edit("marked", "x", map[string]string{"kustomize.toolkit.fluxcd.io/reconcile": "disabled"})
	edit("taken", "x", nil)

	o := apply.Options{Force: true, Ignore: apply.IgnoreRules(ignore("/spec/replicas"))}
	after := b.nodeWith("apps", strings.NewReplacer("app:1", "app:2", "replicas: 1", "replicas: 3").Replace(before), o)
	p := b.plan(after)
	want := map[string]Action{"ConfigMap/c00": Unchanged, "ConfigMap/marked": Skipped, "ConfigMap/taken": Configure, "Deployment/web": Unchanged, "Job/migrate": Recreate}
	if got := summary(p); !reflect.DeepEqual(got, want) {
		t.Errorf("plan %v, want %v", got, want)
	}
	if c := find(t, p, "ConfigMap/marked"); c.Reason != "the object in the cluster has kustomize.toolkit.fluxcd.io/reconcile: disabled" {
		t.Errorf("reason %q", c.Reason)
	}
	if c := find(t, p, "ConfigMap/taken"); len(c.Paths) != 0 || c.Reason == "" {
		t.Errorf("%+v", c)
	}
	if c := find(t, p, "Job/migrate"); !slices.Equal(c.Paths, []string{"spec.template.spec.containers[app].image"}) || len(c.Images) != 1 {
		t.Errorf("paths %v, images %v", c.Paths, c.Images)
	}
	same := map[Action]apply.Action{Unchanged: apply.Unchanged, Skipped: apply.Skipped, Configure: apply.Configured, Recreate: apply.Recreated}
	for _, r := range b.apply(p, after, o) {
		if planned := want[r.Object.GetKind()+"/"+r.Object.GetName()]; r.Action != same[planned] {
			t.Errorf("%s: planned %s, done %s", r.Ref, planned, r.Action)
		}
	}
	if now := b.plan(after).Count(); now[Configure]+now[Create]+now[Recreate] != 0 {
		t.Errorf("after the apply there is still something to do: %v", now)
	}
}

// What is in a namespace or of a kind that comes with the run is judged as far as
// that can be done, and not asked about in vain.
func TestComesWithTheRun(t *testing.T) {
	b := connect(t)
	group := b.namespace + ".example.com"
	text := `
apiVersion: v1
kind: Namespace
metadata: {name: ` + b.namespace + `-inner, namespace: ""}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.` + group + `, namespace: ""}
spec:
  group: ` + group + `
  scope: Namespaced
  names: {kind: Gadget, listKind: GadgetList, plural: gadgets, singular: gadget}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}}]
`
	definitions := b.node("definitions", text)
	gadget := "apiVersion: " + group + "/v1\nkind: Gadget\nmetadata: {name: g}\nspec: {size: 1}\n"
	objects := b.node("objects", strings.ReplaceAll(configMaps(3, "1"), "{name:", "{namespace: "+b.namespace+"-inner, name:")+"---\n"+gadget)
	objects.After = []flux.ID{definitions.ID}
	p := b.plan(definitions, objects)
	if want := map[Action]int{Create: 6}; !reflect.DeepEqual(p.Count(), want) {
		t.Errorf("%v, want %v", p.Count(), want)
	}
	if c := find(t, p, "ConfigMap/c00"); c.Reason != "its namespace "+b.namespace+"-inner comes with this run" {
		t.Errorf("reason %q", c.Reason)
	}
	if c := find(t, p, "Gadget/g"); c.Reason != "the definition of its kind, gadgets."+group+", comes with this run" {
		t.Errorf("reason %q", c.Reason)
	}
	// One more read: whether there is the namespace of the custom resource.
	b.expect("plan", 3, 0, 2, 0)
	b.applyStaged(p, definitions)
	b.expect("definitions", 0, 0, 0, 2)
	t.Cleanup(func() { b.removeClusterScoped(definitions.Objects) })
	b.apply(p, objects, apply.Options{})
	// Nothing is read that cannot be there; another attempt, for a kind that
	// not all of the server knows yet, costs a read and a dry run.
	if b.gets != b.dryRuns-4 || b.applies != 4 {
		t.Errorf("objects: %d gets, %d dry runs, %d writes", b.gets, b.dryRuns, b.applies)
	}

	// A definition that changes: its objects may be good at their turn.
	definitions = b.node("definitions", strings.Replace(text, "size:", "width: {type: integer}, size:", 1))
	objects = b.node("objects", strings.Replace(gadget, "size: 1", "width: 1", 1))
	p = b.plan(definitions, objects)
	if c := find(t, p, "Gadget/g"); c.Action != Later || c.Reason != "the definition of its kind, gadgets."+group+", changes with this run" {
		t.Errorf("%s because %q", c.Action, c.Reason)
	}
}

// A kind or namespace that nobody declares is an error, unless something
// before it may make it (S4.16, S4.48).
func TestUnknownKindAndNamespace(t *testing.T) {
	b := connect(t)
	text := `
apiVersion: nobody.example.com/v1
kind: Gadget
metadata: {name: g}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: nobody-made-this}
`
	alone := b.node("apps", text)
	p, err := Make(t.Context(), b.options(), []Node{alone})
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 2 || errs.Class() != Invalid || len(p.Changes) != 0 {
		t.Fatalf("error %v", err)
	}
	prefix := b.namespace + "/apps: "
	if want := prefix + "apps/g.yaml: Gadget/" + b.namespace + `/g dry-run failed: no matches for kind "Gadget" in version "nobody.example.com/v1"`; errs[0].Error() != want {
		t.Errorf("%q, want %q", errs[0], want)
	}
	if want := prefix + `apps/c.yaml: ConfigMap/nobody-made-this/c not found: namespaces "nobody-made-this" not found`; errs[1].Error() != want {
		t.Errorf("%q, want %q", errs[1], want)
	}

	operator := b.node("operator", workload)
	settings := b.node("settings", configMaps(1, "1"))
	settings.After = []flux.ID{operator.ID}
	alone.After = []flux.ID{settings.ID}
	p = b.plan(operator, settings, alone)
	if c := find(t, p, "Gadget/g"); c.Action != Later || c.Reason != "the server does not know its kind yet; something in "+operator.ID.String()+" may bring it" {
		t.Errorf("%s because %q", c.Action, c.Reason)
	}
	if c := find(t, p, "ConfigMap/c"); c.Action != Later {
		t.Errorf("%s because %q", c.Action, c.Reason)
	}
	// The caller makes a namespace itself.
	o := b.options()
	o.Namespaces = []string{"nobody-made-this"}
	p, err = Make(t.Context(), o, []Node{b.node("apps", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: nobody-made-this}")})
	if c := find(t, p, "ConfigMap/c"); err != nil || c.Action != Create || c.Reason != "its namespace nobody-made-this comes with this run" {
		t.Errorf("%s because %q, %v", c.Action, c.Reason, err)
	}
}

// All failures are told, in order, with the text of S4.48.
func TestS4_48AllFailures(t *testing.T) {
	b := connect(t)
	one := b.node("one", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999}]}\n---\n"+configMaps(1, "1"))
	two := b.node("two", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: \"\"}\n---\n"+
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: x, image: i}]}}}")
	p, err := Make(t.Context(), b.options(), []Node{one, two})
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 3 || errs.Class() != Invalid {
		t.Fatalf("error %v", err)
	}
	for i, want := range []string{
		b.namespace + "/one: apps/s.yaml: Service/" + b.namespace + "/s dry-run failed (Invalid): ",
		b.namespace + "/two: apps/c.yaml: ConfigMap/c namespace not specified",
		b.namespace + "/two: apps/d.yaml: Deployment/" + b.namespace + "/d dry-run failed (Invalid): ",
	} {
		if !strings.HasPrefix(errs[i].Error(), want) {
			t.Errorf("error %d is %q, want %q", i, errs[i], want)
		}
	}
	if len(p.Changes) != 1 || b.applies != 0 {
		t.Errorf("changes %v, %d writes", p.Changes, b.applies)
	}
}

// When the server cannot be asked, the plan ends at once.
func TestServerFails(t *testing.T) {
	b := connect(t)
	o := b.options()
	o.Concurrency = 1
	asked := 0
	o.Client = func(n *Node) (client.WithWatch, error) {
		c, err := b.client(n.User)
		if err != nil {
			return nil, err
		}
		fail := func() error {
			asked++
			return apierrors.NewGenericServerResponse(http.StatusServiceUnavailable, "get", schema.GroupResource{Resource: "configmaps"}, "", "down", 0, true)
		}
		return interceptor.NewClient(c, interceptor.Funcs{
			Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
				return fail()
			},
			List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
				return fail()
			},
			Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
				return fail()
			},
		}), nil
	}
	_, err := Make(t.Context(), o, []Node{b.node("apps", configMaps(20, "1"))})
	var errs Errors
	if !errors.As(err, &errs) || errs.Class() != Failed || len(errs) != 1 {
		t.Errorf("error %v", err)
	}
	if asked > 3 {
		t.Errorf("asked %d times", asked)
	}
}

// S4.40: an impersonated account is asked as itself; rights that come with the
// run excuse it, missing ones do not.
func TestS4_40Impersonation(t *testing.T) {
	b := connect(t)
	user := cluster.ServiceAccountUser(b.namespace, "deployer")
	if want := "system:serviceaccount:" + b.namespace + ":deployer"; user != want {
		t.Fatalf("user %q, want %q", user, want)
	}
	rights := b.node("rights", `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: deployer}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list, create, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: deployer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: deployer}
subjects: [{kind: User, name: "`+user+`"}]
`)
	tenant := b.node("tenant", configMaps(5, "1"))
	tenant.User = user
	_, err := Make(t.Context(), b.options(), []Node{tenant})
	var errs Errors
	if !errors.As(err, &errs) || errs.Class() != Forbidden || len(errs) != 5 {
		t.Fatalf("error %v", err)
	}
	p := b.plan(rights, tenant)
	if c := find(t, p, "ConfigMap/c00"); c.Action != Later || c.Reason != fmt.Sprintf("the rights of %q change with this run", user) {
		t.Errorf("%s because %q", c.Action, c.Reason)
	}
	b.apply(p, rights, apply.Options{})
	b.apply(p, tenant, apply.Options{}) // waits until the authorizer knows
	b.reset()
	p = b.plan(tenant)
	if want := map[Action]int{Unchanged: 5}; !reflect.DeepEqual(p.Count(), want) {
		t.Errorf("%v, want %v", p.Count(), want)
	}
	b.expect("one list in the namespace", 0, 1, 0, 0)
}

// The end of the context is its cause, and nothing is planned.
func TestCancelled(t *testing.T) {
	b := connect(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("told to stop")
	cancel(stop)
	if p, err := Make(ctx, b.options(), []Node{b.node("apps", configMaps(2, "1"))}); !errors.Is(err, stop) || p != nil {
		t.Errorf("%v, %v", p, err)
	}
}

// S13.2, MigrateAPIVersion: an object whose managed fields are of another version
// than the manifest is changed, once; without the gate it is not.
func TestS13_2MigrateAPIVersion(t *testing.T) {
	b := connect(t)
	const text = `
apiVersion: autoscaling/VERSION
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: none}, maxReplicas: 3}
`
	old, now := strings.Replace(text, "VERSION", "v1", 1), strings.Replace(text, "VERSION", "v2", 1)
	first := b.node("apps", old)
	b.apply(b.plan(first), first, apply.Options{})
	if c := b.plan(b.node("apps", now)).Changes[0]; c.Action != Unchanged {
		t.Errorf("without the gate: %s (%s)", c.Action, c.Reason)
	}
	gate := apply.Options{MigrateAPIVersion: true}
	n := b.nodeWith("apps", now, gate)
	p := b.plan(n)
	if c := p.Changes[0]; c.Action != Configure || c.Reason != "its managed fields move to autoscaling/v2" || len(c.Paths) > 0 {
		t.Errorf("%s (%s), paths %q", c.Action, c.Reason, c.Paths)
	}
	if results := b.apply(p, n, gate); results[0].Action != apply.Configured {
		t.Errorf("applied: %s", results[0].Action)
	}
	live := rehearse.Ask(t.Context(), b.admin(), n.Objects[0].Unstructured, client.ObjectKeyFromObject(n.Objects[0].Unstructured))
	for _, e := range live.Object.GetManagedFields() {
		if e.APIVersion != "autoscaling/v2" {
			t.Errorf("%s still has fields of %s", e.Manager, e.APIVersion)
		}
	}
	// Whatever the controller writes later it may write in its own version.
	b.reset()
	if c := b.plan(n).Changes[0]; c.Action != Unchanged {
		t.Errorf("again: %s (%s)", c.Action, c.Reason)
	}
}

// S4.34: an ignored field that has left the manifest cannot keep its live value.
// That is told of the object, with a remedy, as what is wrong with the manifest.
func TestS4_34IgnoredFieldLeftOut(t *testing.T) {
	b := connect(t)
	const text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: \"1\"LEFT}\n"
	first := b.node("apps", strings.Replace(text, "LEFT", ", b: \"1\"", 1))
	b.apply(b.plan(first), first, apply.Options{})
	o := apply.Options{Ignore: []jsondiff.IgnoreRule{{Paths: []string{"/data/b"}, Selector: &jsondiff.Selector{}}}}
	n := b.nodeWith("apps", strings.NewReplacer("LEFT", "", `"1"`, `"2"`).Replace(text), o)
	want := "ConfigMap/" + b.namespace + "/c: replace operation does not apply: "
	_, err := Make(t.Context(), b.options(), []Node{n})
	var errs Errors
	if !errors.As(err, &errs) || errs.Class() != Invalid || !strings.Contains(err.Error(), want) || !strings.Contains(errs.Hint(), "spec.ignore") {
		t.Errorf("plan: error %v", err)
	}
	_, err = apply.Apply(t.Context(), b.admin(), n.Objects, o)
	var failed apply.Errors
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), want) || !strings.Contains(failed.Hint(), "spec.ignore") {
		t.Errorf("apply: error %v", err)
	}
}

// S4.33: of a change the ignored fields are not told.
func TestS4_33PathsLeaveOutWhatIsIgnored(t *testing.T) {
	b := connect(t)
	first := b.node("apps", workload)
	b.apply(b.plan(first), first, apply.Options{})
	o := apply.Options{Ignore: apply.IgnoreRules(ignore("/spec/replicas"))}
	c := find(t, b.plan(b.nodeWith("apps", strings.NewReplacer("web:1", "web:2", "replicas: 1", "replicas: 2").Replace(workload), o)), "Deployment/web")
	if want := []string{"spec.template.spec.containers[app].image"}; c.Action != Configure || !slices.Equal(c.Paths, want) {
		t.Errorf("%s of %v, want %v", c.Action, c.Paths, want)
	}
}
