package plan

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

// corpus holds the kinds that repositories are made of, written as people
// write them. NS is replaced.
const corpus = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}, annotations: {example.com/note: hello}}
spec:
  replicas: 2
  revisionHistoryLimit: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      securityContext: {runAsNonRoot: true, runAsUser: 1000}
      initContainers:
      - {name: init, image: "registry.example.com/init:1", command: [sh, -c, "true"]}
      containers:
      - name: app
        image: registry.example.com/web:1
        args: [--one, --two]
        ports:
        - {name: http, containerPort: 8080}
        - {name: metrics, containerPort: 9090}
        env:
        - {name: A, value: "1"}
        - {name: B, valueFrom: {secretKeyRef: {name: keys, key: k}}}
        envFrom: [{configMapRef: {name: settings}}]
        resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 256Mi}}
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 5}
        volumeMounts: [{name: data, mountPath: /data}, {name: conf, mountPath: /conf, readOnly: true}]
      - {name: sidecar, image: "registry.example.com/sidecar:1"}
      volumes:
      - {name: data, emptyDir: {}}
      - {name: conf, configMap: {name: settings}}
      nodeSelector: {kubernetes.io/os: linux}
      tolerations: [{key: a, operator: Exists}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "postgres:17", ports: [{containerPort: 5432}]}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: claims}
spec:
  serviceName: claims
  replicas: 0
  selector: {matchLabels: {app: claims}}
  template:
    metadata: {labels: {app: claims}}
    spec: {containers: [{name: db, image: "postgres:17"}]}
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "registry.example.com/agent:1"}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  suspend: true
  template: {spec: {restartPolicy: Never, containers: [{name: app, image: "registry.example.com/app:1"}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: app, image: "registry.example.com/app:1"}]}}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, {name: metrics, port: 9090}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare}
spec: {ports: [{port: 1, protocol: UDP}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: "1", b: "2", file: "x: y\n"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: empty}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
type: Opaque
stringData: {k: v}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
automountServiceAccountToken: false
imagePullSecrets: [{name: pull}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: web}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}
subjects: [{kind: ServiceAccount, name: web, namespace: NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NS, namespace: ""}
rules: [{apiGroups: [apps], resources: [deployments], verbs: ["*"]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: nginx
  rules:
  - {host: a.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}}
  tls: [{hosts: [a.example.com], secretName: tls}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: NS, namespace: ""}
spec: {controller: example.com/x}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {pods: "100"}}
---
apiVersion: v1
kind: Namespace
metadata: {name: NS-inner, namespace: "", labels: {team: a}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.NS.example.com, namespace: ""}
spec:
  group: NS.example.com
  scope: Namespaced
  names: {kind: Gadget, listKind: GadgetList, plural: gadgets, singular: gadget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer}
              ratio: {type: number}
              mode: {type: string, default: auto}
              tags: {type: array, items: {type: string}}
              parts: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name], items: {type: object, required: [name], properties: {name: {type: string}, num: {type: integer}}}}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              whole: {type: object, x-kubernetes-map-type: atomic, additionalProperties: {type: string}}
---
apiVersion: NS.example.com/v1
kind: Gadget
metadata: {name: g}
spec:
  size: 3
  ratio: 1.5
  tags: [a, b]
  parts: [{name: x, num: 1}, {name: z}]
  free: {deep: {er: [1, 2, {a: b}]}}
  whole: {a: b}
`

// Proven unchanged must imply that the server's dry run changes nothing. The
// manifests are changed at random after they have been applied, and so are the
// live objects, by other managers.
func TestProvenUnchangedImpliesNoChange(t *testing.T) {
	b := connect(t)
	text := strings.ReplaceAll(corpus, "NS", b.namespace)
	n := b.node("apps", text)
	t.Cleanup(func() { b.removeClusterScoped(n.Objects) })
	if _, err := apply.Apply(t.Context(), b.admin(), n.Objects, apply.Options{StageWait: b.established}); err != nil {
		t.Fatal(err)
	}
	for _, o := range n.Objects {
		live := b.live(o)
		if !provenUnchanged(o.Unstructured, live, n.Rules.SSA, flux.FieldManager) {
			t.Errorf("%s is as it was applied, but that is not proven:\nmanifest %v\nlive     %v\nmanaged  %s",
				o.Ref(), o.Object, live.Object, managed(live))
			continue
		}
		b.assertNoChange(o, live)
	}

	rounds := 40
	r := rand.New(rand.NewPCG(1, 2))
	var shown, agreed int
	for round := range rounds {
		for _, o := range n.Objects {
			if r.IntN(3) == 0 {
				b.disturb(r, o)
			}
			desired := o.DeepCopy()
			for range r.IntN(3) {
				mutate(r, desired.Object)
			}
			live := b.live(o)
			if live == nil || !provenUnchanged(desired.Unstructured, live, n.Rules.SSA, flux.FieldManager) {
				continue
			}
			shown++
			if b.assertNoChange(desired, live) {
				agreed++
			}
			if t.Failed() {
				t.Fatalf("round %d", round)
			}
		}
	}
	t.Logf("%d proofs held of %d", agreed, shown)
	if shown == 0 {
		t.Error("nothing was proven at all")
	}
}

func managed(o *unstructured.Unstructured) string {
	for _, e := range o.GetManagedFields() {
		if e.Manager == flux.FieldManager && e.Operation == metav1.ManagedFieldsOperationApply {
			return string(e.FieldsV1.GetRawBytes())
		}
	}
	return ""
}

// assertNoChange sends the dry run and compares it with the live object.
// It reports whether the comparison could be made: a controller may have
// written in between.
func (b *bench) assertNoChange(desired flux.Object, live *unstructured.Unstructured) bool {
	b.t.Helper()
	dry := desired.DeepCopy().Unstructured
	err := b.admin().Patch(b.t.Context(), dry, serverSideApply, client.DryRunAll, client.ForceOwnership, client.FieldOwner(flux.FieldManager))
	if err != nil {
		b.t.Errorf("%s was proven unchanged, its dry run fails: %v", desired.Ref(), err)
		return false
	}
	if dry.GetResourceVersion() != live.GetResourceVersion() {
		return false
	}
	for _, o := range []*unstructured.Unstructured{dry, live} {
		o.SetManagedFields(withoutTimes(o))
	}
	if !reflect.DeepEqual(dry.Object, live.Object) {
		b.t.Errorf("%s was proven unchanged, its dry run changes it:\nmanifest %v\nlive     %v\ndry run  %v", desired.Ref(), desired.Object, live.Object, dry.Object)
	}
	return true
}

func (b *bench) live(o flux.Object) *unstructured.Unstructured {
	b.t.Helper()
	answer := rehearse.Ask(b.t.Context(), b.admin(), o.Unstructured, client.ObjectKeyFromObject(o.Unstructured))
	if answer.Err != nil {
		b.t.Fatal(answer.Err)
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

// disturb changes a live object as others do.
func (b *bench) disturb(r *rand.Rand, o flux.Object) {
	b.t.Helper()
	live := b.live(o)
	if live == nil {
		return
	}
	owner := []string{"somebody", "kubectl-edit", flux.FieldManager}[r.IntN(3)]
	before := live.DeepCopy()
	mutate(r, live.Object)
	if reflect.DeepEqual(before.Object, live.Object) {
		return
	}
	// What the server does not accept is no disturbance.
	_ = b.admin().Update(b.t.Context(), live, client.FieldOwner(owner))
	if r.IntN(2) == 0 {
		again := o.DeepCopy().Unstructured
		_ = b.admin().Patch(b.t.Context(), again, serverSideApply, client.ForceOwnership, client.FieldOwner(flux.FieldManager))
	}
}

// mutate changes one thing somewhere below metadata.labels, annotations, spec
// or data.
func mutate(r *rand.Rand, object map[string]any) {
	var at any = object
	first := []string{"spec", "data", "metadata", "rules", "subjects", "imagePullSecrets"}
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
