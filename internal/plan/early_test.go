package plan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/retry"
)

// inner is a manifest of a namespace that does not exist, beside the test's.
func (b *bench) inner() (name, manifest string) {
	name = b.namespace + "-inner"
	return name, "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + ", namespace: \"\"}\n"
}

// in puts manifests into a namespace.
func in(namespace, text string) string {
	return strings.ReplaceAll(text, "metadata: {", "metadata: {namespace: "+namespace+", ")
}

// gadgets are a definition, of a group of the test's own, and an object of it.
func (b *bench) gadgets(spec string) (group, definition, gadget string) {
	group = b.namespace + ".example.com"
	return group, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.` + group + `, namespace: ""}
spec:
  group: ` + group + `
  scope: Namespaced
  names: {kind: Gadget, listKind: GadgetList, plural: gadgets, singular: gadget}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: ` + spec + `}}}}]
`, "apiVersion: " + group + "/v1\nkind: Gadget\nmetadata: {name: g}\n"
}

// refusals plans nodes of which some must be refused, and returns why.
func (b *bench) refusals(nodes ...Node) (*Plan, []string) {
	b.t.Helper()
	p, err := Make(b.t.Context(), b.options(), nodes)
	var errs Errors
	if !errors.As(err, &errs) {
		b.t.Fatalf("error %v, plan %v", err, summary(p))
	}
	var texts []string
	for _, e := range errs {
		if e.Class != Invalid {
			b.t.Errorf("%s is %s", e, e.Class)
		}
		texts = append(texts, strings.NewReplacer(b.namespace, "NS").Replace(e.Error()))
	}
	return p, texts
}

// Faults of many kinds, in a namespace and of a kind that both come with the run,
// are all found before anything is written, and told as of the namespace that
// they are in.
func TestFaultsOfWhatComesWithTheRun(t *testing.T) {
	b := connect(t)
	name, namespace := b.inner()
	group, definition, gadget := b.gadgets(`{type: object, required: [size], properties: {size: {type: integer, maximum: 5}, tier: {type: string, enum: [gold]}}, x-kubernetes-validations: [{rule: "self.size != 3", message: three is taken}]}`)
	infra := b.node("infra", namespace+"---\n"+definition)
	apps := b.node("apps", in(name, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: x, image: i}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {ports: [{port: 99999}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {"no key": x}
---
apiVersion: v1
kind: Secret
metadata: {name: tls}
type: kubernetes.io/tls
data: {tls.crt: aGFsbG8=}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: fine}
---
apiVersion: v1
kind: Service
metadata: {name: fine}
spec: {ports: [{port: 80}]}
`))
	text := func(name, spec string) string {
		return strings.Replace(gadget, "name: g", "name: "+name, 1) + "spec: " + spec + "\n---\n"
	}
	gadgets := b.node("gadgets", text("high", "{size: 7, tier: tin}")+text("none", "{}")+text("odd", "{size: 1, colour: red}")+text("three", "{size: 3}")+text("good", "{size: 1}")+
		in(name, text("there", "{size: 1}"))+in("nobody-made-this", text("nowhere", "{size: 1}"))+strings.Replace(text("old", "{size: 1}"), "/v1", "/v0", 1))
	gadgets.After = []flux.ID{infra.ID}
	b.reset()
	p, got := b.refusals(infra, apps, gadgets)
	misfit := "does not fit its definition gadgets.NS.example.com, which comes with this commit: "
	want := []string{
		"NS/apps: apps/web.yaml: Deployment/NS-inner/web dry-run failed (Invalid): Deployment.apps \"web\" is invalid: spec.template.metadata.labels: ",
		"NS/apps: apps/s.yaml: Service/NS-inner/s dry-run failed (Invalid): Service \"s\" is invalid: [spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535",
		"NS/apps: apps/c.yaml: ConfigMap/NS-inner/c dry-run failed (Invalid): ConfigMap \"c\" is invalid: data[no key]: ",
		"NS/apps: apps/tls.yaml: Secret/NS-inner/tls dry-run failed (Invalid): Secret \"tls\" is invalid: data[tls.key]: Required value",
		"NS/gadgets: apps/high.yaml: Gadget/NS/high " + misfit + "spec.size: Invalid value: 7: spec.size in body should be less than or equal to 5; spec.tier: Unsupported value: ",
		"NS/gadgets: apps/none.yaml: Gadget/NS/none " + misfit + "spec.size: Required value",
		"NS/gadgets: apps/odd.yaml: Gadget/NS/odd " + misfit + "spec.colour: field not declared in schema",
		"NS/gadgets: apps/three.yaml: Gadget/NS/three " + misfit + "spec: Invalid value: three is taken",
		"NS/gadgets: apps/nowhere.yaml: Gadget/nobody-made-this/nowhere not found: namespaces \"nobody-made-this\" not found",
		"NS/gadgets: apps/old.yaml: Gadget/NS/old " + misfit + "apiVersion: NS.example.com/v0 is not served",
	}
	if len(got) != len(want) {
		t.Errorf("%d refusals, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("refusal %d is %q, want %q", i, got[i], want[i])
		}
	}
	for _, what := range []string{"ConfigMap/fine", "Service/fine", "Gadget/good", "Gadget/there"} {
		if c := find(t, p, what); c.Action != Create || c.Reason == "" {
			t.Errorf("%s: %s because %q", what, c.Action, c.Reason)
		}
	}
	// A dry run for the namespace, the definition, the Deployment and each
	// Service; nothing for what is plain or has its definition in the run.
	if b.dryRuns != 5 || b.applies != 0 {
		t.Errorf("%d dry runs, %d writes", b.dryRuns, b.applies)
	}
	if group == "" || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, standInNamespace+"/") }) {
		t.Errorf("the other namespace is named: %q", got)
	}
}

// What a marker leaves alone is not looked at, whatever it holds (S4.25).
func TestMarkedIsNotForeseen(t *testing.T) {
	b := connect(t)
	name, namespace := b.inner()
	text := in(name, "apiVersion: v1\nkind: Service\nmetadata: {name: s, annotations: {MARK}}\nspec: {ports: [{port: 99999}]}\n")
	for _, mark := range []string{"kustomize.toolkit.fluxcd.io/reconcile: disabled", "kustomize.toolkit.fluxcd.io/ssa: IfNotPresent"} {
		p := b.plan(b.node("infra", namespace), b.node("apps", strings.Replace(text, "MARK", mark, 1)))
		if c := find(t, p, "Service/s"); c.Action != Later {
			t.Errorf("%s: %s", mark, c.Action)
		}
	}
}

// A refusal in the other namespace that may have to do with what is there says
// nothing: the object is judged at its turn.
func TestDoubtfulRefusals(t *testing.T) {
	b := connect(t)
	name, namespace := b.inner()
	infra := b.node("infra", namespace)
	service := "apiVersion: v1\nkind: Service\nmetadata: {name: " + b.namespace + "}\nspec: {ports: [{port: 99999}]}\n"
	apps := b.node("apps", in(name, service))
	if _, got := b.refusals(infra, apps); len(got) != 1 {
		t.Errorf("refusals %q", got)
	}
	later := func(what string, n Node, action Action) {
		t.Helper()
		if c := b.plan(infra, n).Changes[1]; c.Action != action || c.Reason != "its namespace "+name+" comes with this run" {
			t.Errorf("%s: %s because %q", what, c.Action, c.Reason)
		}
	}

	// An object of that name is in the other namespace.
	there := parse(t, standInNamespace, strings.Replace(service, "99999", "80", 1))[0].Unstructured
	if err := b.admin().Create(t.Context(), there); err != nil {
		t.Fatal(err)
	}
	later("a name that is taken there", apps, Later)
	if err := b.admin().Delete(t.Context(), there); err != nil {
		t.Fatal(err)
	}

	// A webhook may change objects of the kind on their way in.
	hook := parse(t, "", `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: `+b.namespace+`}
webhooks:
- name: hook.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  timeoutSeconds: 1
  clientConfig: {url: "https://127.0.0.1:1/"}
  objectSelector: {matchLabels: {nothing: has-this}}
  rules: [{apiGroups: [""], apiVersions: ["*"], operations: [CREATE], resources: [services]}]
`)[0].Unstructured
	if err := b.admin().Create(t.Context(), hook); err != nil {
		t.Fatal(err)
	}
	later("a mutating webhook", apps, Later)
	if err := b.admin().Delete(t.Context(), hook); err != nil {
		t.Fatal(err)
	}

	// What admission makes of Pods depends on the namespace.
	later("a Pod", b.node("apps", in(name, "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n")), Later)

	// The account may do nothing there, which is asked once for a kind.
	tenant := b.node("apps", in(name, strings.Repeat("---\n"+service, 5)))
	tenant.User = cluster.ServiceAccountUser(b.namespace, "nobody")
	o := b.options()
	o.Concurrency = 1
	b.reset()
	p, err := Make(t.Context(), o, []Node{infra, tenant})
	if err != nil || p.Count()[Later] != 5 || b.dryRuns != 2 {
		t.Errorf("an account without rights: %v, %v, %d dry runs", err, p.Count(), b.dryRuns)
	}

	// A port that another Service has now may be free at its turn.
	taken := parse(t, standInNamespace, "apiVersion: v1\nkind: Service\nmetadata: {name: "+b.namespace+"-taken}\nspec: {type: NodePort, ports: [{port: 80}]}")[0].Unstructured
	if err := b.admin().Create(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.removeClusterScoped([]flux.Object{{Unstructured: taken}}) })
	ports, _, _ := unstructured.NestedSlice(taken.Object, "spec", "ports")
	later("a port that is taken", b.node("apps", in(name, fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: NodePort, ports: [{port: 80, nodePort: %v}]}", ports[0].(map[string]any)["nodePort"]))), Later)
}

// A definition that changes decides about its objects, if they surely come after
// it: what the server says of them by the old one does not count either way.
func TestDefinitionThatChanges(t *testing.T) {
	b := connect(t)
	_, definition, gadget := b.gadgets("{type: object, properties: {size: {type: integer}}}")
	definitions := b.node("definitions", definition)
	b.applyStaged(b.plan(definitions), definitions)
	t.Cleanup(func() { b.removeClusterScoped(definitions.Objects) })
	// Of a kind that was defined a moment ago not all of the server knows.
	live := b.node("objects", gadget+"spec: {size: 1}\n")
	b.apply(b.plan(live), live, apply.Options{})

	_, changed, _ := b.gadgets("{type: object, properties: {width: {type: integer, minimum: 1}}}")
	definitions = b.node("definitions", changed)
	fresh := strings.Replace(gadget, "name: g", "name: new", 1)
	objects := b.node("objects", gadget+"spec: {size: 1}\n---\n"+fresh+"spec: {width: 0}\n")
	misfit := " does not fit its definition gadgets.NS.example.com, which comes with this commit: "
	objects.After = []flux.ID{definitions.ID}
	_, got := b.refusals(definitions, objects)
	want := []string{"NS/objects: apps/g.yaml: Gadget/NS/g" + misfit + "spec.size: field not declared in schema", "NS/objects: apps/new.yaml: Gadget/NS/new" + misfit + "spec.width: Invalid value: 0: spec.width in body should be greater than or equal to 1"}
	if !slices.Equal(got, want) {
		t.Errorf("refusals %q, want %q", got, want)
	}
	// In any order: the old one may still hold.
	objects.After = nil
	if p := b.plan(definitions, objects); find(t, p, "Gadget/g").Action != Unchanged || find(t, p, "Gadget/new").Action != Later {
		t.Errorf("%v", summary(p))
	}
	// Good by the new one.
	objects = b.node("objects", fresh+"spec: {width: 1}\n")
	objects.After = []flux.ID{definitions.ID}
	if p := b.plan(definitions, objects); find(t, p, "Gadget/new").Action != Later {
		t.Errorf("%v", summary(p))
	}
}

// A version that comes with the run, of a kind that is there in another one: its
// objects may exist, so that what they lack or what is wrong about them may be
// there already; only fields that are nowhere declared are certainly refused.
func TestVersionThatComes(t *testing.T) {
	b := connect(t)
	group, definition, gadget := b.gadgets("{type: object, properties: {size: {type: integer}, tier: {type: string}}}")
	definitions := b.node("definitions", definition)
	b.applyStaged(b.plan(definitions), definitions)
	t.Cleanup(func() { b.removeClusterScoped(definitions.Objects) })
	// Of a kind that was defined a moment ago not all of the server knows.
	err := retry.Do(t.Context(), retry.Policy{Attempts: 40, Base: 250 * time.Millisecond, Factor: 1}, func(context.Context, int) error {
		_, err := b.admin().RESTMapper().RESTMapping(schema.GroupKind{Group: group, Kind: "Gadget"}, "v1")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	live := b.node("objects", gadget+"spec: {size: 7, tier: gold}\n")
	b.apply(b.plan(live), live, apply.Options{})

	newer := strings.Replace(definition, "versions: [", "versions: [{name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, properties: "+
		"{spec: {type: object, required: [tier], properties: {size: {type: integer, maximum: 5}, tier: {type: string}}}}}}}, ", 1)
	definitions = b.node("definitions", newer)
	v2 := strings.Replace(gadget, "/v1", "/v2", 1)
	objects := b.node("objects", v2+"spec: {size: 7}\n")
	objects.After = []flux.ID{definitions.ID}
	p := b.plan(definitions, objects)
	if c := find(t, p, "Gadget/g"); c.Action != Later {
		t.Errorf("%s because %q", c.Action, c.Reason)
	}
	if m := p.memos[objects.ID]; len(m.entries) > 0 {
		t.Error("the apply is told that the object does not exist")
	}
	objects = b.node("objects", v2+"spec: {colour: red}\n")
	objects.After = []flux.ID{definitions.ID}
	if _, got := b.refusals(definitions, objects); len(got) != 1 || !strings.HasSuffix(got[0], "spec.colour: field not declared in schema") {
		t.Errorf("refusals %q", got)
	}
}

// What is missing or wrong about a custom resource may be put right on its way in
// by a webhook that comes with the run, or is there: a server looks at the values
// after that.
func TestMutatedByTheRun(t *testing.T) {
	b := connect(t)
	group, definition, gadget := b.gadgets("{type: object, required: [size], properties: {size: {type: integer}}}")
	hook := `
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: ` + b.namespace + `-coming, namespace: ""}
webhooks:
- name: hook.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: "https://127.0.0.1:1/"}
  rules: [{apiGroups: [` + group + `], apiVersions: ["*"], operations: [CREATE], resources: [gadgets]}]
`
	objects := b.node("objects", gadget+"spec: {}\n")
	for _, infra := range []Node{b.node("infra", definition), b.node("infra", definition+strings.Replace(hook, "[gadgets]", "[others]", 1))} {
		objects.After = []flux.ID{infra.ID}
		if _, got := b.refusals(infra, objects); len(got) != 1 || !strings.HasSuffix(got[0], "spec.size: Required value") {
			t.Errorf("refusals %q", got)
		}
	}
	infra := b.node("infra", definition+hook)
	objects.After = []flux.ID{infra.ID}
	if c := find(t, b.plan(infra, objects), "Gadget/g"); c.Action != Later {
		t.Errorf("%s because %q", c.Action, c.Reason)
	}
	objects = b.node("objects", gadget+"spec: {colour: red}\n")
	objects.After = []flux.ID{infra.ID}
	if _, got := b.refusals(infra, objects); len(got) != 1 || !strings.HasSuffix(got[0], "spec.colour: field not declared in schema") {
		t.Errorf("refusals %q", got)
	}
}

// An operator may register a webhook for its custom resources when it runs. It
// cannot without the right to, which comes with it.
func TestMutatedByAnOperator(t *testing.T) {
	b := connect(t)
	_, definition, gadget := b.gadgets("{type: object, required: [size], properties: {size: {type: integer}}}")
	role := func(rule string) string {
		return "\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: " + b.namespace + "-operator, namespace: \"\"}\nrules: [" + rule + "]\n"
	}
	binding := func(name string) string {
		return "\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: " + b.namespace + "-operator, namespace: \"\"}\n" +
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: " + name + "}\nsubjects: [{kind: ServiceAccount, name: operator, namespace: " + b.namespace + "}]\n"
	}
	for name, tt := range map[string]struct {
		rights string
		may    bool
	}{
		"mutating webhooks":   {role("{apiGroups: [admissionregistration.k8s.io], resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations], verbs: [get, patch]}"), true},
		"mutating policies":   {role("{apiGroups: [admissionregistration.k8s.io], resources: [mutatingadmissionpolicies], verbs: [create]}"), true},
		"everything":          {role("{apiGroups: ['*'], resources: ['*'], verbs: ['*']}"), true},
		"cluster-admin":       {binding("cluster-admin"), true},
		"reading":             {role("{apiGroups: [admissionregistration.k8s.io], resources: [mutatingwebhookconfigurations], verbs: [get, list, watch]}"), false},
		"validating webhooks": {role("{apiGroups: [admissionregistration.k8s.io], resources: [validatingwebhookconfigurations], verbs: ['*']}"), false},
		"another group":       {role("{apiGroups: [apps], resources: ['*'], verbs: ['*']}"), false},
		"another role":        {binding("view"), false},
	} {
		infra, objects := b.node("infra", definition+tt.rights), b.node("objects", gadget+"spec: {}\n---\n"+strings.Replace(gadget, "name: g", "name: slip", 1)+"spec: {colour: red}\n")
		objects.After = []flux.ID{infra.ID}
		_, got := b.refusals(infra, objects)
		slices.Sort(got)
		if len(got) == 0 || !strings.HasSuffix(got[len(got)-1], "spec.colour: field not declared in schema") {
			t.Errorf("%s: refusals %q", name, got)
		}
		if missing := strings.Contains(strings.Join(got, " "), "Gadget/NS/g does not fit"); missing == tt.may {
			t.Errorf("%s: refusals %q", name, got)
		}
	}
}

// A kind of the server's own cannot be brought by anything, whatever runs
// before.
func TestKindsThatNothingBrings(t *testing.T) {
	b := connect(t)
	operator := b.node("operator", workload)
	apps := b.node("apps", "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: old}\n---\napiVersion: v1\nkind: Confgmap\nmetadata: {name: slip}\n---\n"+
		"apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: old}\n---\napiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\nmetadata: {name: s}\n---\n"+
		"apiVersion: apiextensions.k8s.io/v1beta1\nkind: CustomResourceDefinition\nmetadata: {name: old, namespace: \"\"}\n")
	apps.After = []flux.ID{operator.ID}
	p, got := b.refusals(operator, apps)
	if len(got) != 4 || !strings.Contains(got[0], `no matches for kind "Deployment" in version "apps/v1beta1"`) {
		t.Errorf("refusals %q", got)
	}
	if c := find(t, p, "VolumeSnapshot/s"); c.Action != Later {
		t.Errorf("%s", c.Action)
	}
}

// samples are manifests of kinds of all sorts that have something in most fields
// that a server looks at.
const samples = workload + `
---
apiVersion: v1
kind: Service
metadata: {name: s, labels: {a: b}, annotations: {a: b}}
spec: {type: ClusterIP, selector: {a: b}, sessionAffinity: None, ports: [{name: http, port: 80, targetPort: http, protocol: TCP}, {name: x, port: 81}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {a: b}
binaryData: {c: aGFsbG8=}
immutable: false
---
apiVersion: v1
kind: Secret
metadata: {name: s}
type: Opaque
data: {a: aGFsbG8=}
---
apiVersion: v1
kind: Secret
metadata: {name: tls}
type: kubernetes.io/tls
data: {tls.crt: aGFsbG8=, tls.key: aGFsbG8=}
---
apiVersion: v1
kind: Secret
metadata: {name: pull}
type: kubernetes.io/dockerconfigjson
data: {.dockerconfigjson: e30=}
---
apiVersion: v1
kind: Secret
metadata: {name: cfg}
type: kubernetes.io/dockercfg
data: {.dockercfg: e30=}
---
apiVersion: v1
kind: Secret
metadata: {name: basic}
type: kubernetes.io/basic-auth
data: {username: aGFsbG8=}
---
apiVersion: v1
kind: Secret
metadata: {name: ssh}
type: kubernetes.io/ssh-auth
data: {ssh-privatekey: aGFsbG8=}
---
apiVersion: v1
kind: Secret
metadata: {name: token, annotations: {kubernetes.io/service-account.name: default}}
type: kubernetes.io/service-account-token
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: a, labels: {a: b}}
imagePullSecrets: [{name: pull}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get], resourceNames: [a]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: r}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}
subjects: [{kind: ServiceAccount, name: a, namespace: b}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i}
spec: {ingressClassName: nginx, rules: [{host: a.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}], tls: [{hosts: [a.example.com], secretName: tls}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: n}
spec: {podSelector: {matchLabels: {a: b}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80, protocol: TCP}]}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: p}
spec: {minAvailable: 1, selector: {matchLabels: {a: b}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: h}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 3}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: j}
spec: {schedule: "0 * * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: i}]}}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: d}
spec: {serviceName: s, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: i}]}}, volumeClaimTemplates: [{metadata: {name: v}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: v}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: l}
spec: {limits: [{type: Container, default: {cpu: 1}, max: {cpu: 2}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: q}
spec: {hard: {pods: "3"}}
`

// oddities are what each field of a sample is given in turn.
var oddities = []any{nil, "", "x", "No Name!", strings.Repeat("long", 80), int64(-1), int64(0), int64(99999), true, []any{}, map[string]any{}, map[string]any{"no key!": "x"}}

// odd are the objects with one field changed or left out.
func odd(objects []flux.Object) []flux.Object {
	var all []flux.Object
	for _, o := range objects {
		all = append(all, o)
		var walk func(path []any, value any)
		change := func(path []any, edit func(parent any, step any)) {
			c := o.DeepCopy()
			var at any = c.Object
			for _, step := range path[:len(path)-1] {
				switch step := step.(type) {
				case string:
					at = at.(map[string]any)[step]
				case int:
					at = at.([]any)[step]
				}
			}
			edit(at, path[len(path)-1])
			all = append(all, c)
		}
		walk = func(path []any, value any) {
			outside := len(path) > 0 && slices.Contains([]any{"apiVersion", "kind"}, path[0]) || len(path) == 1 && path[0] == "metadata" || len(path) == 2 && path[1] == "namespace"
			if len(path) > 0 && !outside {
				for _, v := range oddities {
					change(path, func(parent, step any) {
						switch parent := parent.(type) {
						case map[string]any:
							parent[step.(string)] = runtime.DeepCopyJSONValue(v)
						case []any:
							parent[step.(int)] = runtime.DeepCopyJSONValue(v)
						}
					})
				}
				change(path, func(parent, step any) {
					if m, ok := parent.(map[string]any); ok {
						delete(m, step.(string))
					}
				})
			}
			switch value := value.(type) {
			case map[string]any:
				for _, name := range sortedKeys(value) {
					walk(append(slices.Clone(path), name), value[name])
				}
			case []any:
				for i := range value {
					walk(append(slices.Clone(path), i), value[i])
				}
			}
		}
		walk(nil, o.Object)
	}
	return all
}

func sortedKeys(m map[string]any) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// agree plans each object twice: with its namespace yet to come, and with its
// namespace there. What is refused first must be refused then. It returns how
// many were refused both times, and the objects of which the refusal was not
// foreseen.
func (b *bench) agree(objects []flux.Object) (both int, missed []string) {
	b.t.Helper()
	name, namespace := b.inner()
	before := []Node{b.node("infra", namespace)}
	var after []Node
	for i, o := range objects {
		k := &flux.Kustomization{ID: flux.ID{Namespace: b.namespace, Name: fmt.Sprintf("t%04d", i)}}
		if _, placed := o.Object["metadata"].(map[string]any); !placed || o.GetName() == "" {
			continue
		}
		c := o.DeepCopy()
		c.SetNamespace(name)
		labelled, err := build.Label(k, []flux.Object{c})
		if err != nil {
			continue // refused before there is a plan
		}
		ready, _, err := Normalize(labelled)
		if err != nil {
			continue
		}
		n := Node{ID: k.ID, Objects: ready, Rules: Rules{SSA: apply.Options{}.SSA()}}
		before, after = append(before, n), append(after, n)
	}
	early, really := b.verdicts(before), map[flux.ID]*ObjectError(nil)
	made := parse(b.t, "", namespace)[0].Unstructured
	if err := b.admin().Create(b.t.Context(), made); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { b.removeClusterScoped([]flux.Object{{Unstructured: made}}) })
	really = b.verdicts(after)
	for _, n := range after {
		text, _ := yaml.Marshal(n.Objects[0].Object)
		switch e, r := early[n.ID], really[n.ID]; {
		case e != nil && r == nil:
			b.t.Errorf("refused too early: %v\n%s", e, text)
		case e == nil && r != nil:
			missed = append(missed, r.Error())
		case e != nil:
			both++
			if sameLines(e.Err.Error()) != sameLines(r.Err.Error()) && n.Objects[0].GetKind() != "Secret" && n.Objects[0].GetKind() != "ConfigMap" {
				b.t.Errorf("told as\n%v, and at its turn as\n%v", e, r)
			}
		}
	}
	return both, missed
}

// sameLines puts what a server lists in any order into one.
func sameLines(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (b *bench) verdicts(nodes []Node) map[flux.ID]*ObjectError {
	b.t.Helper()
	_, err := Make(b.t.Context(), b.options(), nodes)
	var errs Errors
	if err != nil && !errors.As(err, &errs) {
		b.t.Fatal(err)
	}
	out := map[flux.ID]*ObjectError{}
	for _, e := range errs {
		if e.Class == Failed {
			b.t.Fatal(e)
		}
		out[e.Node] = e
	}
	return out
}

// Whatever is refused before its namespace is there is refused in it, too; and
// nothing of this kind is not foreseen.
func TestRefusedEarlyIsRefusedReally(t *testing.T) {
	b := connect(t)
	objects := odd(parse(t, b.namespace, samples))
	both, missed := b.agree(objects)
	t.Logf("%d objects: %d refused both times, %d only at their turn", len(objects), both, len(missed))
	if both < 1000 || len(missed) > 0 {
		t.Errorf("%d of %d refusals were foreseen, not %q", both, both+len(missed), missed)
	}
}

// The manifests of all sample repositories and transcripts, which are good: no
// false alarm.
func TestSamplesAreNotRefusedEarly(t *testing.T) {
	b := connect(t)
	var objects []flux.Object
	for _, pattern := range []string{"../../testdata/repos/*/*/*/*/*.yaml", "../../testdata/repos/*/*/*/*.yaml", "../../testdata/repos/*/*/*.yaml", "../../testdata/repos/*/*.yaml", "../../testdata/script/*.txtar", "../apply/testdata/*.txtar", "../build/testdata/*/*.yaml", "../build/testdata/*/*/*.yaml", "../build/testdata/*.txtar", "../upstream/testdata/*.txtar"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objects = append(objects, manifests(b, string(text))...)
		}
	}
	if len(objects) < 100 {
		t.Fatalf("found %d manifests", len(objects))
	}
	both, missed := b.agree(objects)
	t.Logf("%d objects: %d refused both times, %d only at their turn", len(objects), both, len(missed))
	if len(missed) > 0 {
		t.Errorf("not foreseen: %q", missed)
	}
}

// manifests are the documents of a text, or of the files in an archive, that are
// namespaced objects of kinds that the server has.
func manifests(b *bench, text string) []flux.Object {
	var found []flux.Object
	document := ""
	end := func() {
		o := &unstructured.Unstructured{}
		if raw, err := yaml.YAMLToJSON([]byte(document)); err == nil && o.UnmarshalJSON(raw) == nil && o.GetName() != "" {
			if namespaced, err := b.admin().IsObjectNamespaced(o); err == nil && namespaced {
				found = append(found, flux.Object{Unstructured: o, File: "a.yaml"})
			}
		}
		document = ""
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "---") || strings.HasPrefix(line, "-- ") {
			end()
			continue
		}
		document += line
	}
	end()
	return found
}

// An answer of the server that names the other namespace is told with the real
// one.
func TestAtHome(t *testing.T) {
	o := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "default", "namespace": "real"}}}
	err := atHome(apierrors.NewInternalError(errors.New("failed to create typed patch object (default/default; v1, Kind=ConfigMap): .x: y")), &item{object: flux.Object{Unstructured: o}})
	if want := "Internal error occurred: failed to create typed patch object (real/default; v1, Kind=ConfigMap): .x: y"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}
