package health

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"

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
