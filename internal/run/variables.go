package run

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/substitute"
)

// The objects that substituteFrom names are looked up in what this run builds
// and then in the cluster, so that a ConfigMap of the same commit, even of the
// same Kustomization, serves on an empty cluster (S14.25). What is built later
// must therefore wait for what is built earlier: choose finds an order.

// resolution says where a node's variables come from.
type resolution int

const (
	// fromRun: from objects that this run has built, or from none.
	fromRun resolution = iota
	// fromCluster: some from the cluster, or optional ones from nowhere.
	fromCluster
	// deferral: one that is required is nowhere yet.
	deferral
)

// source of variables that was rendered or built.
type provided struct {
	owner  flux.ID
	object *unstructured.Unstructured
	// final is set once the owner's own variables are in it.
	final bool
}

// variableKey names a ConfigMap or Secret.
type variableKey struct{ kind, namespace, name string }

func (k variableKey) String() string { return k.kind + "/" + k.namespace + "/" + k.name }

// index remembers the ConfigMaps and Secrets of a node, if they go to the
// run's own cluster: variables and kubeconfigs come from there (S3.5, S4.42).
func (r *run) index(n *node, objects []flux.Object) {
	if n.remote() {
		return
	}
	for _, o := range objects {
		if kind := o.GetKind(); o.GetAPIVersion() == "v1" && (kind == "ConfigMap" || kind == "Secret") {
			key := variableKey{kind, o.GetNamespace(), o.GetName()}
			r.provided[key] = provided{owner: n.ID, object: o.Unstructured, final: n.built}
		}
	}
}

// choose picks the next node to fill: the first whose variables the run itself
// provides; if there is none, the first that the cluster can serve, except
// that a node gives way while what it looks for will be built by another that
// is pending; if there is none of these either, the first.
func (r *run) choose(ctx context.Context, pending []*node) (int, resolution) {
	second, third := -1, -1
	for i, n := range pending {
		how, contested := r.resolve(ctx, n)
		switch {
		case how == fromRun:
			return i, fromRun
		case how == fromCluster && !contested && second < 0:
			second = i
		case how == fromCluster && third < 0:
			third = i
		}
	}
	if second >= 0 {
		return second, fromCluster
	}
	if third >= 0 {
		return third, fromCluster
	}
	return 0, deferral
}

// need is an object that a node looks for: of variables, or of its kubeConfig.
type need struct {
	variableKey
	optional bool
}

// looksFor lists what a node needs of objects in the run's own cluster. Its
// kubeConfig counts only where that cluster is to be asked.
func (r *run) looksFor(n *node) []need {
	var needs []need
	if n.Spec.PostBuild != nil {
		for _, ref := range n.Spec.PostBuild.SubstituteFrom {
			needs = append(needs, need{variableKey{ref.Kind, n.Namespace, ref.Name}, ref.Optional})
		}
	}
	if at := n.Cluster(); !at.IsOwn() && !n.excluded && r.options.Command.asks() {
		needs = append(needs, need{variableKey: variableKey{at.Kind, at.Namespace, at.Name}})
	}
	return needs
}

// resolve says where a node's variables are, and its kubeConfig. It is contested
// if a pending node will provide one of them.
func (r *run) resolve(ctx context.Context, n *node) (how resolution, contested bool) {
	if n.broken || n.Spec.Suspend {
		return fromRun, false
	}
	for _, need := range r.looksFor(n) {
		key := need.variableKey
		if r.serves(n, key) {
			continue
		}
		how = max(how, fromCluster)
		if _, ok := r.provided[key]; ok {
			contested = true
		}
		if need.optional {
			continue
		}
		// An error is not "absent": filling the node reports it.
		if _, _, found, err := r.live(ctx, key); err == nil && !found {
			how = deferral
		}
	}
	return how, contested
}

// serves says whether the run provides the object to the node by now. (What a
// node of another cluster builds is not indexed.)
func (r *run) serves(n *node, key variableKey) bool {
	p, ok := r.provided[key]
	return ok && (p.final || p.owner == n.ID)
}

// lookup is substitute.Lookup for one node.
func (r *run) lookup(n *node) substitute.Lookup {
	return func(ctx context.Context, kind, namespace, name string) (map[string]string, bool, bool, error) {
		key := variableKey{kind, namespace, name}
		if r.serves(n, key) {
			data, secret := data(r.provided[key].object)
			return data, secret, true, nil
		}
		return r.live(ctx, key)
	}
}

// live reads an object of variables from the cluster, as sluice itself and
// never impersonated (S3.5). While nothing is written yet an answer holds, so
// it is kept.
func (r *run) live(ctx context.Context, key variableKey) (map[string]string, bool, bool, error) {
	if known, ok := r.liveVars[key]; ok && !r.writing {
		return known.data, known.secret, known.found, known.err
	}
	known := r.read(ctx, key)
	r.liveVars[key] = known
	return known.data, known.secret, known.found, known.err
}

func (r *run) read(ctx context.Context, key variableKey) liveVariables {
	c, err := r.connect(ctx)
	if err != nil {
		return liveVariables{err: err}
	}
	reader, err := c.Client("")
	if err != nil {
		return liveVariables{err: err}
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: key.kind})
	err = reader.Get(ctx, client.ObjectKey{Namespace: key.namespace, Name: key.name}, o)
	switch {
	case apierrors.IsNotFound(err):
		return liveVariables{}
	case err != nil:
		return liveVariables{err: fmt.Errorf("cannot read %s: %w", key, err)}
	}
	known := liveVariables{found: true}
	known.data, known.secret = data(o)
	return known
}

type liveVariables struct {
	data          map[string]string
	secret, found bool
	err           error
}

// data returns the variables that a ConfigMap or Secret holds: a ConfigMap's
// data only, a Secret's decoded (S3.5), its stringData over it (S4.5) since a
// built Secret may still have that.
func data(o *unstructured.Unstructured) (vars map[string]string, secret bool) {
	secret = o.GetKind() == "Secret"
	vars = map[string]string{}
	fields, _, _ := unstructured.NestedMap(o.Object, "data")
	for name, value := range fields {
		text, ok := value.(string)
		if !ok {
			continue // the API server refuses it when the object is applied
		}
		if secret {
			decoded, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				continue // likewise
			}
			text = string(decoded)
		}
		vars[name] = text
	}
	if secret {
		plain, _, _ := unstructured.NestedMap(o.Object, "stringData")
		for name, value := range plain {
			if text, ok := value.(string); ok {
				vars[name] = text
			}
		}
	}
	return vars, secret
}

// inert kinds cannot lead to another object's creation, so a Kustomization
// that holds nothing else cannot create what a later one looks for.
var inert = map[string]bool{
	"Namespace": true, "ConfigMap": true, "Secret": true, "Service": true, "ServiceAccount": true,
	"Role": true, "RoleBinding": true, "ClusterRole": true, "ClusterRoleBinding": true,
	"CustomResourceDefinition": true, "LimitRange": true, "ResourceQuota": true, "NetworkPolicy": true,
	"PersistentVolume": true, "PersistentVolumeClaim": true, "StorageClass": true, "PriorityClass": true,
	"IngressClass": true, "Ingress": true, "PodDisruptionBudget": true, "HorizontalPodAutoscaler": true,
}

// deferral says why a node has to wait with its build until its turn: what it
// looks for may be created by something that comes before it. It is empty if
// nothing before it could, and then the run is invalid.
func (r *run) deferral(ctx context.Context, n *node) string {
	missing := r.missingVariables(ctx, n)
	if len(missing) == 0 || !r.mayCreate(n) {
		return ""
	}
	return "waits for " + strings.Join(missing, ", ") + ", which something earlier in the run may create"
}

// tellAwaited warns of what a node is deferred for: nobody can know whether
// something earlier in the run will create it, and if nothing does, the run will
// fail half way.
func (r *run) tellAwaited(ctx context.Context, n *node) {
	if n.excluded {
		return
	}
	missing := r.missingVariables(ctx, n)
	r.notice(event.Notice{Level: event.Warning, Code: "built-later", Node: n.ID.String(), File: n.File, Line: n.Line,
		Text: fmt.Sprintf("%s needs %s, in no manifest of this run and not in the cluster: it is built when its turn comes, and fails if nothing before it has created %s",
			n.ID, strings.Join(missing, ", "), map[bool]string{true: "it", false: "them"}[len(missing) == 1]),
		Hint: "if nothing does, create it before the run, or set optional: true where variables may be missing"})
}

// missingVariables lists what is required and nowhere.
func (r *run) missingVariables(ctx context.Context, n *node) []string {
	var missing []string
	for _, need := range r.looksFor(n) {
		key := need.variableKey
		if need.optional || r.serves(n, key) {
			continue
		}
		if _, _, found, err := r.live(ctx, key); err == nil && !found {
			missing = append(missing, key.String())
		}
	}
	return missing
}

// mayCreate says whether something that runs before the node could create
// objects that no manifest holds: a workload, or a custom resource.
func (r *run) mayCreate(n *node) bool {
	seen := map[flux.ID]bool{n.ID: true}
	queue := []flux.ID{n.Parent}
	queue = append(queue, n.Dependencies()...)
	for len(queue) > 0 {
		before := r.nodes.get(queue[0])
		queue = queue[1:]
		if before == nil || seen[before.ID] {
			continue
		}
		seen[before.ID] = true
		queue = append(queue, before.Parent)
		queue = append(queue, before.Dependencies()...)
		if before.remote() {
			continue // what it makes, it makes elsewhere
		}
		if before.deferred != "" || !before.built && !before.broken && !before.Spec.Suspend {
			return true // its objects are not known yet
		}
		for _, o := range before.objects {
			if !inert[o.GetKind()] {
				return true
			}
		}
	}
	return false
}

// learnSecrets tells the redactor what must never be shown.
func (r *run) learnSecrets(objects []flux.Object) {
	for _, o := range objects {
		if o.GetAPIVersion() != "v1" || o.GetKind() != "Secret" {
			continue
		}
		vars, _ := data(o.Unstructured)
		for _, value := range vars {
			r.sinks.Learn(value)
		}
	}
}
