package apply_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestAsFluxWhateverHappens plays sequences of chance: manifests that change,
// others who write to the same objects as managers that are taken over and as
// ones that are not, rules, common metadata. What Flux makes of it, sluice makes
// of it; see TestAsFlux.
func TestAsFluxWhateverHappens(t *testing.T) {
	connect(t)
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			p, c := newPlayer(t), chance{rand.New(rand.NewPCG(seed, 4))}
			p.onlySuccess = true
			play := func(name, text string) {
				t.Helper()
				t.Logf("-- %s --\n%s", name, text) // shown if the test fails
				p.step(name, text)
			}
			if c.one(2) {
				play(c.manager()+" create", c.configMap())
			}
			play("run", c.manifests())
			for range 8 {
				switch c.IntN(7) {
				case 0:
					play("options", c.options())
				case 1, 2:
					play(c.manager()+" merge", c.edit())
				case 3:
					play(c.of("kubectl", "helm", "operator", "argocd")+" apply", c.claim())
				case 4:
					play("kubectl scale", fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: %d}}\n", c.IntN(4)))
				default:
					play("run", c.manifests())
				}
				if t.Failed() || p.actors[0].err != nil {
					return // Flux has by now written part of it (S4.18)
				}
			}
			if play("run", c.manifests()); p.actors[0].err == nil && !t.Failed() {
				p.handOver()
			}
		})
	}
}

// chance makes objects; all are valid.
type chance struct{ *rand.Rand }

// one is true once in n times.
func (c chance) one(n int) bool { return c.IntN(n) == 0 }

func (c chance) of(list ...string) string { return list[c.IntN(len(list))] }

// some is a map of a few of the keys, as YAML.
func (c chance) some(keys ...string) string {
	var parts []string
	for _, k := range keys {
		if c.one(2) {
			parts = append(parts, fmt.Sprintf("%s: %q", k, c.of("1", "2", "3")))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (c chance) manager() string {
	return c.of("kubectl-edit", "kubectl-client-side-apply", "kubectl", "before-first-apply", "kustomize-controller", "helm", "operator", "flux-client-side-apply")
}

func (c chance) metadata(name string) string {
	return fmt.Sprintf("{name: %s, labels: %s, annotations: %s}", name, c.some("x", "z"), c.some("m", "o"))
}

func (c chance) configMap() string {
	return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: %s, data: %s}\n", c.metadata("settings"), c.some("a", "b", "c", "d"))
}

func (c chance) service() string {
	return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: %s, spec: {selector: %s, ports: [{name: http, port: 80%s}%s]}}\n", c.metadata("web"), c.some("app", "tier"),
		c.of("", ", protocol: TCP", ", targetPort: web"), c.of("", ", {name: more, port: 81}", ", {name: dns, port: 80, protocol: UDP}"))
}

func (c chance) deployment() string {
	spec := c.of("", "replicas: 2, ", "replicas: 3, ") + c.of("", "revisionHistoryLimit: 1, ", "revisionHistoryLimit: 2, ")
	container := fmt.Sprintf("{name: app, image: %q%s%s%s}", "registry.example.com/web:"+c.of("1", "2"), c.of("", ", ports: [{containerPort: 80}]", ", ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]"),
		c.of("", ", resources: {limits: {cpu: 1000m}}", ", resources: {limits: {cpu: 0.5, memory: 64Mi}}"), c.of("", `, env: [{name: B, value: "1"}, {name: A, value: "2"}]`, `, env: [{name: A, value: "2"}, {name: C, value: "3"}]`))
	return fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: %s, spec: {%sselector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}, annotations: %s}, spec: {containers: [%s%s]}}}}\n",
		c.metadata("web"), spec, c.some("p", "q"), container, c.of("", `, {name: second, image: "registry.example.com/second:1"}`))
}

func (c chance) manifests() string {
	return c.configMap() + "---\n" + c.service() + "---\n" + c.deployment()
}

// edit is a merge patch.
func (c chance) edit() string {
	value := func() string { return c.of("null", `"1"`, `"9"`) }
	switch c.IntN(4) {
	case 0:
		return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, labels: {x: %s}, annotations: {m: %s, kustomize.toolkit.fluxcd.io/checksum: %s}}, data: {a: %s, e: %s}}\n",
			value(), value(), value(), value(), value())
	case 1:
		return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: web, annotations: {m: %s}}, spec: {selector: {app: %s}, sessionAffinity: %s}}\n", value(), value(), c.of("ClientIP", "None"))
	case 2:
		return fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, labels: {x: %s}}, spec: {revisionHistoryLimit: %d, template: {metadata: {annotations: {p: %s, r: %s}}}}}\n", value(), c.IntN(4), value(), value())
	}
	return fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: %d, template: {spec: {containers: [{name: app, image: \"registry.example.com/web:%d\"}]}}}}\n", c.IntN(4), c.IntN(3))
}

// claim is what another applier says of an object.
func (c chance) claim() string {
	switch c.IntN(4) {
	case 0:
		return c.configMap()
	case 1:
		return fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, annotations: %s}, spec: {replicas: %d}}\n", c.some("m", "o"), c.IntN(4))
	case 2:
		return fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {template: {metadata: {annotations: %s}, spec: {containers: [{name: app, resources: {limits: {cpu: %q}}}, {name: sidecar, image: \"registry.example.com/s:1\"}]}}}}\n",
			c.some("p", "q"), c.of("100m", "1", "2"))
	}
	return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: web, labels: %s}, spec: {sessionAffinity: %s}}\n", c.some("x", "z"), c.of("ClientIP", "None"))
}

func (c chance) options() string {
	spec := map[string]any{}
	if c.one(2) {
		rule := map[string]any{"paths": [][]string{{"/spec/replicas"}, {"/spec/replicas", "/spec/template/spec/containers/0/resources"}, {"/spec/template/metadata/annotations", "/data/a"}, {"/metadata/annotations/m"}}[c.IntN(4)]}
		if c.one(2) {
			rule["target"] = map[string]any{"kind": c.of("Deployment", "ConfigMap", "Dep.*")}
		}
		spec["ignore"] = []any{rule}
	}
	if c.one(3) {
		spec["commonMetadata"] = map[string]any{"labels": map[string]string{"x": c.of("7", "8")}, "annotations": map[string]string{"m": "7"}}
	}
	all := map[string]any{"spec": spec}
	if c.one(3) {
		all["overrideManagers"] = []string{c.of("helm", "oper")}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // maps of texts
	}
	return string(text) + "\n"
}
