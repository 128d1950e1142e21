package health

import (
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
)

func withExpressions(checks ...kustomize.CustomHealthCheck) *flux.Kustomization {
	return &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"},
		Spec: kustomizev1.KustomizationSpec{HealthCheckExprs: checks}}
}

func expressions(apiVersion, kind, current, inProgress, failed string) kustomize.CustomHealthCheck {
	return kustomize.CustomHealthCheck{APIVersion: apiVersion, Kind: kind,
		HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: current, InProgress: inProgress, Failed: failed}}
}

func TestExpressions(t *testing.T) {
	ready := `status.conditions.exists(c, c.type == "Ready" && c.status == "True")`
	tests := []struct {
		name            string
		check           kustomize.CustomHealthCheck
		manifest        string
		status, message string
	}{
		{"S6.43 current", expressions("example.com/v1", "A", ready, "", ""), custom + "status: {conditions: [{type: Ready, status: \"True\"}]}\n", Current, ""},
		{"S6.40 version is ignored", expressions("example.com/v9", "A", "true", "", ""), custom, Current, ""},
		{"S6.40 every kind of the group", expressions("example.com/v1", "", "false", "", "true"), custom, Failed, `"failed"`},
		{"S6.40 another group", expressions("example.org/v1", "A", "false", "", "true"), custom, Current, ""},
		{"S6.43 generation not observed", expressions("example.com/v1", "A", "true", "", "true"), custom + "status: {observedGeneration: 1}\n", InProgress, "not observed"},
		{"S6.43 inProgress goes before failed", expressions("example.com/v1", "A", "true", "true", "true"), custom, InProgress, "in progress"},
		{"S6.43 failed goes before current", expressions("example.com/v1", "A", "true", "", "true"), custom, Failed, ""},
		{"S6.43 none", expressions("example.com/v1", "A", "false", "false", "false"), custom, InProgress, ""},
		{"S6.42 fields of the object", expressions("v1", "ConfigMap", `data.mode == "on" && metadata.name == "c"`, "", ""), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {mode: \"on\"}\n", Current, ""},
		{"S6.44 no such key", expressions("example.com/v1", "A", "status.ready", "", ""), custom, Unknown, "no such"},
		{"S6.44 no boolean", expressions("example.com/v1", "A", "metadata.name", "", ""), custom, Unknown, "as boolean"},
		{"S6.46 strings, sets, encoders, optionals", expressions("example.com/v1", "A",
			`"a-b".split("-") == ["a", "b"] && sets.contains([1, 2], [1]) && base64.decode("aGk=") == b"hi" && metadata.?labels.hasValue() == false && 1 < 1.5`, "", ""), custom, Current, ""},
		{"S6.46 homogeneous lists", expressions("example.com/v1", "A", `[1, 2].exists(n, n == 2)`, "", ""), custom, Current, ""},
		{"S6.45 deletion is not noticed", expressions("", "Namespace", "true", "", ""),
			"apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, deletionTimestamp: \"2026-01-01T00:00:00Z\"}\n", Current, ""},
		{"S6.45 no effect on Jobs", expressions("batch/v1", "Job", "true", "", ""), job, InProgress, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := ParseExpressions(withExpressions(tt.check))
			if err != nil {
				t.Fatal(err)
			}
			o := parse(t, tt.manifest)
			s := evaluate(t.Context(), e.Attach([]Target{{Ref: flux.RefOf(o)}})[0], o, nil)
			if s.Status != tt.status || !strings.Contains(s.text(), tt.message) {
				t.Errorf("%s, want %s with %q", s.text(), tt.status, tt.message)
			}
		})
	}
}

func TestTheEntryWithTheKindWins(t *testing.T) {
	e, err := ParseExpressions(withExpressions(expressions("example.com/v1", "", "false", "", "true"), expressions("example.com/v1", "A", "true", "", "")))
	if err != nil {
		t.Fatal(err)
	}
	o := parse(t, custom)
	if s := evaluate(t.Context(), e.Attach([]Target{{Ref: flux.RefOf(o)}})[0], o, nil); !s.Ready() {
		t.Errorf("S6.40: %s", s.text())
	}
}

// S6.40, S6.41: everything that is wrong comes at once, before anything is applied.
func TestExpressionsThatCannotBeUsed(t *testing.T) {
	_, err := ParseExpressions(withExpressions(
		expressions("example.com/v1", "A", "status.", "", ""),
		expressions("example.com/v1", "B", "", "", ""),
		expressions("example.com/v1", "C", "true", "", ""),
		expressions("example.com/v2", "C", "true", "", ""),
		expressions("a/b/c", "D", "true", "", ""),
	))
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	var own []string
	for _, l := range lines {
		if strings.HasPrefix(l, "kustomization flux-system/apps: spec.healthCheckExprs[") {
			own = append(own, l)
		}
	}
	want := []string{
		"[0]: kind A of group example.com: failed to parse the expression Current: ",
		"[1]: kind B of group example.com: expression Current not specified",
		"[3]: kind C of group example.com has an entry already, spec.healthCheckExprs[2]; the version plays no part",
		`[4]: apiVersion "a/b/c" is not of the form group/version`,
	}
	if len(own) != len(want) {
		t.Fatalf("%q", own)
	}
	for i, w := range want {
		if !strings.Contains(own[i], w) {
			t.Errorf("%s\nwant %s", own[i], w)
		}
	}
	var none *Expressions
	if got := none.Attach([]Target{{TTLJob: true}}); len(got) != 1 || got[0].Expr != nil {
		t.Errorf("%+v", got)
	}
}

// S6.46: without a zone of its own a time is in UTC, wherever the job runs.
func TestS6_46TimeZone(t *testing.T) {
	zone := time.Local
	time.Local = time.FixedZone("far", 9*60*60)
	defer func() { time.Local = zone }()
	e, err := ParseExpressions(withExpressions(expressions("example.com/v1", "A",
		`timestamp(status.at).getHours() == 20 && timestamp(status.at).getDate() == 31 && timestamp(status.at).getHours("+05:00") == 1`, "", "")))
	if err != nil {
		t.Fatal(err)
	}
	o := parse(t, custom+"status: {at: \"2026-06-01T01:00:00+05:00\"}\n")
	if s := evaluate(t.Context(), e.Attach([]Target{{Ref: flux.RefOf(o)}})[0], o, nil); !s.Ready() {
		t.Errorf("%s", s.text())
	}
}

// S6.40 to S6.45: with expressions, too, every status is the one that Flux's
// poller gives, in the order in which it asks its readers.
func TestS6_45SameAsFlux(t *testing.T) {
	ready := `status.conditions.filter(c, c.type == "Ready").all(c, c.status == "True")`
	failed := `has(status.failure) && status.failure`
	for name, checks := range map[string][]kustomize.CustomHealthCheck{
		"kind":             {expressions("example.com/v1", "A", ready, "", failed)},
		"another version":  {expressions("example.com/v7", "A", ready, "", failed)},
		"group":            {expressions("example.com/v1", "", ready, "", failed)},
		"group and kind":   {expressions("example.com/v1", "", "true", "", ""), expressions("example.com/v1", "A", ready, "has(status.busy)", failed)},
		"another kind":     {expressions("example.com/v1", "B", "true", "", "")},
		"another group":    {expressions("example.org/v1", "", "true", "", "")},
		"jobs":             {expressions("batch/v1", "", "true", "", "true"), expressions("batch/v1", "Job", "true", "", "")},
		"the core group":   {expressions("v1", "", ready, "", failed)},
		"workloads":        {expressions("apps/v1", "Deployment", "has(status.busy)", "", failed)},
		"not boolean":      {expressions("example.com/v1", "A", "status", "", "")},
		"not boolean, but": {expressions("example.com/v1", "A", "true", "metadata.name", "")},
	} {
		t.Run(name, func(t *testing.T) {
			custom, err := cel.NewStatusReader(checks)
			if err != nil {
				t.Fatal(err)
			}
			reader := fluxReader(custom)
			ours, err := ParseExpressions(withExpressions(checks...))
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range [][2]string{{"example.com/v1", "A"}, {"example.com/v2", "C"}, {"v1", "ConfigMap"}, {"v1", "Namespace"}, {"batch/v1", "Job"}, {"batch/v1", "CronJob"}, {"apps/v1", "Deployment"}} {
				each([]axis{
					at("metadata.generation", nil, int64(2)), at("status.observedGeneration", nil, int64(1), int64(2), "2"),
					at("metadata.deletionTimestamp", nil, "2026-01-01T00:00:00Z"),
					at("status.conditions", nil, conditions("Ready", "True", ""), conditions("Ready", "False", ""), conditions("Complete", "True", ""), conditions("Stalled", "True", "")),
					at("status.failure", nil, true, false), at("status.busy", nil, true),
				}, map[string]any{}, func(fields map[string]any) {
					o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": kind[0], "kind": kind[1]}}
					o.SetName("a")
					o.SetNamespace("ns")
					setField(t, o, "spec.selector", map[string]any{"matchLabels": map[string]any{"app": "a"}})
					for path, value := range fields {
						setField(t, o, path, value)
					}
					theirs, err := reader.ReadStatusForObject(t.Context(), noPods{}, o.DeepCopy())
					if err != nil {
						t.Fatal(err)
					}
					got := evaluate(t.Context(), ours.Attach([]Target{{Ref: flux.RefOf(o)}})[0], o.DeepCopy(), nil)
					if got.Status != string(theirs.Status) || (got.Err == nil) != (theirs.Error == nil) {
						t.Errorf("%v %v: %s (%v), Flux says %s (%v)", kind, fields, got.Status, got.Err, theirs.Status, theirs.Error)
					}
				})
			}
		})
	}
}
